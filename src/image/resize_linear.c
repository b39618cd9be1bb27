/*
 * image/resize_linear.c - OpenCV's two- and four-point filters and its nearest neighbour for 8-bit
 * pictures, to the bit; neither reads more source pixels when shrinking.
 *
 * INTER_LINEAR, INTER_CUBIC (A = -0.75), and INTER_AREA where a side grows: weights in f32, rounded
 * to 11 fraction bits; rows first, in integers; then columns:
 *   two points: each product is cut to 16 bits, and the sum rounded;
 *   four points: f32 in groups of eight samples, the rest of a row in integers (OpenCV's SSE and
 *   scalar loops round differently; checked with 5.0.0 on x86-64).
 * INTER_NEAREST_EXACT: 16 fraction bits, pixel centres.
 */
#include "image/image_internal.h"

#include "base/arena.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WEIGHT_BITS = 11, ONE = 1 << WEIGHT_BITS, MAX_TAPS = 4, LANES = 8 };

typedef struct tap_axis {
    int taps;         /* 2 or 4 */
    int *first;       /* source pixel of the first tap, may lie outside: clamp it */
    int16_t *weights; /* (dest, taps) */
} tap_axis;

static void free_axis(tap_axis *axis)
{
    free(axis->first);
    free(axis->weights);
    *axis = (tap_axis){0};
}

static void cubic_weights(float x, float w[4])
{
    const float a = -0.75f;
    w[0] = ((a * (x + 1) - 5 * a) * (x + 1) + 8 * a) * (x + 1) - 4 * a;
    w[1] = ((a + 2) * x - (a + 3)) * x * x + 1;
    w[2] = ((a + 2) * (1 - x) - (a + 3)) * (1 - x) * (1 - x) + 1;
    w[3] = 1.0f - w[0] - w[1] - w[2];
}

/* Where destination pixel i lies: the whole part is returned. */
static int position(dr_cv_filter filter, int i, double scale, double inverse, float *fraction)
{
    if (filter == DR_CV_AREA) {
        int s = (int)floor(i * scale);
        float f = (float)((i + 1) - (s + 1) * inverse);
        *fraction = f <= 0 ? 0.0f : f - floorf(f);
        return s;
    }
    float f = (float)((i + 0.5) * scale - 0.5);
    int s = (int)floorf(f);
    *fraction = f - (float)s;
    return s;
}

static dr_status build_axis(tap_axis *axis, dr_cv_filter filter, int source, int dest)
{
    void *first = NULL;
    void *weights = NULL;
    axis->taps = filter == DR_CV_CUBIC ? 4 : 2;
    DR_TRY(dr_try_calloc((size_t)dest, sizeof(int), &first));
    axis->first = first;
    DR_TRY(dr_try_calloc((size_t)dest * (size_t)axis->taps, sizeof(int16_t), &weights));
    axis->weights = weights;
    double inverse = (double)dest / source;
    double scale = 1.0 / inverse;
    for (int i = 0; i < dest; i++) {
        float x = 0.0f;
        float w[MAX_TAPS];
        int s = position(filter, i, scale, inverse, &x);
        if (filter == DR_CV_CUBIC) {
            cubic_weights(x, w);
            s--;
        } else {
            w[0] = 1.0f - x;
            w[1] = x;
        }
        axis->first[i] = s;
        for (int k = 0; k < axis->taps; k++) {
            axis->weights[i * axis->taps + k] = (int16_t)lrintf(w[k] * ONE);
        }
    }
    return DR_OK;
}

static int clamp(int v, int n)
{
    return v < 0 ? 0 : v >= n ? n - 1 : v;
}

/* One source row (n pixels) to width pixels of 32-bit sums. */
static void sum_row(const tap_axis *axis, const unsigned char *row, int n, int width, int32_t *sums)
{
    for (int x = 0; x < width; x++, sums += 3) {
        const int16_t *w = axis->weights + (ptrdiff_t)x * axis->taps;
        sums[0] = sums[1] = sums[2] = 0;
        for (int k = 0; k < axis->taps; k++) {
            const unsigned char *p = row + (ptrdiff_t)clamp(axis->first[x] + k, n) * 3;
            sums[0] += p[0] * w[k];
            sums[1] += p[1] * w[k];
            sums[2] += p[2] * w[k];
        }
    }
}

static unsigned char clamp_u8(int32_t v)
{
    return v < 0 ? 0 : v > 255 ? 255 : (unsigned char)v;
}

