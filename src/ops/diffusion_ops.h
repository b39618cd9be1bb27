/*
 * ops/diffusion_ops.h - noising, loss, posterior sampling.
 *
 * Layer:    ops.  May include base/ and tensor/ only.
 * Errors:   DR_UNSUPPORTED when the backend lacks the op; otherwise the backend's own.
 *           Shapes and dtypes are contracts (DR_CHECK). Nothing is owned or kept.
 */
#ifndef DR_OPS_DIFFUSION_OPS_H
#define DR_OPS_DIFFUSION_OPS_H

#include "ops/context.h"

/* y[n,...] = a[n] x[n,...] + b[n] z[n,...]: noisy latents (sqrt ac, sqrt 1-ac), v targets. */
struct dr_mix_args {
    const dr_tensor *x, *z; /* (N,...)                      */
    const dr_tensor *a, *b; /* (N) of the compute dtype     */
    dr_tensor *y;           /* as x; may be x or z          */
};
DR_MUST_USE dr_status dr_mix(dr_context *cx, const dr_mix_args *a);

typedef enum dr_loss_kind { /* of an element, d = pred - target, c its sample's threshold */
                            DR_LOSS_L2,       /* d^2                      */
                            DR_LOSS_L1,       /* |d|                      */
                            DR_LOSS_HUBER,    /* 2 c (sqrt(d^2 + c^2) - c) */
                            DR_LOSS_SMOOTH_L1 /* 2 (sqrt(d^2 + c^2) - c)   */
} dr_loss_kind;

/*
 * loss[n] = mean over a sample of mask loss(pred - target), without weight; the mean divides by
 * all elements, whatever the mask is (as sd-scripts' masked loss does). L2: (pred - target)^2.
 * dpred = weight[n] * mask loss'(pred - target) / elements per sample; NULL: skipped.
 */
struct dr_mse_args {
    dr_loss_kind kind;
    const dr_tensor *threshold;     /* (N) of the compute dtype; NULL for L2, L1 */
    const dr_tensor *pred, *target; /* (N,...)                                   */
    const dr_tensor *weight;        /* (N) of the compute dtype                  */
    const dr_tensor *mask;          /* one value per pixel: pred without its last axis, of the
                                       compute dtype; NULL: all ones             */
    dr_tensor *loss;                /* (N) of the compute dtype                  */
    dr_tensor *dpred;               /* as pred, set; NULL: skipped               */
};
DR_MUST_USE dr_status dr_mse(dr_context *cx, const dr_mse_args *a);

/* z = mean + exp(clamp(logvar,-30,20)/2) noise; moments = [mean | logvar] along the last axis.
 * noise NULL: z = mean. */
struct dr_posterior_sample_args {
    const dr_tensor *moments; /* (N,H,W,2C) */
    const dr_tensor *noise;   /* (N,H,W,C), or NULL */
    dr_tensor *z;             /* (N,H,W,C) */
};
DR_MUST_USE dr_status dr_posterior_sample(dr_context *cx, const dr_posterior_sample_args *a);

#endif
