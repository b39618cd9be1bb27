#include "backend/cpu/cpu_internal.h"

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
                             .b = a->w->data,
                             .c = a->y->data,
                             .lda = in,
                             .ldb = in,
                             .ldc = out};
    dr_cpu_gemm_blocks(cx, &g, a->b != NULL ? a->b->data : NULL);
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
                             .b = a->w->data,
                             .c = a->dx->data,
                             .lda = out,
                             .ldb = in,
                             .ldc = in};
    dr_cpu_gemm_blocks(cx, &g, NULL);
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
                                 .beta = 1.0f,
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
