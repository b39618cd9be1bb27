/*
 * nn/mha.h - multi-head attention with its four projections.
 *
 * Layer:    nn.
 */
#ifndef DR_NN_MHA_H
#define DR_NN_MHA_H

#include "nn/layers.h"

typedef struct dr_mha {
    dr_linear_layer q, k, v, out;
    int heads;
    bool causal;
} dr_mha;

typedef struct dr_mha_saved { /* tensors live in the frame given to forward */
    dr_tensor q, k, v, o, lse;
} dr_mha_saved;

/*
 * y = or += out(attention(q(x), k(c), v(c))).
 * x (N,Sq,C); c (N,Sk,D), x itself for self attention; y (N,Sq,C).
 * What backward needs is allocated in keep.
 */
DR_MUST_USE dr_status dr_mha_forward(dr_context *cx, const dr_mha *m, const dr_tensor *x,
                                     const dr_tensor *c, dr_tensor *y, dr_write mode,
                                     dr_mha_saved *saved, dr_frame keep);

typedef struct dr_mha_grad {
    const dr_tensor *dy; /* (N,Sq,C) */
    const dr_tensor *x, *c;
    dr_tensor *dx; /* written as mode_dx says; NULL: skipped                                */
    dr_write mode_dx;
    dr_tensor *dc; /* always +=; for self attention give dx's tensor again; NULL: skipped   */
} dr_mha_grad;
DR_MUST_USE dr_status dr_mha_backward(dr_context *cx, const dr_mha *m, const dr_mha_saved *saved,
                                      const dr_mha_grad *g);

#endif
