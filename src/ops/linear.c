#include "ops/linear.h"

#include "ops/ops_internal.h"

static void check_linear(const dr_context *cx, const char *op, const dr_tensor *x,
                         const dr_tensor *w, dr_dtype w_dtype, const dr_tensor *y)
{
    dr_ops_check_activation(cx, op, "x", x);
    dr_ops_check_activation(cx, op, "y", y);
    if (w != NULL) {
        dr_ops_check_shape(op, "w", w, w_dtype, 2, DR_DIMS(dr_cols(y), dr_cols(x)));
    }
    DR_CHECK(dr_rows(x) == dr_rows(y), "%s: %lld rows in, %lld rows out", op, (long long)dr_rows(x),
             (long long)dr_rows(y));
}

dr_status dr_linear(dr_context *cx, const dr_linear_args *a)
{
    check_linear(cx, "linear", a->x, a->w, cx->dtype, a->y);
    dr_ops_check_vector(cx, "linear", "b", a->b, dr_cols(a->y));
    DR_DISPATCH(cx, linear, a);
}

dr_status dr_linear_dx(dr_context *cx, const dr_linear_dx_args *a)
{
    check_linear(cx, "linear_dx", a->dx, a->w, cx->dtype, a->dy);
    DR_DISPATCH(cx, linear_dx, a);
}

dr_status dr_linear_dw(dr_context *cx, const dr_linear_dw_args *a)
{
    check_linear(cx, "linear_dw", a->x, a->dw, dr_ops_gradient_dtype(cx, a->dw), a->dy);
    dr_ops_check_gradient(cx, "linear_dw", "db", a->db, dr_cols(a->dy));
    DR_TRY(dr_ops_begin_fresh(cx, a->fresh ? a->dw : NULL));
    DR_DISPATCH(cx, linear_dw, a);
}
