/*
 * nn/adapter_hadamard.h - adapters with two pairs of factors, for adapter.c.
 *
 * Layer:    nn, internal.
 * Source:   LyCORIS 4.1.3, lycoris/modules/loha.py: what its forward computes.
 *
 * Not for narrow contexts: products of elements are of the compute dtype.
 */
#ifndef DR_NN_ADAPTER_HADAMARD_H
#define DR_NN_ADAPTER_HADAMARD_H

#include "nn/adapter.h"

/* As dr_adapter_linear and dr_adapter_conv; geom NULL: a linear layer. */
DR_MUST_USE dr_status dr_hadamard_forward(dr_context *cx, const dr_adapter *a,
                                          const dr_conv2d_geom *geom, const dr_tensor *x,
                                          dr_tensor *y);
DR_MUST_USE dr_status dr_hadamard_backward(dr_context *cx, const dr_adapter *a,
                                           const dr_conv2d_geom *geom, const dr_tensor *x,
                                           const dr_tensor *dy, dr_tensor *dx);

#endif
