/*
 * ops/pointwise.h - activations and sums.
 *
 * Layer:    ops.  May include base/ and tensor/ only.
 * Errors:   DR_UNSUPPORTED when the backend lacks the op; otherwise the backend's own.
 *           Shapes and dtypes are contracts (DR_CHECK). Nothing is owned or kept.
 */
#ifndef DR_OPS_POINTWISE_H
#define DR_OPS_POINTWISE_H

#include "ops/context.h"

typedef enum dr_act {
    DR_ACT_SILU,       /* x sigmoid(x)                                    */
    DR_ACT_GELU,       /* x (1 + erf(x/sqrt 2)) / 2, the exact form       */
    DR_ACT_QUICK_GELU, /* x sigmoid(1.702 x)                              */
    DR_ACT_RELU,
    DR_ACT_TANH3 /* 3 tanh(x/3): TAESD's decoder clamp              */
} dr_act;

struct dr_activation_args {
    dr_act kind;
    const dr_tensor *x;
    dr_tensor *y; /* as x; may be x itself */
};
DR_MUST_USE dr_status dr_activation(dr_context *cx, const dr_activation_args *a);

struct dr_activation_backward_args {
    dr_act kind;
    const dr_tensor *dy, *x; /* x: the input of forward */
    dr_tensor *dx;           /* may be dy itself when mode is DR_SET */
    dr_write mode;
};
DR_MUST_USE dr_status dr_activation_backward(dr_context *cx, const dr_activation_backward_args *a);

/* x = [value | gate] along the last axis, value first: y = value * gelu(gate), exact GELU. */
struct dr_geglu_args {
    const dr_tensor *x; /* (..., 2F) */
    dr_tensor *y;       /* (..., F)  */
};
DR_MUST_USE dr_status dr_geglu(dr_context *cx, const dr_geglu_args *a);

struct dr_geglu_backward_args {
    const dr_tensor *dy; /* (..., F)  */
    const dr_tensor *x;  /* (..., 2F) */
    dr_tensor *dx;       /* (..., 2F), set */
};
DR_MUST_USE dr_status dr_geglu_backward(dr_context *cx, const dr_geglu_backward_args *a);

/* y = alpha x + beta z; z NULL: y = alpha x. y may be x or z. */
struct dr_add_args {
    float alpha, beta;
    const dr_tensor *x, *z; /* any shape, all equal */
    dr_tensor *y;
};
DR_MUST_USE dr_status dr_add(dr_context *cx, const dr_add_args *a);

/* x[n,p,c] += t[n,c]: the time embedding over all pixels; N = t's rows. */
struct dr_add_rows_args {
    dr_tensor *x;       /* (N, ..., C) */
    const dr_tensor *t; /* (N, C)      */
};
DR_MUST_USE dr_status dr_add_rows(dr_context *cx, const dr_add_rows_args *a);

/* dt[n,c] = or += sum over p of dy[n,p,c]. */
struct dr_sum_rows_args {
    const dr_tensor *dy; /* (N, ..., C) */
    dr_tensor *dt;       /* (N, C)      */
    dr_write mode;
};
DR_MUST_USE dr_status dr_sum_rows(dr_context *cx, const dr_sum_rows_args *a);

#endif
