/*
 * image/exif.c - the orientation tag of EXIF blocks, and turning pixels by it.
 *
 * Source: EXIF 2.32 (CIPA DC-008), 4.6.4 A: tag 0x0112 of the first directory, one SHORT.
 */
#include "image/image_internal.h"

#include "base/arena.h"

#include <stdlib.h>
#include <string.h>

typedef struct tiff_block {
    const unsigned char *data;
    size_t size;
    bool big_endian;
} tiff_block;

static uint32_t read_u16(const tiff_block *t, size_t at)
{
    const unsigned char *p = t->data + at;
    return t->big_endian ? (uint32_t)p[0] << 8 | p[1] : dr_le16(p);
}

static uint32_t read_u32(const tiff_block *t, size_t at)
{
    return t->big_endian ? dr_be32(t->data + at) : dr_le32(t->data + at);
}

int dr_exif_orientation(const unsigned char *tiff, size_t n)
{
    enum { ORIENTATION = 0x0112, SHORT = 3, ENTRY = 12 };
    if (n < 8 || (memcmp(tiff, "II*\0", 4) != 0 && memcmp(tiff, "MM\0*", 4) != 0)) {
        return 1;
    }
    const tiff_block t = {tiff, n, tiff[0] == 'M'};
    size_t at = read_u32(&t, 4);
    if (at > n - 2) {
        return 1;
    }
    uint32_t n_entries = read_u16(&t, at);
    at += 2;
    for (uint32_t i = 0; i < n_entries && n - at >= ENTRY; i++, at += ENTRY) {
        if (read_u16(&t, at) == ORIENTATION) {
            uint32_t value = read_u16(&t, at + 8);
            bool sane = read_u16(&t, at + 2) == SHORT && read_u32(&t, at + 4) == 1;
            return sane && value >= 1 && value <= 8 ? (int)value : 1;
        }
    }
    return 1;
}

/* Steps through the stored pixels, in pixels, for one step right and one step down in the upright
 * picture, and where its top left pixel is stored. w, h: as stored. */
typedef struct walk {
    ptrdiff_t start, right, down;
} walk;

static walk walk_of(int orientation, ptrdiff_t w, ptrdiff_t h)
{
    switch (orientation) {
    case 2: /* mirrored */
        return (walk){w - 1, -1, w};
    case 3: /* upside down */
        return (walk){w * h - 1, -1, -w};
    case 4: /* mirrored upside down */
        return (walk){(h - 1) * w, 1, -w};
    case 5: /* transposed */
        return (walk){0, w, 1};
    case 6: /* stored turned to the left */
        return (walk){(h - 1) * w, -w, 1};
    case 7: /* transposed along the other diagonal */
        return (walk){w * h - 1, -w, -1};
    default: /* 8: stored turned to the right */
        return (walk){w - 1, w, -1};
    }
}

dr_status dr_turn_upright(unsigned char **pixels, int *width, int *height, int samples,
                          int orientation)
{
    if (orientation == 1) {
        return DR_OK;
    }
    DR_CHECK(orientation >= 2 && orientation <= 8, "orientation %d", orientation);
    bool swap = orientation >= 5;
    int w = swap ? *height : *width;
    int h = swap ? *width : *height;
    walk go = walk_of(orientation, *width, *height);
    void *turned = NULL;
    DR_TRY(dr_try_calloc((size_t)w * (size_t)h, (size_t)samples, &turned));
    unsigned char *to = turned;
    for (int y = 0; y < h; y++) {
        const unsigned char *from = *pixels + (go.start + y * go.down) * samples;
        for (int x = 0; x < w; x++, from += go.right * samples) {
            for (int c = 0; c < samples; c++) {
                *to++ = from[c];
            }
        }
    }
    free(*pixels);
    *pixels = turned;
    *width = w;
    *height = h;
    return DR_OK;
}
