/*
 * With a stride, dx is cut into stride^2 classes of pixels that meet the same taps, so that nothing
 * is multiplied by inserted zeros; with stride 1 there is one class, which is dx itself.
 */
#include "backend/cpu/cpu_conv2d.h"
#include "backend/cpu/cpu_narrow.h"
#include "backend/cpu/cpu_winograd.h"

#include <string.h>

typedef struct dx_job {
    const dr_conv2d_dx_args *a;
    dr_cpu_image dy;
    dr_cpu_blocks b; /* of the largest class */
    int64_t samples;
    float *work;
    int64_t panel_floats, out_floats, weight_floats; /* of one thread */
} dx_job;

/* Pixels class, class + stride, ... of n. */
static int64_t class_size(int64_t n, int class, int stride)
{
    return class < n ? (n - class + stride - 1) / stride : 0;
}

static dx_job plan_dx(const dr_conv2d_dx_args *a)
{
    dx_job j = {.a = a, .dy = dr_cpu_image_of(a->dy), .samples = a->dx->dim[0]};
    const int s = a->geom.stride;
    const int64_t rows =
        j.samples * class_size(a->dx->dim[1], 0, s) * class_size(a->dx->dim[2], 0, s);
    j.b = dr_cpu_conv_blocks(rows, a->dx->dim[3], j.dy.c, a->w->dtype);
    j.weight_floats = a->w->dtype == DR_F32 ? 0 : DR_CPU_WEIGHT_PANEL;
    j.panel_floats = dr_cpu_lines(j.b.mb * j.dy.c);
    j.out_floats = s == 1 ? 0 : dr_cpu_lines(j.b.mb * j.b.nb);
    return j;
}

/* A block of one stride class: rows m0.. of the pixels (h0 + i stride, w0 + k stride). */
typedef struct class_block {
    int h0, w0;
    dr_cpu_grid grid; /* pixels of the class */
    int64_t m0, n0, rows;
} class_block;

/* panel[row, :] = dy[pixel whose tap (kh, kw) falls on the row's pixel, :], zero where none. */
static void gather_dy(float *panel, const dx_job *j, const class_block *b, int kh, int kw)
{
    const dr_conv2d_geom *g = &j->a->geom;
    const dr_cpu_image *dy = &j->dy;
    dr_cpu_pixel p = dr_cpu_pixel_of(&b->grid, b->m0);
    for (int64_t r = 0; r < b->rows; r++, dr_cpu_next_pixel(&b->grid, &p), panel += dy->c) {
        const int64_t h = p.h * g->stride + b->h0 + g->top - kh;
        const int64_t w = p.w * g->stride + b->w0 + g->left - kw;
        if (h < 0 || w < 0 || h / g->stride >= dy->h || w / g->stride >= dy->w) {
            memset(panel, 0, (size_t)dy->c * sizeof *panel);
        } else {
            const int64_t at = (p.n * dy->h + h / g->stride) * dy->w + w / g->stride;
            memcpy(panel, dy->data + at * dy->c, (size_t)dy->c * sizeof *panel);
        }
    }
}

/* Writes a block of a stride class to its places in dx. */
DR_CPU_CLONES
static void scatter_dx(const dx_job *j, const class_block *b, const dr_cpu_matmul *mm)
{
    const dr_tensor *dx = j->a->dx;
    const int s = j->a->geom.stride;
    dr_cpu_pixel p = dr_cpu_pixel_of(&b->grid, b->m0);
    for (int64_t r = 0; r < b->rows; r++, dr_cpu_next_pixel(&b->grid, &p)) {
        const int64_t at = (p.n * dx->dim[1] + p.h * s + b->h0) * dx->dim[2] + p.w * s + b->w0;
        float *restrict dst = (float *)dx->data + at * dx->dim[3] + b->n0;
        const float *restrict src = mm->c + r * mm->ldc;
        for (int64_t c = 0; c < mm->n; c++) {
            dst[c] = j->a->mode == DR_ADD ? dst[c] + src[c] : src[c];
        }
    }
}

