/*
 * nn/layers.h - linear, convolution and norm layers over registry entries.
 *
 * Layer:    nn.
 * Backward: parameter gradients accumulate where the entry has a gradient; dx is written as mode
 *           says, or skipped when NULL. x is read only if dr_weight_reads_input; else its data may
 *           be gone. Nothing is owned.
 * Adapters: a weight's adapter takes part in forward and backward (nn/adapter.h).
 */
#ifndef DR_NN_LAYERS_H
#define DR_NN_LAYERS_H

#include "nn/adapter.h"
#include "ops/conv2d.h"

typedef struct dr_linear_layer {
    dr_param *w; /* [O,I], or [O,I,1,1] where a file stores a 1x1 convolution */
    dr_param *b; /* [O], or NULL */
} dr_linear_layer;

typedef struct dr_conv_layer {
    dr_param *w, *b;
    dr_conv2d_geom geom;
} dr_conv_layer;

typedef struct dr_norm_layer {
    dr_param *w, *b;
    int groups; /* 0: layer norm over the last axis */
    float eps;
    bool silu; /* group norm only: SiLU follows */
} dr_norm_layer;

/* Registers "<name>.weight" and, if bias, "<name>.bias". */
void dr_linear_init(dr_linear_layer *l, dr_params *set, const char *name, int64_t in, int64_t out,
                    bool bias);
/* The same with a weight of file shape [out,in,1,1]. */
void dr_linear_init_1x1(dr_linear_layer *l, dr_params *set, const char *name, int64_t in,
                        int64_t out, bool bias);
/* Square kernel with equal padding on all sides and bias. */
void dr_conv_init(dr_conv_layer *l, dr_params *set, const char *name, int64_t in, int64_t out,
                  int kernel, int stride, int pad);
void dr_norm_init(dr_norm_layer *l, dr_params *set, const char *name, int64_t channels, int groups,
                  float eps, bool silu);

/* y (..., O) = or += x (..., I) W^T + b */
DR_MUST_USE dr_status dr_linear_forward(dr_context *cx, const dr_linear_layer *l,
                                        const dr_tensor *x, dr_tensor *y, dr_write mode);
DR_MUST_USE dr_status dr_linear_backward(dr_context *cx, const dr_linear_layer *l,
                                         const dr_tensor *x, const dr_tensor *dy, dr_tensor *dx,
                                         dr_write mode);

/* Output tensor (N,Ho,Wo,O) of the layer for x, in the frame. */
dr_tensor dr_conv_output(dr_context *cx, dr_frame f, const dr_conv_layer *l, const dr_tensor *x);
DR_MUST_USE dr_status dr_conv_forward(dr_context *cx, const dr_conv_layer *l, const dr_tensor *x,
                                      dr_tensor *y);
DR_MUST_USE dr_status dr_conv_backward(dr_context *cx, const dr_conv_layer *l, const dr_tensor *x,
                                       const dr_tensor *dy, dr_tensor *dx, dr_write mode);

/* Statistics tensor that forward fills and backward reads, in the frame. */
dr_tensor dr_norm_stats(dr_context *cx, dr_frame f, const dr_norm_layer *l, const dr_tensor *x);
DR_MUST_USE dr_status dr_norm_forward(dr_context *cx, const dr_norm_layer *l, const dr_tensor *x,
                                      dr_tensor *y, dr_tensor *stats);
DR_MUST_USE dr_status dr_norm_backward(dr_context *cx, const dr_norm_layer *l, const dr_tensor *x,
                                       const dr_tensor *stats, const dr_tensor *dy, dr_tensor *dx,
                                       dr_write mode);

#endif
