/*
 * io/latent_segment.h - one HDF5 file of the latent cache (io/latent_cache.h).
 *
 * Layer:    io, private to it.  The only place that knows HDF5.
 * Threads:  all calls from one thread.
 * Errors:   HDF5's own error stack becomes the record's message; DR_FORMAT for files.
 */
#ifndef DR_IO_LATENT_SEGMENT_H
#define DR_IO_LATENT_SEGMENT_H

#include "base/str.h"
#include "io/latent_cache.h"

typedef struct dr_latent_segment dr_latent_segment;

/* A new, empty segment in memory. */
DR_MUST_USE dr_status dr_latent_segment_create(dr_latent_segment **out);
/* A finished file, read-only. On error *out is NULL. */
DR_MUST_USE dr_status dr_latent_segment_open(dr_latent_segment **out, const char *path);
void dr_latent_segment_close(dr_latent_segment *s); /* NULL is fine */

/* Adds an entry to a segment in memory; the key must be new to it. */
DR_MUST_USE dr_status dr_latent_segment_put(dr_latent_segment *s, const char *key,
                                            const dr_latent_desc *desc, dr_latent_shape shape,
                                            const float *data);
/* The whole file as it should lie on disk; the caller frees *bytes. */
DR_MUST_USE dr_status dr_latent_segment_image(dr_latent_segment *s, void **bytes, size_t *n);
/* Appends the names of all entries. */
DR_MUST_USE dr_status dr_latent_segment_keys(dr_latent_segment *s, dr_strv *keys);
/* Channels of an entry; 0 when that cannot be read. */
int64_t dr_latent_segment_channels(dr_latent_segment *s, const char *key);
/* Calls fn with an entry's description; false when it cannot be read. */
bool dr_latent_segment_describe(dr_latent_segment *s, const char *key,
                                void (*fn)(void *user, const dr_latent_desc *desc), void *user);
/* Reads an entry; shape and checksum must be right. */
DR_MUST_USE dr_status dr_latent_segment_get(dr_latent_segment *s, const char *key,
                                            dr_latent_shape shape, float *buf);

#endif
