/*
 * train/device_values.h - parameter values between model files and a device that the host cannot
 * read.
 *
 * Layer:    train.
 */
#ifndef DR_TRAIN_DEVICE_VALUES_H
#define DR_TRAIN_DEVICE_VALUES_H

#include "tensor/device.h"
#include "train/model/model_file.h"

/*
 * Binds the set to values of that type on the device, without gradients, and fills them from the
 * file. Where the host cannot reach the device, through a host copy of the part. DR_NOMEM,
 * DR_FORMAT.
 */
DR_MUST_USE dr_status dr_device_load(const dr_device *device, const dr_model_file *file,
                                     dr_model_part part, dr_params *set, dr_dtype dtype,
                                     void *values);
/* A host copy of device memory, for the caller to free. */
DR_MUST_USE dr_status dr_device_to_host(const dr_device *device, const void *values, size_t bytes,
                                        void **copy);

#endif
