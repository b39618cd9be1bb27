#include "ops/norm.h"

#include "ops/ops_internal.h"

static void check_group_stats(const dr_context *cx, const char *op, const dr_tensor *x, int groups,
                              const dr_tensor *stats)
{
    DR_CHECK(x->rank >= 3, "%s: x is (N,...,C)", op);
    DR_CHECK(groups >= 1 && dr_cols(x) % groups == 0, "%s: %lld channels in %d groups", op,
             (long long)dr_cols(x), groups);
    dr_ops_check_shape(op, "stats", stats, cx->backend->compute, 3, DR_DIMS(x->dim[0], groups, 2));
}

dr_status dr_groupnorm(dr_context *cx, const dr_groupnorm_args *a)
{
    const char *op = "groupnorm";
    dr_ops_check_activation(cx, op, "x", a->x);
    dr_ops_check_same(op, "y", a->y, a->x);
    dr_ops_check_vector(cx, op, "gamma", a->gamma, dr_cols(a->x));
    dr_ops_check_vector(cx, op, "beta", a->beta, dr_cols(a->x));
    check_group_stats(cx, op, a->x, a->groups, a->stats);
    DR_CHECK(a->gamma != NULL && a->beta != NULL && a->eps > 0.0f, "%s: gamma, beta, eps", op);
    DR_DISPATCH(cx, groupnorm, a);
}

dr_status dr_groupnorm_backward(dr_context *cx, const dr_groupnorm_backward_args *a)
{
    const char *op = "groupnorm_backward";
    dr_ops_check_activation(cx, op, "x", a->x);
    dr_ops_check_same(op, "dy", a->dy, a->x);
    if (a->dx != NULL) {
        dr_ops_check_same(op, "dx", a->dx, a->x);
    }
    dr_ops_check_vector(cx, op, "gamma", a->gamma, dr_cols(a->x));
    dr_ops_check_vector(cx, op, "beta", a->beta, dr_cols(a->x));
    dr_ops_check_gradient(cx, op, "dgamma", a->dgamma, dr_cols(a->x));
    dr_ops_check_gradient(cx, op, "dbeta", a->dbeta, dr_cols(a->x));
    check_group_stats(cx, op, a->x, a->groups, a->stats);
    DR_CHECK((a->dgamma == NULL) == (a->dbeta == NULL), "%s: dgamma and dbeta go together", op);
    DR_DISPATCH(cx, groupnorm_backward, a);
}

dr_status dr_layernorm(dr_context *cx, const dr_layernorm_args *a)
{
    const char *op = "layernorm";
    dr_ops_check_activation(cx, op, "x", a->x);
    dr_ops_check_same(op, "y", a->y, a->x);
    dr_ops_check_vector(cx, op, "gamma", a->gamma, dr_cols(a->x));
    dr_ops_check_vector(cx, op, "beta", a->beta, dr_cols(a->x));
    dr_ops_check_shape(op, "stats", a->stats, cx->backend->compute, 2, DR_DIMS(dr_rows(a->x), 2));
    DR_CHECK(a->gamma != NULL && a->beta != NULL && a->eps > 0.0f, "%s: gamma, beta, eps", op);
    DR_DISPATCH(cx, layernorm, a);
}

dr_status dr_layernorm_backward(dr_context *cx, const dr_layernorm_backward_args *a)
{
    const char *op = "layernorm_backward";
    dr_ops_check_activation(cx, op, "x", a->x);
    dr_ops_check_same(op, "dy", a->dy, a->x);
    if (a->dx != NULL) {
        dr_ops_check_same(op, "dx", a->dx, a->x);
    }
    dr_ops_check_vector(cx, op, "gamma", a->gamma, dr_cols(a->x));
    dr_ops_check_gradient(cx, op, "dgamma", a->dgamma, dr_cols(a->x));
    dr_ops_check_gradient(cx, op, "dbeta", a->dbeta, dr_cols(a->x));
    dr_ops_check_shape(op, "stats", a->stats, cx->backend->compute, 2, DR_DIMS(dr_rows(a->x), 2));
    DR_CHECK((a->dgamma == NULL) == (a->dbeta == NULL), "%s: dgamma and dbeta go together", op);
    DR_DISPATCH(cx, layernorm_backward, a);
}
