#include "ops/layout.h"

#include "ops/ops_internal.h"

dr_status dr_concat(dr_context *cx, const dr_concat_args *a)
{
    dr_ops_check_activation(cx, "concat", "a", a->a);
    dr_ops_check_activation(cx, "concat", "b", a->b);
    dr_ops_check_activation(cx, "concat", "y", a->y);
    DR_CHECK(dr_cols(a->y) == dr_cols(a->a) + dr_cols(a->b) && dr_rows(a->y) == dr_rows(a->a) &&
                 dr_rows(a->y) == dr_rows(a->b),
             "concat: sizes disagree");
    DR_DISPATCH(cx, concat, a);
}

dr_status dr_split(dr_context *cx, const dr_split_args *a)
{
    dr_ops_check_activation(cx, "split", "dy", a->dy);
    DR_CHECK(a->da != NULL || a->db != NULL, "split: nothing to write");
    DR_CHECK(a->ca > 0 && a->ca < dr_cols(a->dy), "split: %lld of %lld columns", (long long)a->ca,
             (long long)dr_cols(a->dy));
    DR_CHECK(a->da == NULL || (dr_cols(a->da) == a->ca && dr_rows(a->da) == dr_rows(a->dy)),
             "split: da disagrees");
    DR_CHECK(a->db == NULL ||
                 (dr_cols(a->db) == dr_cols(a->dy) - a->ca && dr_rows(a->db) == dr_rows(a->dy)),
             "split: db disagrees");
    DR_DISPATCH(cx, split, a);
}

dr_status dr_swap(dr_context *cx, const dr_swap_args *a)
{
    dr_ops_check_activation(cx, "swap", "x", a->x);
    DR_CHECK(a->x->rank == 4 && a->y->data != a->x->data, "swap: (A,P,Q,C), not in place");
    const int64_t *d = a->x->dim;
    dr_ops_check_shape("swap", "y", a->y, cx->dtype, 4, DR_DIMS(d[0], d[2], d[1], d[3]));
    DR_DISPATCH(cx, swap, a);
}

static void check_upsample(const dr_context *cx, const char *op, const dr_tensor *x,
                           const dr_tensor *y)
{
    dr_ops_check_activation(cx, op, "x", x);
    DR_CHECK(x->rank == 4, "%s: images are (N,H,W,C)", op);
    dr_ops_check_shape(op, "y", y, cx->dtype, 4,
                       DR_DIMS(x->dim[0], 2 * x->dim[1], 2 * x->dim[2], x->dim[3]));
}

dr_status dr_upsample2x(dr_context *cx, const dr_upsample2x_args *a)
{
    check_upsample(cx, "upsample2x", a->x, a->y);
    DR_DISPATCH(cx, upsample2x, a);
}

dr_status dr_upsample2x_backward(dr_context *cx, const dr_upsample2x_backward_args *a)
{
    check_upsample(cx, "upsample2x_backward", a->dx, a->dy);
    DR_DISPATCH(cx, upsample2x_backward, a);
}
