/*
 * backend/cpu/cpu_conv2d.h - convolutions as matrix products over gathered panels.
 *
 * Layer:    backend/cpu, private.
 *
 * forward   y[p, o]  += sum over taps  x[p shifted by tap, :] . w[o, tap, :]     panel of x
 * dx        dx[p, i] += sum over taps dy[p shifted back, :] . w[:, tap, i]       panel of dy
 * dw        dw[o, tap, i] += sum over p dy[p, o] x[p shifted by tap, i]          panel of x
 *
 * A task owns a block of the result and copies what it needs into a panel of under 1 MiB (rows are
 * contiguous runs of channels), so no element of the result is touched by two tasks. A 1x1 kernel
 * with stride 1 is a linear layer over the tensors themselves.
 */
#ifndef DR_CPU_CONV2D_H
#define DR_CPU_CONV2D_H

#include "backend/cpu/cpu_internal.h"

typedef struct dr_cpu_image { /* (n,h,w,c) */
    const float *data;
    int64_t h, w, c;
} dr_cpu_image;

/* The pixels that a product runs over, row after row, sample after sample. */
typedef struct dr_cpu_grid {
    int64_t h, w;
} dr_cpu_grid;

typedef struct dr_cpu_pixel {
    int64_t n, h, w;
} dr_cpu_pixel;

/* A run of taps kh0..kh1-1 x kw0..kw1-1, gathered side by side. */
typedef struct dr_cpu_taps {
    int kh0, kh1, kw0, kw1;
} dr_cpu_taps;

/* Blocks of the result: mb pixels by nb channels. */
typedef struct dr_cpu_blocks {
    int64_t mb, nb, n_rows, n_cols;
} dr_cpu_blocks;

DR_CPU_INLINE dr_cpu_image dr_cpu_image_of(const dr_tensor *t)
{
    return (dr_cpu_image){t->data, t->dim[1], t->dim[2], t->dim[3]};
}

DR_CPU_INLINE dr_cpu_pixel dr_cpu_pixel_of(const dr_cpu_grid *g, int64_t row)
{
    return (dr_cpu_pixel){row / (g->h * g->w), row / g->w % g->h, row % g->w};
}

DR_CPU_INLINE void dr_cpu_next_pixel(const dr_cpu_grid *g, dr_cpu_pixel *p)
{
    if (++p->w == g->w) {
        p->w = 0;
        if (++p->h == g->h) {
            p->h = 0;
            p->n++;
        }
    }
}

/* Rows row0..row0+rows-1 of the grid, channels c0..c0+cn-1 of the taps. */
typedef struct dr_cpu_gather_range {
    int64_t row0, rows, c0, cn;
    dr_cpu_taps taps;
} dr_cpu_gather_range;

/* True for a 1x1 kernel, stride 1, no padding. */
bool dr_cpu_conv_is_linear(const dr_conv2d_geom *g);
/* How many taps are gathered at once: one, a row of the kernel, or all; and the i-th such group. */
int dr_cpu_tap_group(const dr_conv2d_geom *g, int64_t channels);
dr_cpu_taps dr_cpu_taps_of(const dr_conv2d_geom *g, int group, int i);
/* Cuts m pixels by n channels, so that mb rows of panel_cols floats stay in L2; pixels that meet
 * narrow weights are few and not cut. */
dr_cpu_blocks dr_cpu_conv_blocks(int64_t m, int64_t n, int64_t panel_cols, dr_dtype weights);
/* panel[row, tap, 0..cn-1] = x[row shifted by tap, c0..c0+cn-1], zero outside of the image. */
void dr_cpu_gather(float *panel, const dr_cpu_image *x, const dr_conv2d_geom *g,
                   const dr_cpu_grid *out, const dr_cpu_gather_range *range);

#endif
