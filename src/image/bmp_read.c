/*
 * image/bmp_read.c - Windows and OS/2 bitmaps.
 *
 * Source: the BITMAPFILEHEADER, BITMAPCOREHEADER, BITMAPINFOHEADER, BITMAPV4HEADER and
 * BITMAPV5HEADER structures of the Windows API, and its "Bitmap Compression". Rows stand on
 * 4-byte borders, the bottom one first unless the height is negative. Four-byte pixels without
 * masks have no alpha.
 */
#include "image/image_internal.h"

#include <limits.h>
#include <string.h>

enum { FILE_HEADER = 14, RGB = 0, RLE8 = 1, RLE4 = 2, BITFIELDS = 3, ALPHABITFIELDS = 6 };

typedef struct bmp_header {
    uint32_t size; /* of the header behind the file header: 12, or 40 to 124 */
    int width, height;
    bool top_down;
    uint32_t bits, compression;
    uint32_t masks[4]; /* red, green, blue, alpha; of 16, 24 and 32 bits */
    uint32_t n_colours, palette_at, palette_step;
    uint32_t pixels_at;
} bmp_header;

static dr_status fail_short(const dr_image_bytes *in)
{
    DR_FAIL(DR_FORMAT, "%s: truncated BMP: the file ends after %zu bytes; %s", in->path, in->size,
            DR_IMAGE_RESAVE);
}

/* Masks from the file, else those that the pixel size implies. */
static void read_masks(const dr_image_bytes *in, bmp_header *h)
{
    const uint32_t five[3] = {0x7C00, 0x3E0, 0x1F};
    const uint32_t eight[3] = {0xFF0000, 0xFF00, 0xFF};
    bool given = h->compression == BITFIELDS || h->compression == ALPHABITFIELDS;
    bool alpha = h->size >= 56 || h->compression == ALPHABITFIELDS;
    for (size_t i = 0; given && i < (alpha ? 4u : 3u); i++) {
        size_t at = FILE_HEADER + 40 + 4 * i;
        h->masks[i] = at + 4 <= in->size ? dr_le32(in->data + at) : 0;
    }
    if (given && h->size == 40) { /* they stand between the header and the palette */
        h->palette_at += alpha ? 16 : 12;
    }
    if ((h->masks[0] | h->masks[1] | h->masks[2] | h->masks[3]) == 0) {
        memcpy(h->masks, h->bits == 16 ? five : eight, sizeof five);
        h->masks[3] = given && h->bits == 32 ? 0xFF000000u : 0; /* as Pillow */
    }
}

static dr_status read_core_header(const dr_image_bytes *in, bmp_header *h)
{
    const unsigned char *p = in->data + FILE_HEADER;
    h->width = (int)dr_le16(p + 4);
    h->height = (int)dr_le16(p + 6);
    h->bits = dr_le16(p + 10);
    h->palette_step = 3;
    read_masks(in, h);
    return DR_OK;
}

static dr_status read_info_header(const dr_image_bytes *in, bmp_header *h)
{
    const unsigned char *p = in->data + FILE_HEADER;
    int64_t width = (int32_t)dr_le32(p + 4);
    int64_t height = (int32_t)dr_le32(p + 8);
    h->top_down = height < 0;
    height = height < 0 ? -height : height;
    if (width < 0 || height > INT_MAX) {
        DR_FAIL(DR_FORMAT, "%s: damaged BMP: %lld x %lld pixels; %s", in->path, (long long)width,
                (long long)height, DR_IMAGE_RESAVE);
    }
    h->width = (int)width;
    h->height = (int)height;
    h->bits = dr_le16(p + 14);
    h->compression = dr_le32(p + 16);
    h->n_colours = dr_le32(p + 32);
    h->palette_step = 4;
    read_masks(in, h);
    return DR_OK;
}

static bool is_known_kind(const bmp_header *h)
{
    switch (h->compression) {
    case RGB:
        return h->bits == 1 || h->bits == 2 || h->bits == 4 || h->bits == 8 || h->bits == 16 ||
               h->bits == 24 || h->bits == 32;
    case RLE8:
        return h->bits == 8;
    case RLE4:
        return h->bits == 4;
    case BITFIELDS:
    case ALPHABITFIELDS:
        return h->bits == 16 || h->bits == 24 || h->bits == 32;
    default:
        return false;
    }
}

static size_t row_bytes(const bmp_header *h)
{
    return ((size_t)h->width * h->bits + 31) / 32 * 4;
}

static bool is_run_length(const bmp_header *h)
{
    return h->compression == RLE8 || h->compression == RLE4;
}

static dr_status check_pixels(const dr_image_bytes *in, const bmp_header *h)
{
    size_t have = h->pixels_at < in->size ? in->size - h->pixels_at : 0;
    size_t row = row_bytes(h);
    bool whole = is_run_length(h) ? have > 0 : row == 0 || have / row >= (size_t)h->height;
    if (!whole) {
        DR_FAIL(DR_FORMAT,
                "%s: truncated BMP: %d x %d pixels of %u bits do not fit into the %zu bytes behind "
                "the header; %s",
                in->path, h->width, h->height, h->bits, have, DR_IMAGE_RESAVE);
    }
    return DR_OK;
}

