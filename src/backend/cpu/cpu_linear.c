#include "backend/cpu/cpu_narrow.h"

/* Few rows and narrow weights: a task owns columns of the result. */
typedef struct narrow_job {
    dr_cpu_matmul g; /* without b */
    const dr_tensor *w;
    const float *bias;
    int64_t cols; /* of a task */
    float *work;
} narrow_job;

static void narrow_task(const void *job_, int64_t i, int thread)
{
    const narrow_job *job = job_;
    dr_cpu_matmul g = job->g;
    const int64_t n0 = i * job->cols;
    const int64_t at = g.tb ? n0 * g.ldb : n0;
    g.n = dr_cpu_min(job->cols, g.n - n0);
    g.c += n0;
    if (job->bias != NULL) {
        dr_cpu_bias_rows(g.c, g.ldc, g.m, g.n, job->bias + n0, g.beta != 0.0f);
        g.beta = 1.0f;
    }
    dr_cpu_gemm_narrow(&g, dr_cpu_at(job->w->data, job->w->dtype, at), job->w->dtype,
                       job->work + (int64_t)thread * DR_CPU_WEIGHT_PANEL);
}

static void multiply(dr_context *cx, const dr_cpu_matmul *g, const dr_tensor *w,
                     const dr_tensor *bias)
{
    enum { TASKS = 32, LEAST = 32 };
    const float *bias_data = bias != NULL ? bias->data : NULL;
    if (w->dtype == DR_F32) {
        dr_cpu_matmul plain = *g;
        plain.b = w->data;
        dr_cpu_gemm_blocks(cx, &plain, bias_data);
        return;
    }
    narrow_job job = {.g = *g, .w = w, .bias = bias_data, .work = cx->work};
    job.cols = dr_cpu_ceil_div(dr_cpu_ceil_div(g->n, TASKS), LEAST) * LEAST;
    dr_cpu_run(cx, dr_cpu_ceil_div(g->n, job.cols), narrow_task, &job);
}

static size_t panel_bytes(const dr_context *cx, const dr_tensor *w)
{
    return w->dtype == DR_F32 ? 0 : (size_t)cx->threads * DR_CPU_WEIGHT_PANEL * sizeof(float);
}

size_t dr_cpu_linear_work(const dr_context *cx, const dr_linear_args *a)
{
    return panel_bytes(cx, a->w);
}

size_t dr_cpu_linear_dx_work(const dr_context *cx, const dr_linear_dx_args *a)
{
    return panel_bytes(cx, a->w);
}

dr_status dr_cpu_linear(dr_context *cx, const dr_linear_args *a)
{
    const int64_t in = dr_cols(a->x);
    const int64_t out = dr_cols(a->y);
    const dr_cpu_matmul g = {.tb = true,
                             .m = dr_rows(a->x),
                             .n = out,
                             .k = in,
                             .alpha = 1.0f,
                             .beta = a->mode == DR_ADD ? 1.0f : 0.0f,
                             .a = a->x->data,
                             .c = a->y->data,
                             .lda = in,
                             .ldb = in,
                             .ldc = out};
    multiply(cx, &g, a->w, a->b);
    return DR_OK;
}

dr_status dr_cpu_linear_dx(dr_context *cx, const dr_linear_dx_args *a)
{
    const int64_t in = dr_cols(a->dx);
    const int64_t out = dr_cols(a->dy);
    const dr_cpu_matmul g = {.m = dr_rows(a->dx),
                             .n = in,
                             .k = out,
                             .alpha = 1.0f,
                             .beta = a->mode == DR_ADD ? 1.0f : 0.0f,
                             .a = a->dy->data,
                             .c = a->dx->data,
                             .lda = out,
                             .ldb = in,
                             .ldc = in};
    multiply(cx, &g, a->w, NULL);
    return DR_OK;
}

dr_status dr_cpu_linear_dw(dr_context *cx, const dr_linear_dw_args *a)
{
    const int64_t in = dr_cols(a->x);
    const int64_t out = dr_cols(a->dy);
    if (a->dw != NULL) {
        const dr_cpu_matmul g = {.ta = true,
                                 .m = out,
                                 .n = in,
                                 .k = dr_rows(a->x),
                                 .alpha = 1.0f,
                                 .beta = a->fresh ? 0.0f : 1.0f,
                                 .a = a->dy->data,
                                 .b = a->x->data,
                                 .c = a->dw->data,
                                 .lda = out,
                                 .ldb = in,
                                 .ldc = in};
        dr_cpu_gemm_blocks(cx, &g, NULL);
    }
    if (a->db != NULL) {
        dr_cpu_column_sums(cx, a->dy->data, dr_rows(a->dy), out, a->db->data);
    }
    return DR_OK;
}
