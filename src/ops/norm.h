/*
 * ops/norm.h - group and layer normalisation.
 *
 * Layer:    ops.  May include base/ and tensor/ only.
 * Errors:   DR_UNSUPPORTED when the backend lacks the op; otherwise the backend's own.
 *           Shapes and dtypes are contracts (DR_CHECK). Nothing is owned or kept.
 */
#ifndef DR_OPS_NORM_H
#define DR_OPS_NORM_H

#include "ops/context.h"

/*
 * y = act(gamma * (x - mean) * rstd + beta); mean and biased variance per sample and group of
 * C/groups consecutive channels over all pixels; rstd = 1/sqrt(var + eps).
 * eps: U-Net res blocks and head 1e-5; U-Net transformer entry and the whole VAE 1e-6.
 */
struct dr_groupnorm_args {
    int groups; /* C % groups == 0 */
    float eps;
    bool silu;                     /* act is SiLU, else the identity                            */
    const dr_tensor *x;            /* (N,H,W,C) or (N,S,C)                                      */
    const dr_tensor *gamma, *beta; /* (C)                                             */
    dr_tensor *y;                  /* as x                                                      */
    dr_tensor *stats;              /* (N,groups,2) of the compute dtype: mean, rstd             */
};
DR_MUST_USE dr_status dr_groupnorm(dr_context *cx, const dr_groupnorm_args *a);

struct dr_groupnorm_backward_args {
    int groups;
    bool silu;
    const dr_tensor *dy, *x;       /* as in forward                                   */
    const dr_tensor *gamma, *beta; /* (C)                                             */
    const dr_tensor *stats;        /* as left by forward                              */
    dr_tensor *dx;                 /* as x, or NULL                                   */
    dr_write mode;                 /* of dx                                           */
    dr_tensor *dgamma, *dbeta;     /* (C), +=; both NULL: skipped                     */
};
DR_MUST_USE dr_status dr_groupnorm_backward(dr_context *cx, const dr_groupnorm_backward_args *a);

/* The same over the last axis of every row, without activation. */
struct dr_layernorm_args {
    float eps;
    const dr_tensor *x;            /* (..., C)                                        */
    const dr_tensor *gamma, *beta; /* (C)                                             */
    dr_tensor *y;                  /* as x                                            */
    dr_tensor *stats;              /* (rows, 2) of the compute dtype                  */
};
DR_MUST_USE dr_status dr_layernorm(dr_context *cx, const dr_layernorm_args *a);

struct dr_layernorm_backward_args {
    const dr_tensor *dy, *x;
    const dr_tensor *gamma;
    const dr_tensor *stats;
    dr_tensor *dx; /* as x, or NULL */
    dr_write mode;
    dr_tensor *dgamma, *dbeta; /* (C), +=; both NULL: skipped */
};
DR_MUST_USE dr_status dr_layernorm_backward(dr_context *cx, const dr_layernorm_backward_args *a);

#endif
