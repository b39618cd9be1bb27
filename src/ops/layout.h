/*
 * ops/layout.h - moving data: channel concatenation, transposition, nearest
 * upsampling.
 *
 * Layer:    ops.  May include base/ and tensor/ only.
 * Errors:   DR_UNSUPPORTED when the backend lacks the op; otherwise the backend's own.
 *           Shapes and dtypes are contracts (DR_CHECK). Nothing is owned or kept.
 */
#ifndef DR_OPS_LAYOUT_H
#define DR_OPS_LAYOUT_H

#include "ops/context.h"

/* y = [a | b] along the last axis; rows agree. */
struct dr_concat_args {
    const dr_tensor *a, *b; /* (..., Ca), (..., Cb) */
    dr_tensor *y;           /* (..., Ca+Cb)         */
};
DR_MUST_USE dr_status dr_concat(dr_context *cx, const dr_concat_args *a);

/* The reverse: da and db from dy, each written as its mode says; NULL: skipped. */
struct dr_split_args {
    const dr_tensor *dy; /* (..., Ca+Cb) */
    dr_tensor *da, *db;
    dr_write mode_a, mode_b;
    int64_t ca; /* columns of a (needed when da is NULL) */
};
DR_MUST_USE dr_status dr_split(dr_context *cx, const dr_split_args *a);

/* y[a,q,p,c] = x[a,p,q,c]. */
struct dr_swap_args {
    const dr_tensor *x; /* (A,P,Q,C) */
    dr_tensor *y;       /* (A,Q,P,C) */
};
DR_MUST_USE dr_status dr_swap(dr_context *cx, const dr_swap_args *a);

struct dr_upsample2x_args {
    const dr_tensor *x; /* (N,H,W,C)   */
    dr_tensor *y;       /* (N,2H,2W,C) */
};
DR_MUST_USE dr_status dr_upsample2x(dr_context *cx, const dr_upsample2x_args *a);

struct dr_upsample2x_backward_args {
    const dr_tensor *dy; /* (N,2H,2W,C) */
    dr_tensor *dx;       /* (N,H,W,C)   */
    dr_write mode;
};
DR_MUST_USE dr_status dr_upsample2x_backward(dr_context *cx, const dr_upsample2x_backward_args *a);

#endif
