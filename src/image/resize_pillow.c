/*
 * image/resize_pillow.c - Pillow's LANCZOS and BOX for 8-bit pictures, to the bit.
 *
 * Weights (a windowed sinc of three lobes, or ones) are widened by the ratio when shrinking,
 * normalised in double, then rounded to fixed point with 22 fraction bits (32 - 8 for the sample -
 * 2 because the negative lobes need headroom). One pass along rows, rounded and clamped to 8 bits,
 * then one down columns; the other way round where Pillow 13 does so.
 */
#include "image/image_internal.h"

#include "base/arena.h"
#include "base/checked.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FRACTION_BITS 22
#define LOBES         3.0 /* of Lanczos */
#define BOX_REACH     0.5

static const double pi = 3.14159265358979323846;

typedef struct filter_axis {
    int taps;         /* weights kept per destination pixel */
    int *first;       /* first source pixel of destination pixel i */
    int *n;           /* source pixels that count, <= taps */
    int32_t *weights; /* (dest, taps) */
} filter_axis;

static double sinc(double x)
{
    if (x == 0.0) {
        return 1.0;
    }
    x = x * pi;
    return sin(x) / x;
}

static double lanczos(double x)
{
    return x >= -LOBES && x < LOBES ? sinc(x) * sinc(x / LOBES) : 0.0;
}

static double weight(dr_pillow_filter filter, double x)
{
    return filter == DR_PILLOW_LANCZOS ? lanczos(x) : x > -BOX_REACH && x <= BOX_REACH ? 1.0 : 0.0;
}

static void free_axis(filter_axis *axis)
{
    free(axis->first);
    free(axis->n);
    free(axis->weights);
    *axis = (filter_axis){0};
}

static int32_t to_fixed(double w)
{
    return (int32_t)((w < 0 ? -0.5 : 0.5) + w * (1 << FRACTION_BITS));
}

/* Weights of one destination pixel centred at center (source pixels); w is scratch. */
static void fill_weights(filter_axis *axis, dr_pillow_filter filter, int i, double center,
                         double shrink, double *w)
{
    double inverse = 1.0 / shrink;
    double total = 0.0;
    for (int k = 0; k < axis->n[i]; k++) {
        w[k] = weight(filter, (k + axis->first[i] - center + 0.5) * inverse);
        total += w[k];
    }
    for (int k = 0; k < axis->n[i]; k++) {
        double normal = total != 0.0 ? w[k] / total : w[k];
        axis->weights[(size_t)i * (size_t)axis->taps + (size_t)k] = to_fixed(normal);
    }
}

static dr_status alloc_axis(filter_axis *axis, int dest, double **scratch)
{
    void *first = NULL;
    void *n = NULL;
    void *weights = NULL;
    void *w = NULL;
    uint64_t count = 0;
    if (!dr_mul_u64((uint64_t)dest, (uint64_t)axis->taps, &count)) {
        DR_FAIL(DR_NOMEM, "resize table of %d x %d weights is too large", dest, axis->taps);
    }
    DR_TRY(dr_try_calloc((size_t)dest, sizeof(int), &first));
    axis->first = first;
    DR_TRY(dr_try_calloc((size_t)dest, sizeof(int), &n));
    axis->n = n;
    DR_TRY(dr_try_calloc((size_t)count, sizeof(int32_t), &weights));
    axis->weights = weights;
    DR_TRY(dr_try_calloc((size_t)axis->taps, sizeof(double), &w));
    *scratch = w;
    return DR_OK;
}

static dr_status build_axis(filter_axis *axis, dr_pillow_filter filter, int source, int dest)
{
    double scale = (double)source / dest;
    double shrink = fmax(scale, 1.0);
    double support = (filter == DR_PILLOW_LANCZOS ? LOBES : BOX_REACH) * shrink;
    double *scratch = NULL;
    if (support > INT_MAX / 4) {
        DR_FAIL(DR_NOMEM, "scaling %d to %d pixels needs too large a filter", source, dest);
    }
    axis->taps = (int)ceil(support) * 2 + 1;
    DR_TRY(alloc_axis(axis, dest, &scratch));
    for (int i = 0; i < dest; i++) {
        double center = (i + 0.5) * scale;
        int begin = (int)fmax(center - support + 0.5, 0.0);
        int end = (int)fmin(center + support + 0.5, source);
        axis->first[i] = begin;
        axis->n[i] = end - begin;
        fill_weights(axis, filter, i, center, shrink, scratch);
    }
    free(scratch);
    return DR_OK;
}

