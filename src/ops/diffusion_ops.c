#include "ops/diffusion_ops.h"

#include "ops/ops_internal.h"

static void check_coefficient(const dr_context *cx, const char *op, const char *name,
                              const dr_tensor *t, int64_t n)
{
    dr_ops_check_shape(op, name, t, cx->backend->compute, 1, &n);
}

dr_status dr_mix(dr_context *cx, const dr_mix_args *a)
{
    dr_ops_check_activation(cx, "mix", "x", a->x);
    dr_ops_check_same("mix", "z", a->z, a->x);
    dr_ops_check_same("mix", "y", a->y, a->x);
    check_coefficient(cx, "mix", "a", a->a, a->x->dim[0]);
    check_coefficient(cx, "mix", "b", a->b, a->x->dim[0]);
    DR_DISPATCH(cx, mix, a);
}

dr_status dr_mse(dr_context *cx, const dr_mse_args *a)
{
    dr_ops_check_activation(cx, "mse", "pred", a->pred);
    dr_ops_check_same("mse", "target", a->target, a->pred);
    if (a->dpred != NULL) {
        dr_ops_check_same("mse", "dpred", a->dpred, a->pred);
    }
    if (a->mask != NULL) {
        dr_ops_check_shape("mse", "mask", a->mask, cx->backend->compute, a->pred->rank - 1,
                           a->pred->dim);
    }
    check_coefficient(cx, "mse", "weight", a->weight, a->pred->dim[0]);
    check_coefficient(cx, "mse", "loss", a->loss, a->pred->dim[0]);
    if (a->kind == DR_LOSS_HUBER || a->kind == DR_LOSS_SMOOTH_L1) {
        check_coefficient(cx, "mse", "threshold", a->threshold, a->pred->dim[0]);
    }
    DR_DISPATCH(cx, mse, a);
}

dr_status dr_posterior_sample(dr_context *cx, const dr_posterior_sample_args *a)
{
    const char *op = "posterior_sample";
    dr_ops_check_activation(cx, op, "moments", a->moments);
    dr_ops_check_activation(cx, op, "z", a->z);
    DR_CHECK(dr_cols(a->moments) == 2 * dr_cols(a->z) && dr_rows(a->moments) == dr_rows(a->z),
             "%s: moments are mean and log variance", op);
    if (a->noise != NULL) {
        dr_ops_check_same(op, "noise", a->noise, a->z);
    }
    DR_DISPATCH(cx, posterior_sample, a);
}
