/*
 * ops/pointwise.h - activations and sums.
 *
 * Layer:    ops.  May include base/ and tensor/ only.
 * Errors:   DR_UNSUPPORTED when the backend lacks the op; otherwise the backend's own.
 *           Shapes and dtypes are contracts (DR_CHECK). Nothing is owned or kept.
 */
#ifndef DR_OPS_POINTWISE_H
#define DR_OPS_POINTWISE_H

#include "base/philox.h"
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

/* y[n,p,c] = x[n,p,c] t[n,c]: element by element with one p, rows or columns with one n or c. */
struct dr_multiply_args {
    const dr_tensor *x; /* (N, ..., C)       */
    const dr_tensor *t; /* (N, C)            */
    dr_tensor *y;       /* as x; may be x    */
};
DR_MUST_USE dr_status dr_multiply(dr_context *cx, const dr_multiply_args *a);

/*
 * y[n,p,c] = scale x[n,p,c] where number n C + c of the stream is at least chance, else 0; the
 * numbers are those of dr_philox_uniform. x is taken as (outer, ..., inner): all p share a number.
 */
struct dr_dropout_args {
    const dr_tensor *x;
    dr_tensor *y; /* as x; may be x */
    int64_t outer, inner;
    float chance, scale;
    uint64_t seed; /* of the stream: base/philox.h */
    dr_purpose purpose;
    uint32_t time;
    uint64_t item;
};
DR_MUST_USE dr_status dr_dropout(dr_context *cx, const dr_dropout_args *a);

/* Which of numbers 4 block .. 4 block + 3 keep their elements. */
void dr_dropout_keeps(const dr_dropout_args *a, uint32_t block, bool out[4]);

#endif
