/*
 * train/device_values.h - parameter values between model files and a device that the host cannot
 * read.
 *
 * Layer:    train.
 */
#ifndef DR_TRAIN_DEVICE_VALUES_H
#define DR_TRAIN_DEVICE_VALUES_H

#include "tensor/device.h"
#include "train/model_file.h"

/*
 * Binds the set to values and grads (NULL: none) on the device, F32, and fills the values from the
 * file. Where the host cannot reach the device, through a host copy of the part. DR_NOMEM,
 * DR_FORMAT.
 */
DR_MUST_USE dr_status dr_device_load(const dr_device *device, const dr_model_file *file,
                                     dr_model_part part, dr_params *set, float *values,
                                     float *grads);
/* A host copy of n floats, for the caller to free. */
DR_MUST_USE dr_status dr_device_to_host(const dr_device *device, const float *values, int64_t n,
                                        float **copy);

#endif