static dr_status read_header(const dr_image_bytes *in, bmp_header *h)
{
    *h = (bmp_header){0};
    if (in->size < FILE_HEADER + 12) {
        return fail_short(in);
    }
    h->pixels_at = dr_le32(in->data + 10);
    h->size = dr_le32(in->data + FILE_HEADER);
    if (h->size != 12 && h->size != 40 && h->size != 52 && h->size != 56 && h->size != 64 &&
        h->size != 108 && h->size != 124) {
        DR_FAIL(DR_FORMAT,
                "%s: a BMP header of %u bytes, expected 12, 40, 52, 56, 64, 108 or 124; save it "
                "anew as PNG",
                in->path, h->size);
    }
    if (in->size - FILE_HEADER < h->size) {
        return fail_short(in);
    }
    h->palette_at = FILE_HEADER + h->size;
    DR_TRY(h->size == 12 ? read_core_header(in, h) : read_info_header(in, h));
    if (!is_known_kind(h)) {
        DR_FAIL(DR_FORMAT,
                "%s: a BMP of %u bits with compression %u, which this program does not read; save "
                "it anew as PNG",
                in->path, h->bits, h->compression);
    }
    if (h->bits <= 8 && (h->n_colours == 0 || h->n_colours > 1u << h->bits)) {
        h->n_colours = 1u << h->bits;
    }
    uint32_t palette_end = h->palette_at + (h->bits <= 8 ? h->n_colours * h->palette_step : 0);
    if (h->pixels_at == 0 || (h->bits <= 8 && h->pixels_at == FILE_HEADER + h->size)) {
        h->pixels_at = palette_end; /* some writers forget the palette, or the offset at all */
    }
    return check_pixels(in, h);
}

dr_status dr_bmp_probe(const dr_image_bytes *in, dr_image_info *info)
{
    bmp_header h;
    DR_TRY(read_header(in, &h));
    *info = (dr_image_info){
        .format = DR_IMAGE_BMP, .width = h.width, .height = h.height, .orientation = 1};
    return DR_OK;
}

/* Colours that the file does not give are black. */
static void read_palette(const dr_image_bytes *in, const bmp_header *h, unsigned char rgb[256][3])
{
    memset(rgb, 0, 256 * 3);
    for (uint32_t i = 0; i < h->n_colours && i < 256; i++) {
        size_t at = h->palette_at + (size_t)i * h->palette_step;
        if (at + 3 > in->size) {
            return;
        }
        for (int c = 0; c < 3; c++) {
            rgb[i][c] = in->data[at + 2 - (size_t)c];
        }
    }
}

typedef struct field {   /* one channel of a pixel word */
    uint32_t shift, top; /* top: the largest value, 0 for an absent channel */
} field;

static field field_of(uint32_t mask)
{
    field f = {0, mask};
    while (f.top != 0 && (f.top & 1) == 0) {
        f.top >>= 1;
        f.shift++;
    }
    return f;
}

/* Scaled to 0..255, cut down as Pillow does it. */
static unsigned char field_value(field f, uint32_t word)
{
    if (f.top == 0) {
        return 0;
    }
    return (unsigned char)((uint64_t)(word >> f.shift & f.top) * 255 / f.top);
}

static void unpack_word_row(const bmp_header *h, const field fields[4], const unsigned char *in,
                            size_t samples, unsigned char *to)
{
    for (int x = 0; x < h->width; x++, in += h->bits / 8, to += samples) {
        uint32_t word = dr_le16(in);
        word |= h->bits >= 24 ? (uint32_t)in[2] << 16 : 0;
        word |= h->bits == 32 ? (uint32_t)in[3] << 24 : 0;
        for (size_t c = 0; c < samples; c++) {
            to[c] = field_value(fields[c], word);
        }
    }
}

static void unpack_palette_row(const bmp_header *h, const unsigned char *in,
                               unsigned char rgb[256][3], unsigned char *to)
{
    for (size_t x = 0; x < (size_t)h->width; x++, to += 3) {
        size_t bit = x * h->bits;
        unsigned index = in[bit / 8] >> (8 - h->bits - bit % 8) & ((1u << h->bits) - 1);
        memcpy(to, rgb[index], 3);
    }
}

/* The row in the raster that the y-th stored row fills. */
static size_t target_row(const bmp_header *h, size_t y)
{
    return h->top_down ? y : (size_t)h->height - 1 - y;
}

static void unpack_plain(const dr_image_bytes *in, const bmp_header *h, dr_raster *out)
{
    unsigned char palette[256][3];
    field fields[4];
    for (int c = 0; c < 4; c++) {
        fields[c] = field_of(h->masks[c]);
    }
    read_palette(in, h, palette);
    size_t stride = dr_raster_row_bytes(out);
    for (size_t y = 0; y < (size_t)h->height; y++) {
        const unsigned char *from = in->data + h->pixels_at + y * row_bytes(h);
        unsigned char *to = out->data + target_row(h, y) * stride;
        if (h->bits <= 8) {
            unpack_palette_row(h, from, palette, to);
        } else {
            unpack_word_row(h, fields, from, dr_raster_samples(out), to);
        }
    }
}

