/*
 * ops/linear.h - dense layers: y = x W^T + b.
 *
 * Layer:    ops.  May include base/ and tensor/ only.
 * Errors:   DR_UNSUPPORTED when the backend lacks the op; otherwise the backend's own.
 *           Shapes and dtypes are contracts (DR_CHECK). Nothing is owned or kept.
 */
#ifndef DR_OPS_LINEAR_H
#define DR_OPS_LINEAR_H

#include "ops/context.h"

/* Rows are all leading sizes multiplied together. */
struct dr_linear_args {
    const dr_tensor *x; /* (..., I)                          */
    const dr_tensor *w; /* (O, I)                            */
    const dr_tensor *b; /* (O), or NULL                      */
    dr_tensor *y;       /* (..., O), same rows as x          */
    dr_write mode;      /* DR_ADD: y += x W^T + b            */
};
DR_MUST_USE dr_status dr_linear(dr_context *cx, const dr_linear_args *a);

struct dr_linear_dx_args {
    const dr_tensor *dy; /* (..., O)                         */
    const dr_tensor *w;  /* (O, I)                           */
    dr_tensor *dx;       /* (..., I), = or += dy W           */
    dr_write mode;
};
DR_MUST_USE dr_status dr_linear_dx(dr_context *cx, const dr_linear_dx_args *a);

struct dr_linear_dw_args {
    const dr_tensor *dy; /* (..., O)                         */
    const dr_tensor *x;  /* (..., I)                         */
    dr_tensor *dw;       /* (O, I), += dy^T x; NULL: skipped */
    dr_tensor *db;       /* (O), += sum of dy; NULL: skipped */
    bool fresh;          /* dw holds nothing yet: = in place of += */
};
DR_MUST_USE dr_status dr_linear_dw(dr_context *cx, const dr_linear_dw_args *a);

#endif
