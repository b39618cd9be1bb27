/*
 * io/digest.h - SHA-256 and SHA-1 of bytes and files: hashes by which others know model files.
 *
 * Layer:    io.  The only place that knows OpenSSL's digests.
 * Threads:  a digest belongs to one thread.
 */
#ifndef DR_IO_DIGEST_H
#define DR_IO_DIGEST_H

#include "dreamrun/status.h"

typedef enum dr_digest_kind { DR_SHA256, DR_SHA1 } dr_digest_kind;

enum { DR_DIGEST_HEX = 65 }; /* room for the longest kind's lower-case hex digits and the NUL */

typedef struct dr_digest dr_digest;

/* Never NULL; ended by exactly one of finish and destroy. */
dr_digest *dr_digest_create(dr_digest_kind kind);
/* Adds n bytes; data may be NULL when n is 0. */
void dr_digest_add(dr_digest *d, const void *data, size_t n);
/* The hash of all that was added, as hex; frees the digest. */
void dr_digest_finish(dr_digest *d, char hex[DR_DIGEST_HEX]);
void dr_digest_destroy(dr_digest *d); /* NULL is fine */

/* The hash of n bytes. */
void dr_digest_bytes(dr_digest_kind kind, const void *data, size_t n, char hex[DR_DIGEST_HEX]);
/*
 * The hash of a file's bytes from offset on, at most n of them (what lies beyond its end counts as
 * nothing: a range behind the end hashes the empty string); offset 0 and UINT64_MAX: the whole
 * file. Errors: DR_IO; hex is untouched then.
 */
DR_MUST_USE dr_status dr_digest_file(dr_digest_kind kind, const char *path, uint64_t offset,
                                     uint64_t n, char hex[DR_DIGEST_HEX]);

#endif
