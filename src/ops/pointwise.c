#include "ops/pointwise.h"

#include "ops/ops_internal.h"

dr_status dr_activation(dr_context *cx, const dr_activation_args *a)
{
    dr_ops_check_activation(cx, "activation", "x", a->x);
    dr_ops_check_same("activation", "y", a->y, a->x);
    DR_DISPATCH(cx, activation, a);
}

dr_status dr_activation_backward(dr_context *cx, const dr_activation_backward_args *a)
{
    const char *op = "activation_backward";
    dr_ops_check_activation(cx, op, "x", a->x);
    dr_ops_check_same(op, "dy", a->dy, a->x);
    dr_ops_check_same(op, "dx", a->dx, a->x);
    DR_CHECK(a->dx->data != a->dy->data || a->mode == DR_SET, "%s: cannot add in place", op);
    DR_DISPATCH(cx, activation_backward, a);
}

static void check_geglu(const dr_context *cx, const char *op, const dr_tensor *x,
                        const dr_tensor *y)
{
    dr_ops_check_activation(cx, op, "x", x);
    dr_ops_check_activation(cx, op, "y", y);
    DR_CHECK(dr_rows(x) == dr_rows(y) && dr_cols(x) == 2 * dr_cols(y), "%s: %lld -> %lld columns",
             op, (long long)dr_cols(x), (long long)dr_cols(y));
}

dr_status dr_geglu(dr_context *cx, const dr_geglu_args *a)
{
    check_geglu(cx, "geglu", a->x, a->y);
    DR_DISPATCH(cx, geglu, a);
}

dr_status dr_geglu_backward(dr_context *cx, const dr_geglu_backward_args *a)
{
    check_geglu(cx, "geglu_backward", a->x, a->dy);
    dr_ops_check_same("geglu_backward", "dx", a->dx, a->x);
    DR_DISPATCH(cx, geglu_backward, a);
}

dr_status dr_add(dr_context *cx, const dr_add_args *a)
{
    DR_CHECK(a->x != NULL && a->y != NULL, "add: x or y is missing");
    dr_ops_check_same("add", "y", a->y, a->x);
    if (a->z != NULL) {
        dr_ops_check_same("add", "z", a->z, a->x);
    }
    DR_DISPATCH(cx, add, a);
}

static void check_rows(const dr_context *cx, const char *op, const dr_tensor *x, const dr_tensor *t)
{
    dr_ops_check_activation(cx, op, "x", x);
    dr_ops_check_activation(cx, op, "t", t);
    DR_CHECK(x->rank >= 3 && t->rank == 2 && x->dim[0] == t->dim[0] && dr_cols(x) == t->dim[1],
             "%s: rows of (N,C) onto (N,...,C)", op);
}

dr_status dr_add_rows(dr_context *cx, const dr_add_rows_args *a)
{
    check_rows(cx, "add_rows", a->x, a->t);
    DR_DISPATCH(cx, add_rows, a);
}

dr_status dr_sum_rows(dr_context *cx, const dr_sum_rows_args *a)
{
    check_rows(cx, "sum_rows", a->dy, a->dt);
    DR_DISPATCH(cx, sum_rows, a);
}

dr_status dr_multiply(dr_context *cx, const dr_multiply_args *a)
{
    check_rows(cx, "multiply", a->x, a->t);
    dr_ops_check_same("multiply", "y", a->y, a->x);
    DR_DISPATCH(cx, multiply, a);
}

dr_status dr_dropout(dr_context *cx, const dr_dropout_args *a)
{
    const int64_t most = INT64_C(1) << 34; /* numbers of a stream: 2^32 blocks of four */
    dr_ops_check_activation(cx, "dropout", "x", a->x);
    dr_ops_check_same("dropout", "y", a->y, a->x);
    DR_CHECK(a->outer > 0 && a->inner > 0 && dr_numel(a->x) % (a->outer * a->inner) == 0 &&
                 a->outer * a->inner <= most,
             "dropout: %lld elements as (%lld, ..., %lld)", (long long)dr_numel(a->x),
             (long long)a->outer, (long long)a->inner);
    DR_DISPATCH(cx, dropout, a);
}

void dr_dropout_keeps(const dr_dropout_args *a, uint32_t block, bool out[4])
{
    dr_philox p;
    dr_philox_init(&p, a->seed, a->purpose, a->time, a->item);
    p.counter[0] = block;
    for (int k = 0; k < 4; k++) {
        out[k] = dr_philox_uniform(&p) >= a->chance;
    }
}
