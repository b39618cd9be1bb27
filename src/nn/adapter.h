/*
 * nn/adapter.h - a low-rank addition to the product of a weight that is itself left alone (LoRA,
 * LoHa).
 *
 * Layer:    nn.
 * Formula:  y += s up(down(x)). Linear: y += s (x A') B'. Convolution: A with the base's kernel,
 *           stride and padding, then B, 1x1.
 *
 * With a second pair of factors (LoHa) the layer computes with the difference of the weight itself,
 * D = s (B A) * (B2 A2), element by element: y += x D', or its convolution. D is built again in
 * backward.
 *
 * A layer finds its adapter in its weight's registry entry. Backward needs the layer's input and
 * nothing else: down(x) is computed again, which costs rank / outputs of the base's product.
 */
#ifndef DR_NN_ADAPTER_H
#define DR_NN_ADAPTER_H

#include "nn/params.h"
#include "ops/conv2d.h"

typedef struct dr_adapter { /* outlives the layers' use of it */
    dr_param *down;         /* A: [R,I], [R,I,1,1] or [R,I,K,K]; F32 as all parameters */
    dr_param *up;           /* B: [O,R] or [O,R,1,1]; of LoHa always [O,R] */
    dr_param *down2, *up2;  /* LoHa: the second pair, of the same shapes; NULL: none */
    float scale;            /* s: multiplier * alpha / rank */
    bool dropped;           /* takes no part for now: forward adds nothing, gradients get nothing */
} dr_adapter;

/* Whether backward of a layer with this weight reads the layer's input. */
bool dr_weight_reads_input(const dr_param *w);
/* Whether the entry, or its adapter, gets a gradient. */
bool dr_param_is_trained(const dr_param *p);

/* x (...,I), y (...,O): y += s (x A') B'. */
DR_MUST_USE dr_status dr_adapter_linear(dr_context *cx, const dr_adapter *a, const dr_tensor *x,
                                        dr_tensor *y);
/* The factors' gradients accumulate; dx (...,I) +=, or NULL. */
DR_MUST_USE dr_status dr_adapter_linear_backward(dr_context *cx, const dr_adapter *a,
                                                 const dr_tensor *x, const dr_tensor *dy,
                                                 dr_tensor *dx);
/* The same of a convolution: x (N,H,W,I), y (N,Ho,Wo,O). */
DR_MUST_USE dr_status dr_adapter_conv(dr_context *cx, const dr_adapter *a,
                                      const dr_conv2d_geom *geom, const dr_tensor *x, dr_tensor *y);
DR_MUST_USE dr_status dr_adapter_conv_backward(dr_context *cx, const dr_adapter *a,
                                               const dr_conv2d_geom *geom, const dr_tensor *x,
                                               const dr_tensor *dy, dr_tensor *dx);

#endif