static unsigned char to_u8(int32_t sum)
{
    int32_t v = sum >> FRACTION_BITS;
    return v < 0 ? 0 : v > 255 ? 255 : (unsigned char)v;
}

/* src (height, src->width) to out (height, width). */
static void resample_rows(const dr_image *src, const filter_axis *axis, int width,
                          unsigned char *out)
{
    const int32_t half = 1 << (FRACTION_BITS - 1);
    for (int y = 0; y < src->height; y++) {
        const unsigned char *row = src->pixels + (size_t)y * (size_t)src->width * 3;
        for (int x = 0; x < width; x++, out += 3) {
            const int32_t *w = axis->weights + (size_t)x * (size_t)axis->taps;
            const unsigned char *p = row + (size_t)axis->first[x] * 3;
            int32_t r = half;
            int32_t g = half;
            int32_t b = half;
            for (int k = 0; k < axis->n[x]; k++, p += 3) {
                r += p[0] * w[k];
                g += p[1] * w[k];
                b += p[2] * w[k];
            }
            out[0] = to_u8(r);
            out[1] = to_u8(g);
            out[2] = to_u8(b);
        }
    }
}

/* in (source height, dst->width) to dst; sums: one row of dst->width * 3. */
static void resample_columns(const unsigned char *in, const filter_axis *axis, int32_t *sums,
                             dr_image *dst)
{
    const int32_t half = 1 << (FRACTION_BITS - 1);
    size_t row = (size_t)dst->width * 3;
    for (int y = 0; y < dst->height; y++) {
        for (size_t i = 0; i < row; i++) {
            sums[i] = half;
        }
        for (int k = 0; k < axis->n[y]; k++) {
            const unsigned char *from = in + (size_t)(axis->first[y] + k) * row;
            int32_t w = axis->weights[(size_t)y * (size_t)axis->taps + (size_t)k];
            for (size_t i = 0; i < row; i++) {
                sums[i] += from[i] * w;
            }
        }
        unsigned char *to = dst->pixels + (size_t)y * row;
        for (size_t i = 0; i < row; i++) {
            to[i] = to_u8(sums[i]);
        }
    }
}

static dr_status pass_rows(const dr_image *src, dr_pillow_filter filter, int width,
                           unsigned char *out)
{
    filter_axis axis = {0};
    dr_status st = build_axis(&axis, filter, src->width, width);
    if (st == DR_OK) {
        resample_rows(src, &axis, width, out);
    }
    free_axis(&axis);
    return st;
}

static dr_status pass_columns(const unsigned char *in, dr_pillow_filter filter, int height,
                              dr_image *dst)
{
    filter_axis axis = {0};
    void *sums = NULL;
    dr_status st = build_axis(&axis, filter, height, dst->height);
    if (st == DR_OK) {
        st = dr_try_calloc((size_t)dst->width * 3, sizeof(int32_t), &sums);
    }
    if (st == DR_OK) {
        resample_columns(in, &axis, sums, dst);
    }
    free(sums);
    free_axis(&axis);
    return st;
}

/* Pillow 13 begins with the columns where that leaves less to do; older versions never do. */
static bool columns_first(const dr_image *src, const dr_image *dst)
{
    int less_rows = src->height - dst->height;
    int64_t less_columns = (int64_t)src->width - dst->width;
    return less_rows > 0 && less_rows > 2 * less_columns;
}

dr_status dr_resize_pillow(const dr_image *src, dr_pillow_filter filter, dr_image *dst)
{
    if (dst->height == src->height) {
        return pass_rows(src, filter, dst->width, dst->pixels);
    }
    if (dst->width == src->width) {
        return pass_columns(src->pixels, filter, src->height, dst);
    }
    dr_image between = {0};
    bool swap = columns_first(src, dst);
    DR_TRY(
        dr_image_alloc(&between, swap ? src->width : dst->width, swap ? dst->height : src->height));
    dr_status st = swap ? pass_columns(src->pixels, filter, src->height, &between)
                        : pass_rows(src, filter, dst->width, between.pixels);
    if (st == DR_OK) {
        st = swap ? pass_rows(&between, filter, dst->width, dst->pixels)
                  : pass_columns(between.pixels, filter, src->height, dst);
    }
    dr_image_free(&between);
    return st;
}
