/*
 * nn/adapter_internal.h - what the files of adapters share.
 *
 * Layer:    nn, internal.
 */
#ifndef DR_NN_ADAPTER_INTERNAL_H
#define DR_NN_ADAPTER_INTERNAL_H

#include "base/philox.h"
#include "nn/adapter.h"

typedef struct dr_layer_call { /* one use of the layer */
    const dr_adapter *a;
    const dr_conv2d_geom *geom; /* NULL: a linear layer */
    const dr_tensor *x;
} dr_layer_call;

/* Whether any parameter gets a gradient. */
bool dr_adapter_is_trained(const dr_adapter *a);
/* Whether a chance of a's dropout counts in this context. */
bool dr_adapter_drops(const dr_context *cx, const dr_adapter *a, float chance);
typedef struct dr_adapter_mask { /* as in dr_dropout_args */
    dr_purpose purpose;
    float chance, scale;
    int64_t outer, inner;
} dr_adapter_mask;
/* Leaves out of x, in place. */
DR_MUST_USE dr_status dr_adapter_drop(dr_context *cx, const dr_adapter *a, dr_adapter_mask mask,
                                      dr_tensor *x);

/* ---- adapter_delta.c: with D ---- */

/* Whether D is formed. */
bool dr_adapter_forms_delta(const dr_adapter *a);
/* y += the layer with D in the weight's place. */
DR_MUST_USE dr_status dr_delta_forward(dr_context *cx, const dr_layer_call *l, dr_tensor *y);
/* Gradients of parameters accumulate; dx += or NULL. */
DR_MUST_USE dr_status dr_delta_backward(dr_context *cx, const dr_layer_call *l, const dr_tensor *dy,
                                        dr_tensor *dx);

/* ---- adapter_product.c: the products that D is made of, in a context of the compute dtype ---- */

typedef struct dr_operand { /* a parameter in the compute dtype */
    const dr_param *p;      /* NULL: there is none, and nothing else holds */
    dr_tensor value;
    dr_tensor grad; /* data NULL: not wanted */
} dr_operand;

/* In the frame; with grad, room for the gradient where it is wanted and not of the compute dtype.
 */
DR_MUST_USE dr_status dr_operand_open(dr_context *wide, dr_frame f, const dr_param *p, bool grad,
                                      dr_operand *out);
/* Adds what was gathered in such room. */
DR_MUST_USE dr_status dr_operand_close(dr_context *wide, const dr_operand *o);

typedef struct dr_product { /* B (C A) as (rows, cols), cols = window * inputs */
    dr_operand up, down, core;
    bool up_is_transposed;
    dr_tensor inner; /* C A, or A: (R, cols); with dropped ranks a copy */
    bool inner_is_down;
    dr_tensor value; /* (rows, cols) */
} dr_product;

/* Computes it in the frame. a: whose ranks are left out, where they are. */
DR_MUST_USE dr_status dr_product_build(dr_context *wide, dr_frame f, const dr_adapter *a,
                                       const dr_adapter_pair *pair, bool grad, dr_product *p);
/* dvalue (rows, cols); changes nothing but gradients. */
DR_MUST_USE dr_status dr_product_backward(dr_context *wide, const dr_adapter *a,
                                          const dr_product *p, const dr_tensor *dvalue);
DR_MUST_USE dr_status dr_product_close(dr_context *wide, const dr_product *p);

/* y = x * t, element by element. */
DR_MUST_USE dr_status dr_times(dr_context *wide, const dr_tensor *x, const dr_tensor *t,
                               dr_tensor *y);
/* (first size, all others) */
dr_tensor dr_flat(const dr_tensor *t);

#endif
