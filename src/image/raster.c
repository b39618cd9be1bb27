/*
 * image/raster.c - decoded samples of any kind to upright 8-bit RGB.
 */
#include "image/image_internal.h"

#include "base/arena.h"
#include "base/checked.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_ICC_BYTES = 64 << 20 };

dr_status dr_raster_alloc(dr_raster *r, const dr_image_info *info, dr_colours colours, bool alpha,
                          int bits)
{
    r->width = info->width;
    r->height = info->height;
    r->colours = colours;
    r->alpha = alpha;
    r->bits = bits;
    void *data = NULL;
    DR_TRY(dr_try_calloc((size_t)r->height, dr_raster_row_bytes(r), &data));
    r->data = data;
    return DR_OK;
}

dr_status dr_raster_set_icc(dr_raster *r, const void *icc, size_t size)
{
    void *copy = NULL;
    if (size == 0 || size > MAX_ICC_BYTES || r->icc != NULL) {
        return DR_OK;
    }
    DR_TRY(dr_try_calloc(size, 1, &copy));
    memcpy(copy, icc, size);
    r->icc = copy;
    r->icc_size = size;
    return DR_OK;
}

void dr_raster_free(dr_raster *r)
{
    free(r->data);
    free(r->icc);
    *r = (dr_raster){0};
}

typedef struct finish { /* one dr_raster_finish */
    const dr_raster *r;
    const dr_image_options *o;
    const dr_icc *icc;     /* NULL: samples are sRGB, or CMYK without a profile */
    unsigned char *narrow; /* one row in 8 bits; unused for 8-bit rasters */
    unsigned char *alpha;  /* (height, width), NULL: not wanted */
    bool composite;
} finish;

/* v * 255 / 65535, rounded: exact for all 65536 values. */
static unsigned char round_to_8(unsigned v)
{
    return (unsigned char)((v * 255 + 32895) >> 16);
}

/* A row of 16-bit samples in 8 bits. */
static void narrow_row(const finish *f, const unsigned char *row)
{
    size_t samples = dr_raster_samples(f->r);
    size_t n = (size_t)f->r->width * samples;
    bool clips = f->o->as_pillow && f->r->clips;
    for (size_t i = 0; i < n; i++) {
        uint16_t v;
        memcpy(&v, row + 2 * i, sizeof v);
        f->narrow[i] = clips             ? (unsigned char)(v > 255 ? 255 : v)
                       : f->o->as_pillow ? (unsigned char)(v >> 8)
                                         : round_to_8(v);
    }
}

static void colour_row(const finish *f, const unsigned char *in, unsigned char *rgb)
{
    size_t step = dr_raster_samples(f->r);
    for (int x = 0; x < f->r->width; x++, in += step, rgb += 3) {
        if (f->r->colours == DR_GRAY) {
            rgb[0] = rgb[1] = rgb[2] = in[0];
        } else if (f->r->colours == DR_RGB) {
            memcpy(rgb, in, 3);
        } else {
            unsigned paper = 255u - in[3];
            for (int c = 0; c < 3; c++) {
                rgb[c] = (unsigned char)(paper - dr_mul_div_255(in[c], paper));
            }
        }
    }
}

/* in: the row in 8 bits. */
static void alpha_row(const finish *f, const unsigned char *in, unsigned char *rgb, int y)
{
    size_t step = dr_raster_samples(f->r);
    in += f->r->colours;
    for (int x = 0; x < f->r->width; x++, in += step, rgb += 3) {
        unsigned a = in[0];
        for (int c = 0; c < 3 && f->composite && a != 255; c++) {
            unsigned t = rgb[c] * a + f->o->background[c] * (255 - a) + 128;
            rgb[c] = (unsigned char)(((t >> 8) + t) >> 8);
        }
        if (f->alpha != NULL) {
            f->alpha[(size_t)y * (size_t)f->r->width + (size_t)x] = (unsigned char)a;
        }
    }
}

static void finish_row(const finish *f, int y, unsigned char *rgb)
{
    const unsigned char *row = f->r->data + (size_t)y * dr_raster_row_bytes(f->r);
    const unsigned char *narrow = f->r->bits == 16 ? f->narrow : row;
    if (f->r->bits == 16) {
        narrow_row(f, row);
    }
    if (f->icc != NULL) {
        dr_icc_run(f->icc, row, rgb, (size_t)f->r->width);
    } else {
        colour_row(f, narrow, rgb);
    }
    if (f->r->alpha) {
        alpha_row(f, narrow, rgb, y);
    }
}

static dr_status convert(dr_raster *r, finish *f, dr_image *out)
{
    bool in_place = r->colours == DR_RGB && r->bits == 8 && !r->alpha;
    void *narrow = NULL;
    if (in_place) {
        *out = (dr_image){r->width, r->height, 3, r->data, true};
    } else {
        DR_TRY(dr_image_alloc(out, r->width, r->height));
    }
    if (!in_place || f->icc != NULL) {
        if (r->bits == 16) {
            DR_TRY(dr_try_calloc((size_t)r->width, dr_raster_samples(r), &narrow));
        }
        f->narrow = narrow;
        for (int y = 0; y < r->height; y++) {
            finish_row(f, y, out->pixels + (size_t)y * (size_t)r->width * 3);
        }
        free(narrow);
    }
    if (in_place) {
        r->data = NULL;
    }
    return DR_OK;
}

static dr_status turn(int orientation, dr_image *out, unsigned char **alpha)
{
    if (alpha != NULL && *alpha != NULL) {
        int w = out->width;
        int h = out->height;
        DR_TRY(dr_turn_upright(alpha, &w, &h, 1, orientation));
    }
    return dr_turn_upright(&out->pixels, &out->width, &out->height, 3, orientation);
}

dr_status dr_raster_finish(dr_raster *r, int orientation, const dr_image_options *o, dr_image *out,
                           unsigned char **alpha)
{
    dr_icc *icc = NULL;
    void *plane = NULL;
    dr_status st = DR_OK;
    if (!o->as_pillow) {
        DR_TRY(dr_icc_open(r, &icc));
    }
    if (r->alpha && alpha != NULL) {
        st = dr_try_calloc((size_t)r->height, (size_t)r->width, &plane);
    }
    finish f = {.r = r,
                .o = o,
                .icc = icc,
                .alpha = plane,
                .composite = r->alpha && !o->as_pillow && !o->keep_hidden};
    if (st == DR_OK) {
        st = convert(r, &f, out);
    }
    dr_icc_close(icc);
    if (alpha != NULL) {
        *alpha = plane;
    }
    if (st == DR_OK && !o->as_pillow) {
        st = turn(orientation, out, alpha);
    }
    return st;
}
