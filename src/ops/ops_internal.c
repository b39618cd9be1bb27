#include "ops/ops_internal.h"

void dr_ops_check_activation(const dr_context *cx, const char *op, const char *name,
                             const dr_tensor *t)
{
    DR_CHECK(t != NULL && t->data != NULL, "%s: %s is missing", op, name);
    DR_CHECK(t->dtype == cx->dtype, "%s: %s is %s, the context computes in %s", op, name,
             dr_dtype_name(t->dtype), dr_dtype_name(cx->dtype));
}

void dr_ops_check_vector(const dr_context *cx, const char *op, const char *name, const dr_tensor *t,
                         int64_t n)
{
    if (t == NULL) {
        return;
    }
    dr_ops_check_activation(cx, op, name, t);
    DR_CHECK(t->rank == 1 && t->dim[0] == n, "%s: %s has %lld elements, expected %lld", op, name,
             (long long)dr_numel(t), (long long)n);
}

dr_dtype dr_ops_gradient_dtype(const dr_context *cx, const dr_tensor *t)
{
    return t != NULL && t->dtype == cx->backend->compute ? t->dtype : cx->dtype;
}

void dr_ops_check_gradient(const dr_context *cx, const char *op, const char *name,
                           const dr_tensor *t, int64_t n)
{
    if (t != NULL) {
        dr_ops_check_shape(op, name, t, dr_ops_gradient_dtype(cx, t), 1, &n);
    }
}

dr_status dr_ops_begin_fresh(dr_context *cx, const dr_tensor *dw)
{
    return dw == NULL || cx->backend->sets_fresh ? DR_OK : dr_zero(cx, dw);
}

void dr_ops_check_shape(const char *op, const char *name, const dr_tensor *t, dr_dtype dtype,
                        int rank, const int64_t *dim)
{
    DR_CHECK(t != NULL && t->data != NULL, "%s: %s is missing", op, name);
    dr_tensor want = dr_tensor_of(t->data, dtype, rank, dim);
    char got_text[96];
    char want_text[96];
    dr_tensor_describe(t, got_text);
    dr_tensor_describe(&want, want_text);
    DR_CHECK(dr_same_shape(t, &want), "%s: %s is %s, expected %s", op, name, got_text, want_text);
}

void dr_ops_check_same(const char *op, const char *name, const dr_tensor *a, const dr_tensor *b)
{
    DR_CHECK(b != NULL, "%s: %s is missing", op, name);
    dr_ops_check_shape(op, name, a, b->dtype, b->rank, b->dim);
}
