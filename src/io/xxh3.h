/*
 * io/xxh3.h - XXH3-128 content hashes: of bytes and of whole files.
 *
 * Layer:    io.  The only place that knows libxxhash.
 * Threads:  pure functions.
 *
 * XXH3 finds accidental damage and tells contents apart; it is no protection against forgery.
 */
#ifndef DR_IO_XXH3_H
#define DR_IO_XXH3_H

#include "dreamrun/status.h"

enum { DR_XXH3_HEX = 33 }; /* 32 lower-case hex digits and the NUL */

typedef struct dr_xxh3 {
    uint64_t high, low;
} dr_xxh3;

/* The hash of n bytes; data may be NULL when n is 0. */
dr_xxh3 dr_xxh3_bytes(const void *data, size_t n);
/* The hash of a whole file, read in pieces. Errors: DR_IO; *out is untouched then. */
DR_MUST_USE dr_status dr_xxh3_file(const char *path, dr_xxh3 *out);
/* The canonical spelling, high half first (as `xxh128sum` prints it). */
void dr_xxh3_hex(dr_xxh3 h, char out[DR_XXH3_HEX]);
/* The other way: exactly 32 lower-case hex digits, else false. */
bool dr_xxh3_parse(const char *hex, dr_xxh3 *out);
static inline bool dr_xxh3_equal(dr_xxh3 a, dr_xxh3 b)
{
    return a.high == b.high && a.low == b.low;
}

#endif
