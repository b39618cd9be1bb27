/*
 * ops/optimizer_ops.h - sums of squares and AdamW over flat memory.
 *
 * Layer:    ops.  May include base/ and tensor/ only.
 * Errors:   DR_UNSUPPORTED when the backend lacks the op; otherwise the backend's own.
 *           Shapes and dtypes are contracts (DR_CHECK). Nothing is owned or kept.
 */
#ifndef DR_OPS_OPTIMIZER_OPS_H
#define DR_OPS_OPTIMIZER_OPS_H

#include "ops/context.h"

/* out[0] (F64) += sum of x^2 in double, in a fixed order that does not depend on threads. */
struct dr_sumsq_args {
    const dr_tensor *x;
    dr_tensor *out; /* (1) F64 */
};
DR_MUST_USE dr_status dr_sumsq(dr_context *cx, const dr_sumsq_args *a);

/*
 * torch.optim.AdamW, one step over n contiguous elements: g = grad_scale * grad;
 * p *= 1 - lr wd; m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2;
 * p -= lr/(1-b1^step) * m / (sqrt(v)/sqrt(1-b2^step) + eps).
 */
struct dr_adamw_args {
    float lr, beta1, beta2, eps, weight_decay;
    float grad_scale;     /* clipping factor; 1: none */
    int64_t step;         /* of this update, from 1 */
    dr_tensor *p, *m, *v; /* (n) of the compute dtype, updated */
    const dr_tensor *g;   /* (n) */
};
DR_MUST_USE dr_status dr_adamw(dr_context *cx, const dr_adamw_args *a);

#endif
