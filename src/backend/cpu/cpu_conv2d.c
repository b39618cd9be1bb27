#include "backend/cpu/cpu_conv2d.h"
#include "backend/cpu/cpu_narrow.h"
#include "backend/cpu/cpu_winograd.h"

#include <string.h>

enum {
    PANEL_FLOATS = 192 * 1024, /* 768 KiB: leaves room for weights in an L2 of 1 MiB */
    MIN_ROWS = 64,             /* below, packing weights costs more than the products */
    MAX_ROWS = 256,
    GROUP_FLOATS = 3072, /* taps are gathered together up to this many columns */
    TARGET_TASKS = 16
};

bool dr_cpu_conv_is_linear(const dr_conv2d_geom *g)
{
    return g->kh == 1 && g->kw == 1 && g->stride == 1 && g->top == 0 && g->left == 0 &&
           g->bottom == 0 && g->right == 0;
}

int dr_cpu_tap_group(const dr_conv2d_geom *g, int64_t channels)
{
    if (channels * g->kh * g->kw <= GROUP_FLOATS) {
        return g->kh * g->kw;
    }
    return channels * g->kw <= GROUP_FLOATS ? g->kw : 1;
}

dr_cpu_taps dr_cpu_taps_of(const dr_conv2d_geom *g, int group, int i)
{
    if (group == g->kh * g->kw) {
        return (dr_cpu_taps){0, g->kh, 0, g->kw};
    }
    if (group == g->kw) {
        return (dr_cpu_taps){i, i + 1, 0, g->kw};
    }
    return (dr_cpu_taps){i / g->kw, i / g->kw + 1, i % g->kw, i % g->kw + 1};
}

dr_cpu_blocks dr_cpu_conv_blocks(int64_t m, int64_t n, int64_t panel_cols, dr_dtype weights)
{
    int64_t most = PANEL_FLOATS / panel_cols;
    most = most < MIN_ROWS ? MIN_ROWS : most > MAX_ROWS ? MAX_ROWS : most;
    most = weights != DR_F32 ? DR_CPU_FEW_ROWS : most; /* all rows: weights are converted once */
    dr_cpu_blocks b = {.mb = dr_cpu_piece(m, most, 8), .nb = n};
    b.n_rows = dr_cpu_ceil_div(m, b.mb);
    while (b.n_rows * dr_cpu_ceil_div(n, b.nb) < TARGET_TASKS && b.nb >= 256) {
        b.nb = dr_cpu_ceil_div(b.nb, 32) * 16;
    }
    b.n_cols = dr_cpu_ceil_div(n, b.nb);
    return b;
}

/* One row of taps (kw0..kw1-1) at row ih of the image, for the result's pixel p. */
static void gather_taps(float *dst, const dr_cpu_image *x, int64_t n, int64_t ih, int64_t iw,
                        const dr_cpu_gather_range *r)
{
    const int64_t taps = r->taps.kw1 - r->taps.kw0;
    if (ih < 0 || ih >= x->h) {
        memset(dst, 0, (size_t)(taps * r->cn) * sizeof *dst);
        return;
    }
    iw += r->taps.kw0;
    const float *row = x->data + (n * x->h + ih) * x->w * x->c;
    if (iw >= 0 && iw + taps <= x->w && r->cn == x->c) {
        memcpy(dst, row + iw * x->c, (size_t)(taps * r->cn) * sizeof *dst);
        return;
    }
    for (int64_t t = 0; t < taps; t++, dst += r->cn) {
        if (iw + t < 0 || iw + t >= x->w) {
            memset(dst, 0, (size_t)r->cn * sizeof *dst);
        } else {
            memcpy(dst, row + (iw + t) * x->c + r->c0, (size_t)r->cn * sizeof *dst);
        }
    }
}

void dr_cpu_gather(float *panel, const dr_cpu_image *x, const dr_conv2d_geom *g,
                   const dr_cpu_grid *out, const dr_cpu_gather_range *r)
{
    dr_cpu_pixel p = dr_cpu_pixel_of(out, r->row0);
    const int64_t tap_row = (r->taps.kw1 - r->taps.kw0) * r->cn;
    for (int64_t i = 0; i < r->rows; i++, dr_cpu_next_pixel(out, &p)) {
        for (int kh = r->taps.kh0; kh < r->taps.kh1; kh++, panel += tap_row) {
            gather_taps(panel, x, p.n, p.h * g->stride + kh - g->top, p.w * g->stride - g->left, r);
        }
    }
}