static void mix_two(const int32_t *const rows[], const int16_t *w, size_t n, unsigned char *to)
{
    for (size_t i = 0; i < n; i++) {
        int32_t a = (w[0] * (rows[0][i] >> 4)) >> 16;
        int32_t b = (w[1] * (rows[1][i] >> 4)) >> 16;
        to[i] = (unsigned char)((a + b + 2) >> 2);
    }
}

static void mix_four(const int32_t *const rows[], const int16_t *w, size_t n, unsigned char *to)
{
    const float share = 1.0f / ((float)ONE * (float)ONE);
    const float f[4] = {(float)w[0] * share, (float)w[1] * share, (float)w[2] * share,
                        (float)w[3] * share};
    size_t whole = n - n % LANES;
    for (size_t i = 0; i < whole; i++) {
        float v = (float)rows[3][i] * f[3];
        v = (float)rows[2][i] * f[2] + v;
        v = (float)rows[1][i] * f[1] + v;
        v = (float)rows[0][i] * f[0] + v;
        to[i] = clamp_u8((int32_t)lrintf(v));
    }
    for (size_t i = whole; i < n; i++) {
        int32_t v = rows[0][i] * w[0] + rows[1][i] * w[1] + rows[2][i] * w[2] + rows[3][i] * w[3];
        to[i] = clamp_u8((v + (1 << (2 * WEIGHT_BITS - 1))) >> (2 * WEIGHT_BITS));
    }
}

/* sums: taps rows of dst->width * 3, a ring in which source row s stands at s % taps. */
static void resample(const dr_image *src, const tap_axis *x_axis, const tap_axis *y_axis,
                     int32_t *sums, dr_image *dst)
{
    size_t width = (size_t)dst->width * 3;
    int taps = y_axis->taps;
    int have[MAX_TAPS] = {-1, -1, -1, -1};
    for (int y = 0; y < dst->height; y++) {
        const int32_t *rows[MAX_TAPS];
        for (int k = 0; k < taps; k++) {
            int s = clamp(y_axis->first[y] + k, src->height);
            int32_t *row = sums + (size_t)(s % taps) * width;
            if (have[s % taps] != s) {
                have[s % taps] = s;
                sum_row(x_axis, src->pixels + (size_t)s * (size_t)src->width * 3, src->width,
                        dst->width, row);
            }
            rows[k] = row;
        }
        unsigned char *to = dst->pixels + (size_t)y * width;
        const int16_t *w = y_axis->weights + (ptrdiff_t)y * taps;
        if (taps == 2) {
            mix_two(rows, w, width, to);
        } else {
            mix_four(rows, w, width, to);
        }
    }
}

static dr_status resize_taps(const dr_image *src, dr_cv_filter filter, dr_image *dst)
{
    tap_axis x_axis = {0};
    tap_axis y_axis = {0};
    void *sums = NULL;
    dr_status st = build_axis(&x_axis, filter, src->width, dst->width);
    if (st == DR_OK) {
        st = build_axis(&y_axis, filter, src->height, dst->height);
    }
    if (st == DR_OK) {
        st = dr_try_calloc((size_t)dst->width * 3 * MAX_TAPS, sizeof(int32_t), &sums);
    }
    if (st == DR_OK) {
        resample(src, &x_axis, &y_axis, sums, dst);
    }
    free(sums);
    free_axis(&x_axis);
    free_axis(&y_axis);
    return st;
}

static int nearest(int i, int source, int dest)
{
    int64_t step = (((int64_t)source << 16) + dest / 2) / dest;
    int64_t start = step / 2 - source % 2;
    return clamp((int)((start + step * i) >> 16), source);
}

static void resize_nearest(const dr_image *src, dr_image *dst)
{
    unsigned char *to = dst->pixels;
    for (int y = 0; y < dst->height; y++) {
        const unsigned char *row =
            src->pixels + (size_t)nearest(y, src->height, dst->height) * (size_t)src->width * 3;
        for (int x = 0; x < dst->width; x++, to += 3) {
            memcpy(to, row + (size_t)nearest(x, src->width, dst->width) * 3, 3);
        }
    }
}

dr_status dr_resize_cv(const dr_image *src, dr_cv_filter filter, dr_image *dst)
{
    bool halves = src->width == 2 * dst->width && src->height == 2 * dst->height;
    if (filter == DR_CV_NEAREST) {
        resize_nearest(src, dst);
        return DR_OK;
    }
    if (filter == DR_CV_LINEAR && halves) { /* means of four, as OpenCV */
        return dr_resize_area(src, dst);
    }
    return resize_taps(src, filter, dst);
}
