/*
 * image/resize_area.c - INTER_AREA for shrinking 8-bit pictures, to the bit as OpenCV rounds it.
 *
 * A destination pixel is the mean of the source rectangle below it, partly covered pixels weighted
 * by their share. OpenCV computes it in two ways, and so does this file:
 *   both ratios whole numbers: integer sums, times 1/area in f32, rounded half to even; for 2 x 2
 *   (sum + 2) >> 2 instead;
 *   otherwise: f32 sums along rows, then down columns, each term weight * value added in order.
 * Table entries are computed in double and rounded to f32; shares below 1e-3 pixels are dropped.
 */
#include "image/image_internal.h"

#include "base/arena.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

typedef struct area_tap {
    int source; /* pixel index along the axis */
    float weight;
} area_tap;

typedef struct area_axis {
    area_tap *taps;
    int *first; /* taps[first[i]] .. taps[first[i + 1] - 1] make destination pixel i */
} area_axis;

/* Rounds half to even and clamps: v + 2^23 leaves no fraction bits in f32. 0 <= v < 2^22. */
static unsigned char round_u8(float v)
{
    const float magic = 8388608.0f;
    float r = (v + magic) - magic;
    return r >= 255.0f ? 255 : (unsigned char)r;
}

/* Source pixels per destination pixel, with OpenCV's two roundings. */
static double axis_scale(int source, int dest)
{
    return 1.0 / ((double)dest / (double)source);
}

static void free_axis(area_axis *axis)
{
    free(axis->taps);
    free(axis->first);
    *axis = (area_axis){0};
}

static void add_tap(area_axis *axis, int *n, int source, double weight)
{
    axis->taps[(*n)++] = (area_tap){.source = source, .weight = (float)weight};
}

static dr_status build_axis(area_axis *axis, int source, int dest)
{
    void *taps = NULL;
    void *first = NULL;
    DR_TRY(dr_try_calloc((size_t)source + 2 * (size_t)dest, sizeof(area_tap), &taps));
    axis->taps = taps;
    DR_TRY(dr_try_calloc((size_t)dest + 1, sizeof(int), &first));
    axis->first = first;
    double scale = axis_scale(source, dest);
    int n = 0;
    for (int i = 0; i < dest; i++) {
        double begin = i * scale;
        double end = begin + scale;
        double cell = fmin(scale, source - begin);
        int whole_end = (int)fmin(floor(end), source - 1);
        int whole_begin = (int)fmin(ceil(begin), whole_end);
        axis->first[i] = n;
        if (whole_begin - begin > 1e-3) {
            add_tap(axis, &n, whole_begin - 1, (whole_begin - begin) / cell);
        }
        for (int s = whole_begin; s < whole_end; s++) {
            add_tap(axis, &n, s, 1.0 / cell);
        }
        if (end - whole_end > 1e-3) {
            add_tap(axis, &n, whole_end, fmin(fmin(end - whole_end, 1.0), cell) / cell);
        }
    }
    axis->first[dest] = n;
    return DR_OK;
}

/* One source row (width pixels) to dest pixels of f32. */
static void sum_row(const area_axis *x_axis, const unsigned char *row, int dest, float *sums)
{
    for (int x = 0; x < dest; x++) {
        float r = 0.0f;
        float g = 0.0f;
        float b = 0.0f;
        for (int k = x_axis->first[x]; k < x_axis->first[x + 1]; k++) {
            const unsigned char *p = row + (size_t)x_axis->taps[k].source * 3;
            float w = x_axis->taps[k].weight;
            r += (float)p[0] * w;
            g += (float)p[1] * w;
            b += (float)p[2] * w;
        }
        sums[x * 3] = r;
        sums[x * 3 + 1] = g;
        sums[x * 3 + 2] = b;
    }
}

static void shrink_fraction(const dr_image *src, const area_axis *x_axis, const area_axis *y_axis,
                            float *row_sums, dr_image *dst)
{
    size_t width = (size_t)dst->width * 3;
    float *column_sums = row_sums + width;
    int have = -1; /* the source row that row_sums holds: neighbours share their border row */
    for (int y = 0; y < dst->height; y++) {
        for (size_t i = 0; i < width; i++) {
            column_sums[i] = 0.0f;
        }
        for (int k = y_axis->first[y]; k < y_axis->first[y + 1]; k++) {
            const area_tap tap = y_axis->taps[k];
            if (tap.source != have) {
                have = tap.source;
                sum_row(x_axis, src->pixels + (size_t)have * (size_t)src->width * 3, dst->width,
                        row_sums);
            }
            for (size_t i = 0; i < width; i++) {
                column_sums[i] += tap.weight * row_sums[i];
            }
        }
        unsigned char *to = dst->pixels + (size_t)y * width;
        for (size_t i = 0; i < width; i++) {
            to[i] = round_u8(column_sums[i]);
        }
    }
}

/* Sum of one channel over a block of block_w x block_h pixels at p; row bytes apart. */
static int64_t sum_block(const unsigned char *p, int block_w, int block_h, size_t row)
{
    int64_t sum = 0;
    for (int y = 0; y < block_h; y++, p += row) {
        for (int x = 0; x < block_w; x++) {
            sum += p[(size_t)x * 3];
        }
    }
    return sum;
}

static void shrink_whole(const dr_image *src, int block_w, int block_h, dr_image *dst)
{
    size_t row = (size_t)src->width * 3;
    float share = 1.0f / (float)((int64_t)block_w * block_h);
    bool halves = block_w == 2 && block_h == 2;
    unsigned char *to = dst->pixels;
    for (int y = 0; y < dst->height; y++) {
        const unsigned char *block = src->pixels + (size_t)y * (size_t)block_h * row;
        for (int x = 0; x < dst->width; x++, block += (size_t)block_w * 3, to += 3) {
            for (int c = 0; c < 3; c++) {
                int64_t sum = sum_block(block + c, block_w, block_h, row);
                to[c] = halves ? (unsigned char)((sum + 2) >> 2) : round_u8((float)sum * share);
            }
        }
    }
}

dr_status dr_resize_area(const dr_image *src, dr_image *dst)
{
    double scale_x = axis_scale(src->width, dst->width);
    double scale_y = axis_scale(src->height, dst->height);
    double whole_x = nearbyint(scale_x);
    double whole_y = nearbyint(scale_y);
    if (fabs(scale_x - whole_x) < DBL_EPSILON && fabs(scale_y - whole_y) < DBL_EPSILON) {
        shrink_whole(src, (int)whole_x, (int)whole_y, dst);
        return DR_OK;
    }
    area_axis x_axis = {0};
    area_axis y_axis = {0};
    void *sums = NULL;
    dr_status st = build_axis(&x_axis, src->width, dst->width);
    if (st == DR_OK) {
        st = build_axis(&y_axis, src->height, dst->height);
    }
    if (st == DR_OK) {
        st = dr_try_calloc((size_t)dst->width * 6, sizeof(float), &sums);
    }
    if (st == DR_OK) {
        shrink_fraction(src, &x_axis, &y_axis, sums, dst);
    }
    free(sums);
    free_axis(&x_axis);
    free_axis(&y_axis);
    return st;
}
