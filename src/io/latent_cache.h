/*
 * io/latent_cache.h - encoded latents kept between runs: a folder of immutable HDF5 files.
 *
 * Layer:    io.
 * Threads:  one thread per cache; all HDF5 calls of the process come from that thread.
 *
 * A cache is a folder of segments "latents-<number>-<hash>.h5". Entries are collected in memory
 * and appear on disk as one finished segment (temporary name, fsync, rename), which is never
 * written again: a killed run loses only what was not committed, and the next run completes the
 * rest. Several runs may fill the same folder at once. In each file, entry KEY is the dataset
 * /latents/KEY of f32, f16 or bf16, with attributes image, content, bucket, crop, flip, vae, kind,
 * dtype, and xxh3: the XXH3-128 of its values as f32, compared on every read.
 *
 * A key says all that the latent depends on: the caller hashes image content, bucket, crop, flip,
 * VAE, kind and formats into 32 lower-case hex digits (io/xxh3.h). So an entry can be absent, not
 * stale.
 */
#ifndef DR_IO_LATENT_CACHE_H
#define DR_IO_LATENT_CACHE_H

#include "tensor/dtype.h"

typedef struct dr_latent_cache dr_latent_cache;

typedef enum dr_latent_cache_mode {
    DR_LATENT_CACHE_READ, /* the folder must exist; put and commit are broken contracts */
    DR_LATENT_CACHE_WRITE /* the folder is made when absent; get works too */
} dr_latent_cache_mode;

typedef struct dr_latent_desc { /* for people and tools that open the files; UTF-8, never NULL */
    const char *image;          /* path as the user gave it */
    const char *content;        /* hash of the picture file */
    const char *bucket;         /* "512x768": width x height */
    const char *crop;           /* "left,top" */
    const char *vae;            /* hash of the VAE's weights */
    const char *kind;           /* "moments": [mean | logvar]; "latent": drawn; "npz": imported */
    const char *dtype;          /* the VAE computed in "f32", "bf16", ... */
    dr_dtype stored;            /* F32, F16, BF16 */
    bool flip;
} dr_latent_desc;

typedef struct dr_latent_shape { /* (channels, height/8, width/8), each >= 1 */
    int64_t c, h, w;
} dr_latent_shape;

/*
 * Opens the folder and lists its entries. A segment that cannot be read is named in a warning and
 * left alone; its entries count as absent. In WRITE mode temporary files older than an hour, left
 * by killed runs, are removed. On error *out is NULL.
 * Errors: DR_IO (READ: no such folder), DR_OUTPUT (WRITE: cannot be made).
 */
DR_MUST_USE dr_status dr_latent_cache_open(dr_latent_cache **out, const char *dir,
                                           dr_latent_cache_mode mode);
/* Commits in WRITE mode and frees everything, also on failure. NULL is fine. */
DR_MUST_USE dr_status dr_latent_cache_close(dr_latent_cache *c);

/* Keys are 32 lower-case hex digits everywhere (contract). */

/* How many different keys there are, damaged ones included. */
size_t dr_latent_cache_count(const dr_latent_cache *c);
/* How many segments were skipped as damaged at open. */
size_t dr_latent_cache_damaged_segments(const dr_latent_cache *c);
/* False also for an entry that dr_latent_cache_get found damaged. */
bool dr_latent_cache_has(const dr_latent_cache *c, const char *key);

/*
 * Adds an entry of c*h*w floats in row-major order, which desc->stored must hold exactly; nothing
 * is kept of the arguments. A key that
 * is there already (has) is left as it is. Commits by itself after 32 MiB or 60 seconds.
 * Errors: those of such a commit; the entry is kept and the next commit tries again.
 */
DR_MUST_USE dr_status dr_latent_cache_put(dr_latent_cache *c, const char *key,
                                          const dr_latent_desc *desc, dr_latent_shape shape,
                                          const float *data);
/* Channels of an entry that is there (has): shape.c of get. 0 when that cannot be read. */
int64_t dr_latent_cache_channels(dr_latent_cache *c, const char *key);

/*
 * Calls fn with the description of every entry; its texts live during the call. Entries that cannot
 * be described are passed over.
 */
void dr_latent_cache_each(dr_latent_cache *c, void (*fn)(void *user, const dr_latent_desc *desc),
                          void *user);
/* Makes everything that was put durable. Errors: DR_IO, DR_OUTPUT; nothing is lost in memory. */
DR_MUST_USE dr_status dr_latent_cache_commit(dr_latent_cache *c);

/*
 * Reads an entry, committed or not, into buf and compares its checksum.
 * Errors: DR_FORMAT naming file and key: the entry is absent, damaged or not of this shape; encode
 * the image again and put it (a damaged entry is replaced). buf is undefined then.
 */
DR_MUST_USE dr_status dr_latent_cache_get(dr_latent_cache *c, const char *key,
                                          dr_latent_shape shape, float *buf);

#endif