/* Task i; rows is 0 when its class has fewer blocks than the largest. */
static class_block block_of(const dx_job *j, int64_t i)
{
    const int stride = j->a->geom.stride;
    const int64_t per_class = j->b.n_rows * j->b.n_cols;
    class_block b = {.h0 = (int)(i / per_class) / stride,
                     .w0 = (int)(i / per_class) % stride,
                     .m0 = i % per_class / j->b.n_cols * j->b.mb,
                     .n0 = i % j->b.n_cols * j->b.nb};
    b.grid = (dr_cpu_grid){class_size(j->a->dx->dim[1], b.h0, stride),
                           class_size(j->a->dx->dim[2], b.w0, stride)};
    const int64_t rows = j->samples * b.grid.h * b.grid.w;
    b.rows = b.m0 < rows ? dr_cpu_min(j->b.mb, rows - b.m0) : 0;
    return b;
}

static void dx_task(const void *job, int64_t i, int thread)
{
    const dx_job *j = job;
    const dr_conv2d_geom *g = &j->a->geom;
    const int64_t n = j->a->dx->dim[3];
    const class_block b = block_of(j, i);
    if (b.rows == 0) {
        return;
    }
    float *panel = j->work + thread * (j->panel_floats + j->out_floats + j->weight_floats);
    const dr_tensor *w = j->a->w;
    const bool direct = g->stride == 1;
    dr_cpu_matmul mm = {.m = b.rows,
                        .n = dr_cpu_min(j->b.nb, n - b.n0),
                        .k = j->dy.c,
                        .alpha = 1.0f,
                        .beta = direct && j->a->mode == DR_ADD ? 1.0f : 0.0f,
                        .a = panel,
                        .c = direct ? (float *)j->a->dx->data + b.m0 * n + b.n0
                                    : panel + j->panel_floats,
                        .lda = j->dy.c,
                        .ldb = (int64_t)g->kh * g->kw * n,
                        .ldc = direct ? n : j->b.nb};
    bool any = false;
    for (int t = 0; t < g->kh * g->kw; t++) {
        const int kh = t / g->kw;
        const int kw = t % g->kw;
        if ((b.h0 + g->top - kh) % g->stride != 0 || (b.w0 + g->left - kw) % g->stride != 0) {
            continue;
        }
        gather_dy(panel, j, &b, kh, kw);
        dr_cpu_gemm_narrow(&mm, dr_cpu_at(w->data, w->dtype, t * n + b.n0), w->dtype,
                           panel + j->panel_floats + j->out_floats);
        mm.beta = 1.0f;
        any = true;
    }
    if (!any) { /* stride above the kernel: no tap meets these pixels */
        memset(mm.c, 0, (size_t)(j->b.mb * mm.ldc) * sizeof *mm.c);
    }
    if (!direct) {
        scatter_dx(j, &b, &mm);
    }
}

static dr_cpu_winograd winograd_of(const dr_conv2d_dx_args *a)
{
    return (dr_cpu_winograd){
        .src = a->dy, .w = a->w, .dst = a->dx, .gradient = true, .add = a->mode == DR_ADD};
}

size_t dr_cpu_conv2d_dx_work(const dr_context *cx, const dr_conv2d_dx_args *a)
{
    if (dr_cpu_conv_is_linear(&a->geom)) {
        return dr_cpu_linear_dx_work(cx, &(dr_linear_dx_args){.w = a->w});
    }
    if (dr_cpu_winograd_fits(&a->geom, a->dy, a->dx)) {
        const dr_cpu_winograd fast = winograd_of(a);
        return dr_cpu_winograd_work(&fast);
    }
    const dx_job j = plan_dx(a);
    return (size_t)((j.panel_floats + j.out_floats + j.weight_floats) * cx->threads) *
           sizeof(float);
}

dr_status dr_cpu_conv2d_dx(dr_context *cx, const dr_conv2d_dx_args *a)
{
    if (dr_cpu_conv_is_linear(&a->geom)) {
        const dr_linear_dx_args l = {.dy = a->dy, .w = a->w, .dx = a->dx, .mode = a->mode};
        return dr_cpu_linear_dx(cx, &l);
    }
    if (dr_cpu_winograd_fits(&a->geom, a->dy, a->dx)) {
        const dr_cpu_winograd fast = winograd_of(a);
        dr_cpu_winograd_run(cx, &fast);
        return DR_OK;
    }
    dx_job j = plan_dx(a);
    j.work = cx->work;
    const int64_t classes = (int64_t)a->geom.stride * a->geom.stride;
    dr_cpu_run(cx, classes * j.b.n_rows * j.b.n_cols, dx_task, &j);
    return DR_OK;
}
