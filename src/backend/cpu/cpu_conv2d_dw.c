#include "backend/cpu/cpu_conv2d.h"

enum {
    CHUNK_ROWS = 512,   /* pixels gathered at a time                                        */
    MAX_CHANNELS = 320, /* of x in a block; 512 x 320 floats = 640 KiB of panel             */
    MIN_CHANNELS = 64,  /* below, all taps are gathered together                            */
    TARGET_TASKS = 16
};

/* A block of dw: mb output channels of one group of taps and cn input channels. */
typedef struct dw_job {
    const dr_conv2d_dw_args *a;
    dr_cpu_image x;
    dr_cpu_grid out;
    int64_t rows, chunk;
    int group, n_groups;    /* taps together, and such groups          */
    int64_t cn, n_channels; /* input channels of a block, and blocks   */
    int64_t mb, n_out;      /* output channels of a block, and blocks  */
    float *work;
    int64_t panel_floats;
} dw_job;

static dw_job plan_dw(const dr_conv2d_dw_args *a)
{
    const dr_conv2d_geom *g = &a->geom;
    dw_job j = {.a = a,
                .x = dr_cpu_image_of(a->x),
                .out = {a->dy->dim[1], a->dy->dim[2]},
                .rows = dr_rows(a->dy)};
    const int64_t out = a->dy->dim[3];
    j.group = j.x.c < MIN_CHANNELS ? g->kh * g->kw : 1;
    j.n_groups = g->kh * g->kw / j.group;
    j.cn = j.group > 1 ? j.x.c : dr_cpu_piece(j.x.c, MAX_CHANNELS, 16);
    if (j.group == 1 && j.n_groups * dr_cpu_ceil_div(j.x.c, j.cn) < TARGET_TASKS) {
        j.cn = dr_cpu_piece(j.x.c, MAX_CHANNELS / 2, 16);
    }
    j.n_channels = dr_cpu_ceil_div(j.x.c, j.cn);
    j.mb = out;
    while (j.n_groups * j.n_channels * dr_cpu_ceil_div(out, j.mb) < TARGET_TASKS && j.mb >= 256) {
        j.mb = dr_cpu_ceil_div(j.mb, 32) * 16;
    }
    j.n_out = dr_cpu_ceil_div(out, j.mb);
    j.chunk = dr_cpu_min(j.rows, CHUNK_ROWS);
    j.panel_floats = dr_cpu_lines(j.chunk * j.group * j.cn);
    return j;
}

static void dw_task(const void *job, int64_t i, int thread)
{
    const dw_job *j = job;
    const dr_conv2d_geom *g = &j->a->geom;
    const int64_t out = j->a->dy->dim[3];
    const int64_t kernel = (int64_t)g->kh * g->kw * j->x.c;
    const int group = (int)(i / (j->n_channels * j->n_out));
    const int64_t m0 = i % j->n_out * j->mb;
    const int64_t c0 = i / j->n_out % j->n_channels * j->cn;
    const int64_t cn = dr_cpu_min(j->cn, j->x.c - c0);
    float *panel = j->work + thread * j->panel_floats;
    for (int64_t r0 = 0; r0 < j->rows; r0 += j->chunk) {
        const int64_t rows = dr_cpu_min(j->chunk, j->rows - r0);
        const dr_cpu_gather_range r = {r0, rows, c0, cn, dr_cpu_taps_of(g, j->group, group)};
        dr_cpu_gather(panel, &j->x, g, &j->out, &r);
        const dr_cpu_matmul mm = {.ta = true,
                                  .m = dr_cpu_min(j->mb, out - m0),
                                  .n = j->group * cn,
                                  .k = rows,
                                  .alpha = 1.0f,
                                  .beta = j->a->fresh && r0 == 0 ? 0.0f : 1.0f,
                                  .a = (const float *)j->a->dy->data + r0 * out + m0,
                                  .b = panel,
                                  .c = (float *)j->a->dw->data + m0 * kernel + group * j->x.c + c0,
                                  .lda = out,
                                  .ldb = j->group * cn,
                                  .ldc = kernel};
        dr_cpu_gemm(&mm);
    }
}

size_t dr_cpu_conv2d_dw_work(const dr_context *cx, const dr_conv2d_dw_args *a)
{
    if (dr_cpu_conv_is_linear(&a->geom) || a->dw == NULL) {
        return 0;
    }
    return (size_t)(plan_dw(a).panel_floats * cx->threads) * sizeof(float);
}

dr_status dr_cpu_conv2d_dw(dr_context *cx, const dr_conv2d_dw_args *a)
{
    if (dr_cpu_conv_is_linear(&a->geom)) {
        const dr_linear_dw_args l = {
            .dy = a->dy, .x = a->x, .dw = a->dw, .db = a->db, .fresh = a->fresh};
        return dr_cpu_linear_dw(cx, &l);
    }
    if (a->dw != NULL) {
        dw_job j = plan_dw(a);
        j.work = cx->work;
        dr_cpu_run(cx, j.n_groups * j.n_channels * j.n_out, dw_task, &j);
    }
    if (a->db != NULL) {
        dr_cpu_column_sums(cx, a->dy->data, dr_rows(a->dy), a->dy->dim[3], a->db->data);
    }
    return DR_OK;
}
