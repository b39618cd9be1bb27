/*
 * ops/ops_internal.h - contract checks shared by the op entry points. Private to ops.
 */
#ifndef DR_OPS_INTERNAL_H
#define DR_OPS_INTERNAL_H

#include "ops/context.h"

/* Panics unless t exists and has the context's activation dtype. */
void dr_ops_check_activation(const dr_context *cx, const char *op, const char *name,
                             const dr_tensor *t);
/* Panics unless t is a vector of n elements of the activation dtype (NULL passes). */
void dr_ops_check_vector(const dr_context *cx, const char *op, const char *name, const dr_tensor *t,
                         int64_t n);
/* Panics unless t, a parameter's gradient, is a vector of n elements (NULL passes). */
void dr_ops_check_gradient(const dr_context *cx, const char *op, const char *name,
                           const dr_tensor *t, int64_t n);
/* Zeroes dw (NULL: nothing to do) for backends that only add to it. */
DR_MUST_USE dr_status dr_ops_begin_fresh(dr_context *cx, const dr_tensor *dw);
/* The type of a parameter's gradient: the compute dtype or the context's. */
dr_dtype dr_ops_gradient_dtype(const dr_context *cx, const dr_tensor *t);
/* Panics unless t has exactly these sizes and the dtype. */
void dr_ops_check_shape(const char *op, const char *name, const dr_tensor *t, dr_dtype dtype,
                        int rank, const int64_t *dim);
/* Panics unless a and b agree in dtype and all sizes. */
void dr_ops_check_same(const char *op, const char *name, const dr_tensor *a, const dr_tensor *b);

#endif
