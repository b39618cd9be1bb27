/*
 * ops/conv2d.h - two-dimensional convolution (cross-correlation, as in PyTorch).
 *
 * Layer:    ops.  May include base/ and tensor/ only.
 * Errors:   DR_UNSUPPORTED when the backend lacks the op; otherwise the backend's own.
 *           Shapes and dtypes are contracts (DR_CHECK). Nothing is owned or kept.
 */
#ifndef DR_OPS_CONV2D_H
#define DR_OPS_CONV2D_H

#include "ops/context.h"

typedef struct dr_conv2d_geom {
    int kh, kw;                   /* kernel; 1, 3                                        */
    int stride;                   /* both axes; 1, 2                                     */
    int top, left, bottom, right; /* zero padding. VAE downsampling: 0, 0, 1, 1          */
} dr_conv2d_geom;

/* Output size along one axis. */
int64_t dr_conv2d_out(int64_t in, int kernel, int stride, int before, int after);

struct dr_conv2d_args {
    dr_conv2d_geom geom;
    const dr_tensor *x; /* (N,H,W,I)                                          */
    const dr_tensor *w; /* (O,KH,KW,I)                                        */
    const dr_tensor *b; /* (O), or NULL                                       */
    dr_tensor *y;       /* (N,Ho,Wo,O)                                        */
};
DR_MUST_USE dr_status dr_conv2d(dr_context *cx, const dr_conv2d_args *a);

struct dr_conv2d_dx_args {
    dr_conv2d_geom geom;
    const dr_tensor *dy; /* (N,Ho,Wo,O)                                       */
    const dr_tensor *w;  /* (O,KH,KW,I)                                       */
    dr_tensor *dx;       /* (N,H,W,I), written as mode says                   */
    dr_write mode;
};
DR_MUST_USE dr_status dr_conv2d_dx(dr_context *cx, const dr_conv2d_dx_args *a);

struct dr_conv2d_dw_args {
    dr_conv2d_geom geom;
    const dr_tensor *dy; /* (N,Ho,Wo,O)                                       */
    const dr_tensor *x;  /* (N,H,W,I)                                         */
    dr_tensor *dw;       /* (O,KH,KW,I), +=; NULL: skipped                    */
    dr_tensor *db;       /* (O), +=; NULL: skipped                            */
    bool fresh;          /* dw holds nothing yet: = in place of +=            */
};
DR_MUST_USE dr_status dr_conv2d_dw(dr_context *cx, const dr_conv2d_dw_args *a);

#endif
