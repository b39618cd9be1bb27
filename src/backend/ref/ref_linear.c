#include "backend/ref/ref_internal.h"
#include "ops/linear.h"

/* y = x W^T + b */
dr_status DR_REF(linear)(dr_context *cx, const dr_linear_args *a)
{
    const int64_t in = dr_cols(a->x);
    const dr_ref_matmul p = {.m = dr_rows(a->x),
                             .n = dr_cols(a->y),
                             .k = in,
                             .a = dr_ref_data(a->x),
                             .a_row = in,
                             .a_col = 1,
                             .b = dr_ref_data(a->w),
                             .b_row = 1,
                             .b_col = in,
                             .bias = dr_ref_data(a->b),
                             .c = dr_ref_data(a->y),
                             .mode = a->mode};
    DR_REF(matmul)(&p, cx->threads);
    return DR_OK;
}

/* dx = dy W */
dr_status DR_REF(linear_dx)(dr_context *cx, const dr_linear_dx_args *a)
{
    const int64_t in = dr_cols(a->dx);
    const int64_t out = dr_cols(a->dy);
    const dr_ref_matmul p = {.m = dr_rows(a->dy),
                             .n = in,
                             .k = out,
                             .a = dr_ref_data(a->dy),
                             .a_row = out,
                             .a_col = 1,
                             .b = dr_ref_data(a->w),
                             .b_row = in,
                             .b_col = 1,
                             .c = dr_ref_data(a->dx),
                             .mode = a->mode};
    DR_REF(matmul)(&p, cx->threads);
    return DR_OK;
}

/* dW += dy^T x, db += column sums of dy */
dr_status DR_REF(linear_dw)(dr_context *cx, const dr_linear_dw_args *a)
{
    const int64_t in = dr_cols(a->x);
    const int64_t out = dr_cols(a->dy);
    const int64_t rows = dr_rows(a->x);
    if (a->dw != NULL) {
        const dr_ref_matmul p = {.m = out,
                                 .n = in,
                                 .k = rows,
                                 .a = dr_ref_data(a->dy),
                                 .a_row = 1,
                                 .a_col = out,
                                 .b = dr_ref_data(a->x),
                                 .b_row = in,
                                 .b_col = 1,
                                 .c = dr_ref_data(a->dw),
                                 .mode = DR_ADD};
        DR_REF(matmul)(&p, cx->threads);
    }
    if (a->db != NULL) {
        DR_REF(add_column_sums)(dr_ref_data(a->db), dr_ref_data(a->dy), rows, out, cx->threads);
    }
    return DR_OK;
}