typedef struct forward_job {
    const dr_conv2d_args *a;
    dr_cpu_image x;
    dr_cpu_grid out;
    dr_cpu_blocks b;
    int64_t rows;
    int group;
    float *work;
    int64_t panel_floats; /* of one thread: rows of x, then weights when they are narrow */
    int64_t weights_at;
} forward_job;

static forward_job plan_forward(const dr_conv2d_args *a)
{
    forward_job j = {.a = a, .x = dr_cpu_image_of(a->x), .out = {a->y->dim[1], a->y->dim[2]}};
    j.rows = dr_rows(a->y);
    j.group = dr_cpu_tap_group(&a->geom, j.x.c);
    j.b = dr_cpu_conv_blocks(j.rows, a->y->dim[3], j.group * j.x.c, a->w->dtype);
    j.weights_at = dr_cpu_lines(j.b.mb * j.group * j.x.c);
    j.panel_floats = j.weights_at + (a->w->dtype == DR_F32 ? 0 : DR_CPU_WEIGHT_PANEL);
    return j;
}

static void forward_task(const void *job, int64_t i, int thread)
{
    const forward_job *j = job;
    const dr_conv2d_geom *g = &j->a->geom;
    const int64_t n = j->a->y->dim[3];
    const int64_t m0 = i / j->b.n_cols * j->b.mb;
    const int64_t n0 = i % j->b.n_cols * j->b.nb;
    const int64_t cols = j->group * j->x.c;
    const int64_t kernel = (int64_t)g->kh * g->kw * j->x.c;
    float *panel = j->work + thread * j->panel_floats;
    dr_cpu_matmul mm = {.tb = true,
                        .m = dr_cpu_min(j->b.mb, j->rows - m0),
                        .n = dr_cpu_min(j->b.nb, n - n0),
                        .k = cols,
                        .alpha = 1.0f,
                        .a = panel,
                        .c = (float *)j->a->y->data + m0 * n + n0,
                        .lda = cols,
                        .ldb = kernel,
                        .ldc = n};
    if (j->a->b != NULL) {
        dr_cpu_bias_rows(mm.c, n, mm.m, mm.n, (const float *)j->a->b->data + n0, false);
        mm.beta = 1.0f;
    }
    for (int t = 0; t < g->kh * g->kw / j->group; t++) {
        const dr_cpu_gather_range r = {m0, mm.m, 0, j->x.c, dr_cpu_taps_of(g, j->group, t)};
        dr_cpu_gather(panel, &j->x, g, &j->out, &r);
        const dr_tensor *w = j->a->w;
        dr_cpu_gemm_narrow(&mm, dr_cpu_at(w->data, w->dtype, n0 * kernel + t * cols), w->dtype,
                           panel + j->weights_at);
        mm.beta = 1.0f;
    }
}

static dr_cpu_winograd winograd_of(const dr_conv2d_args *a)
{
    return (dr_cpu_winograd){.src = a->x, .w = a->w, .bias = a->b, .dst = a->y};
}

size_t dr_cpu_conv2d_work(const dr_context *cx, const dr_conv2d_args *a)
{
    if (dr_cpu_conv_is_linear(&a->geom)) {
        return dr_cpu_linear_work(cx, &(dr_linear_args){.w = a->w});
    }
    if (dr_cpu_winograd_fits(&a->geom, a->x, a->y)) {
        const dr_cpu_winograd fast = winograd_of(a);
        return dr_cpu_winograd_work(&fast);
    }
    return (size_t)(plan_forward(a).panel_floats * cx->threads) * sizeof(float);
}

dr_status dr_cpu_conv2d(dr_context *cx, const dr_conv2d_args *a)
{
    if (dr_cpu_conv_is_linear(&a->geom)) {
        const dr_linear_args l = {.x = a->x, .w = a->w, .b = a->b, .y = a->y, .mode = DR_SET};
        return dr_cpu_linear(cx, &l);
    }
    if (dr_cpu_winograd_fits(&a->geom, a->x, a->y)) {
        const dr_cpu_winograd fast = winograd_of(a);
        dr_cpu_winograd_run(cx, &fast);
        return DR_OK;
    }
    forward_job j = plan_forward(a);
    j.work = cx->work;
    dr_cpu_run(cx, j.b.n_rows * j.b.n_cols, forward_task, &j);
    return DR_OK;
}
