#include "io/deflate.h"

#include <limits.h>
#include <zlib.h>

uint32_t dr_crc32(uint32_t before, const void *bytes, size_t n)
{
    return (uint32_t)crc32_z(before, bytes, n);
}

static uInt piece(size_t left)
{
    return left < UINT_MAX ? (uInt)left : UINT_MAX;
}

dr_status dr_inflate(const void *packed, size_t n_packed, void *out, size_t n)
{
    z_stream z = {.next_in = (z_const Bytef *)(uintptr_t)packed, .next_out = out};
    unsigned char spare; /* one byte beyond: a longer stream shows as that */
    size_t left_in = n_packed;
    size_t left_out = n;
    bool full = false;
    if (inflateInit2(&z, -MAX_WBITS) != Z_OK) {
        DR_FAIL(DR_NOMEM, "not enough memory to unpack");
    }
    int rc = Z_OK;
    while (rc == Z_OK) {
        full = left_out == 0;
        const uInt in = piece(left_in);
        const uInt room = full ? 1 : piece(left_out);
        z.avail_in = in;
        z.avail_out = room;
        z.next_out = full ? &spare : z.next_out;
        rc = inflate(&z, Z_NO_FLUSH);
        left_in -= in - z.avail_in;
        const uInt made = room - z.avail_out;
        if (full && made > 0) {
            rc = Z_DATA_ERROR;
        } else if (!full) {
            left_out -= made;
        }
    }
    (void)inflateEnd(&z);
    if (rc != Z_STREAM_END || left_out != 0) {
        DR_FAIL(DR_FORMAT, "the compressed data are damaged: %zu of %zu bytes came out",
                n - left_out, n);
    }
    return DR_OK;
}