typedef struct run_reader { /* RLE4 and RLE8 */
    const dr_image_bytes *in;
    const bmp_header *h;
    size_t at;
    size_t x, y; /* where the next pixel goes, rows as stored */
    unsigned char (*palette)[3];
    dr_raster *out;
} run_reader;

/* Pixels beyond the row's end are dropped, as Pillow does it. */
static void put_pixel(run_reader *r, unsigned index)
{
    if (r->x < (size_t)r->h->width && r->y < (size_t)r->h->height) {
        size_t row = target_row(r->h, r->y);
        memcpy(r->out->data + row * dr_raster_row_bytes(r->out) + r->x * 3, r->palette[index], 3);
    }
    r->x++;
}

/* n pixels from bytes at p: stored one per byte, or two for RLE4; repeat: all from the first. */
static void put_pixels(run_reader *r, const unsigned char *p, size_t n, bool repeat)
{
    bool halves = r->h->compression == RLE4;
    for (size_t i = 0; i < n; i++) {
        unsigned byte = p[repeat ? 0 : halves ? i / 2 : i];
        put_pixel(r, !halves ? byte : i % 2 == 0 ? byte >> 4 : byte & 15);
    }
}

/* Behind a zero byte: end of line, of picture (*done), a jump, or n stored pixels. */
static bool read_escape(run_reader *r, unsigned code, bool *done)
{
    size_t left = r->in->size - r->at;
    if (code == 0) {
        r->x = 0;
        r->y++;
    } else if (code == 1) {
        *done = true;
    } else if (code == 2) {
        if (left < 2) {
            return false;
        }
        r->x += r->in->data[r->at];
        r->y += r->in->data[r->at + 1];
        r->at += 2;
    } else {
        size_t bytes = r->h->compression == RLE4 ? (code + 1) / 2 : code;
        if (left < bytes) {
            return false;
        }
        put_pixels(r, r->in->data + r->at, code, false);
        r->at += bytes + (bytes & 1);
        r->at = r->at < r->in->size ? r->at : r->in->size;
    }
    return true;
}

/* Ends at the end mark, or when the last row is over: some writers leave the mark out. */
static bool read_runs(run_reader *r)
{
    bool done = false;
    while (!done && r->y < (size_t)r->h->height) {
        if (r->in->size - r->at < 2) {
            return r->y + 1 == (size_t)r->h->height && r->x >= (size_t)r->h->width;
        }
        unsigned count = r->in->data[r->at];
        const unsigned char *value = r->in->data + r->at + 1;
        r->at += 2;
        if (count != 0) {
            put_pixels(r, value, count, true);
        } else if (!read_escape(r, *value, &done)) {
            return false;
        }
    }
    return true;
}

static dr_status unpack_runs(const dr_image_bytes *in, const bmp_header *h, dr_raster *out)
{
    unsigned char palette[256][3];
    read_palette(in, h, palette);
    for (size_t i = 0; i < (size_t)h->width * (size_t)h->height; i++) {
        memcpy(out->data + i * 3, palette[0], 3); /* what no run covers */
    }
    run_reader r = {.in = in, .h = h, .at = h->pixels_at, .palette = palette, .out = out};
    if (!read_runs(&r)) {
        DR_FAIL(DR_FORMAT, "%s: truncated BMP: the file ends after %zu bytes, in row %zu of %d; %s",
                in->path, in->size, r.y, h->height, DR_IMAGE_RESAVE);
    }
    return DR_OK;
}

/* A profile inside a BITMAPV5HEADER file; offsets count from the header. */
static dr_status take_profile(const dr_image_bytes *in, const bmp_header *h, dr_raster *out)
{
    enum { EMBEDDED = 0x4D424544 }; /* 'MBED' */
    const unsigned char *p = in->data + FILE_HEADER;
    if (h->size < 124 || dr_le32(p + 56) != EMBEDDED) {
        return DR_OK;
    }
    size_t at = (size_t)dr_le32(p + 112) + FILE_HEADER;
    size_t n = dr_le32(p + 116);
    if (at > in->size || n > in->size - at) {
        return DR_OK; /* as any damaged profile: left aside */
    }
    return dr_raster_set_icc(out, in->data + at, n);
}

dr_status dr_bmp_decode(const dr_image_bytes *in, const dr_image_info *info, dr_raster *out)
{
    bmp_header h;
    DR_TRY(read_header(in, &h));
    DR_TRY(take_profile(in, &h, out));
    DR_TRY(dr_raster_alloc(out, info, DR_RGB, h.bits > 8 && h.masks[3] != 0, 8));
    if (is_run_length(&h)) {
        return unpack_runs(in, &h, out);
    }
    unpack_plain(in, &h, out);
    return DR_OK;
}
