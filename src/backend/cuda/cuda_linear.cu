/*
 * backend/cuda/cuda_linear.cu - dense layers (ops/linear.h): one matrix product each; the bias is
 * the product's epilogue, its gradient column sums.
 */
#include "backend/cuda/cuda_internal.cuh"

extern "C" {
#include "ops/linear.h"
}

static dr_cuda_matrix matrix(const void *data, int64_t ld, bool transposed)
{
    return dr_cuda_matrix{data, ld, 0, transposed};
}

dr_status dr_cuda_linear(dr_context *, const dr_linear_args *a)
{
    const int64_t in = dr_cols(a->x);
    const int64_t out = dr_cols(a->y);
    dr_cuda_gemm_args g = {};
    g.m = dr_rows(a->x);
    g.n = out;
    g.k = in;
    g.batch = 1;
    g.dtype = g.c_dtype = a->x->dtype;
    g.a = matrix(a->x->data, in, false);
    g.b = matrix(a->w->data, in, true);
    g.bias = a->b != nullptr ? a->b->data : nullptr;
    g.c = a->y->data;
    g.c_ld = out;
    g.alpha = 1.0f;
    g.beta = a->mode == DR_ADD ? 1.0f : 0.0f;
    return dr_cuda_gemm(dr_cuda_stream(), &g);
}

dr_status dr_cuda_linear_dx(dr_context *, const dr_linear_dx_args *a)
{
    const int64_t in = dr_cols(a->dx);
    const int64_t out = dr_cols(a->dy);
    dr_cuda_gemm_args g = {};
    g.m = dr_rows(a->dy);
    g.n = in;
    g.k = out;
    g.batch = 1;
    g.dtype = g.c_dtype = a->dy->dtype;
    g.a = matrix(a->dy->data, out, false);
    g.b = matrix(a->w->data, in, false);
    g.c = a->dx->data;
    g.c_ld = in;
    g.alpha = 1.0f;
    g.beta = a->mode == DR_ADD ? 1.0f : 0.0f;
    return dr_cuda_gemm(dr_cuda_stream(), &g);
}

dr_status dr_cuda_linear_dw(dr_context *cx, const dr_linear_dw_args *a)
{
    const int64_t rows = dr_rows(a->dy);
    const int64_t out = dr_cols(a->dy);
    if (a->db != nullptr) {
        DR_TRY(dr_cuda_add_column_sums(a->db, a->dy, cx->work));
    }
    if (a->dw == nullptr) {
        return DR_OK;
    }
    dr_cuda_gemm_args g = {};
    g.m = out;
    g.n = dr_cols(a->x);
    g.k = rows;
    g.batch = 1;
    g.dtype = a->dy->dtype;
    g.c_dtype = a->dw->dtype;
    g.a = matrix(a->dy->data, out, true);
    g.b = matrix(a->x->data, g.n, false);
    g.c = a->dw->data;
    g.c_ld = g.n;
    g.alpha = 1.0f;
    g.beta = 1.0f;
    return dr_cuda_gemm(dr_cuda_stream(), &g);
}
