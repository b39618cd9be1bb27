#include "ops/conv2d.h"

#include "ops/ops_internal.h"

int64_t dr_conv2d_out(int64_t in, int kernel, int stride, int before, int after)
{
    DR_CHECK(in + before + after >= kernel && stride >= 1, "conv2d: size %lld, kernel %d",
             (long long)in, kernel);
    return (in + before + after - kernel) / stride + 1;
}

/* 7 arguments: what three ops have in common, by name at the calls. */
static void check_conv2d(const dr_context *cx, const char *op, const dr_conv2d_geom *g,
                         const dr_tensor *x, const dr_tensor *w, const dr_tensor *y,
                         dr_dtype w_dtype)
{
    dr_ops_check_activation(cx, op, "x", x);
    dr_ops_check_activation(cx, op, "y", y);
    DR_CHECK(x->rank == 4 && y->rank == 4, "%s: images are (N,H,W,C)", op);
    dr_ops_check_shape(
        op, "y", y, cx->dtype, 4,
        DR_DIMS(x->dim[0], dr_conv2d_out(x->dim[1], g->kh, g->stride, g->top, g->bottom),
                dr_conv2d_out(x->dim[2], g->kw, g->stride, g->left, g->right), y->dim[3]));
    if (w != NULL) {
        dr_ops_check_shape(op, "w", w, w_dtype, 4, DR_DIMS(y->dim[3], g->kh, g->kw, x->dim[3]));
    }
}

dr_status dr_conv2d(dr_context *cx, const dr_conv2d_args *a)
{
    check_conv2d(cx, "conv2d", &a->geom, a->x, a->w, a->y, cx->dtype);
    dr_ops_check_vector(cx, "conv2d", "b", a->b, a->y->dim[3]);
    DR_DISPATCH(cx, conv2d, a);
}

dr_status dr_conv2d_dx(dr_context *cx, const dr_conv2d_dx_args *a)
{
    check_conv2d(cx, "conv2d_dx", &a->geom, a->dx, a->w, a->dy, cx->dtype);
    DR_DISPATCH(cx, conv2d_dx, a);
}

dr_status dr_conv2d_dw(dr_context *cx, const dr_conv2d_dw_args *a)
{
    check_conv2d(cx, "conv2d_dw", &a->geom, a->x, a->dw, a->dy, dr_ops_gradient_dtype(cx, a->dw));
    dr_ops_check_gradient(cx, "conv2d_dw", "db", a->db, a->dy->dim[3]);
    DR_TRY(dr_ops_begin_fresh(cx, a->fresh ? a->dw : NULL));
    DR_DISPATCH(cx, conv2d_dw, a);
}
