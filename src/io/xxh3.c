#include "io/xxh3.h"

#include "base/arena.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { PIECE_BYTES = 1 << 20 };

static dr_xxh3 from_xxhash(XXH128_hash_t h)
{
    return (dr_xxh3){.high = h.high64, .low = h.low64};
}

dr_xxh3 dr_xxh3_bytes(const void *data, size_t n)
{
    return from_xxhash(XXH3_128bits(data != NULL ? data : "", n));
}

static dr_status hash_stream(FILE *f, const char *path, XXH3_state_t *state, dr_xxh3 *out)
{
    unsigned char *piece = dr_xcalloc(PIECE_BYTES, 1);
    size_t got = 0;
    (void)XXH3_128bits_reset(state);
    while ((got = fread(piece, 1, PIECE_BYTES, f)) > 0) {
        (void)XXH3_128bits_update(state, piece, got);
    }
    free(piece);
    if (ferror(f)) {
        DR_FAIL(DR_IO, "%s: read error: %s", path, strerror(errno));
    }
    *out = from_xxhash(XXH3_128bits_digest(state));
    return DR_OK;
}

dr_status dr_xxh3_file(const char *path, dr_xxh3 *out)
{
    FILE *f = fopen(path, "rbe");
    if (f == NULL) {
        DR_FAIL(DR_IO, "%s: cannot open: %s", path, strerror(errno));
    }
    XXH3_state_t *state = XXH3_createState();
    DR_CHECK(state != NULL, "out of host memory: XXH3 state");
    dr_status st = hash_stream(f, path, state, out);
    (void)XXH3_freeState(state);
    (void)fclose(f);
    return st;
}

void dr_xxh3_hex(dr_xxh3 h, char out[DR_XXH3_HEX])
{
    (void)snprintf(out, DR_XXH3_HEX, "%016llx%016llx", (unsigned long long)h.high,
                   (unsigned long long)h.low);
}

static bool parse_half(const char *hex, uint64_t *out)
{
    uint64_t v = 0;
    for (int i = 0; i < 16; i++) {
        unsigned digit = 0;
        if (hex[i] >= '0' && hex[i] <= '9') {
            digit = (unsigned)(hex[i] - '0');
        } else if (hex[i] >= 'a' && hex[i] <= 'f') {
            digit = (unsigned)(hex[i] - 'a') + 10;
        } else {
            return false;
        }
        v = v << 4 | digit;
    }
    *out = v;
    return true;
}

bool dr_xxh3_parse(const char *hex, dr_xxh3 *out)
{
    return strlen(hex) == DR_XXH3_HEX - 1 && parse_half(hex, &out->high) &&
           parse_half(hex + 16, &out->low);
}
