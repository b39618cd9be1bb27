/*
 * train/device_numbers.h - questions about the numbers of one tensor, wherever it is.
 *
 * Layer:    train.
 * Errors:   DR_NOMEM for a host copy, those of the device.
 */
#ifndef DR_TRAIN_DEVICE_NUMBERS_H
#define DR_TRAIN_DEVICE_NUMBERS_H

#include "io/xxh3.h"
#include "ops/context.h"
#include "tensor/device.h"
#include "tensor/tensor.h"

/* Index of the first element that is NaN or infinite, or -1. */
DR_MUST_USE dr_status dr_first_not_finite(const dr_device *device, const dr_tensor *t, int64_t *at);
/* Largest magnitude; 0 for an empty tensor. */
DR_MUST_USE dr_status dr_largest_value(const dr_device *device, const dr_tensor *t,
                                       double *largest);
/* All elements, as doubles. */
DR_MUST_USE dr_status dr_read_numbers(const dr_device *device, const dr_tensor *t, double *out);
/* Sum of the squares of all elements, made on the device; not written on a dry context. NaN and
 * infinity show in it. */
DR_MUST_USE dr_status dr_sum_of_squares(dr_context *cx, const dr_tensor *t, double *out);
/* Of the bytes. */
DR_MUST_USE dr_status dr_hash_values(const dr_device *device, const dr_tensor *t, dr_xxh3 *hash);

#endif
