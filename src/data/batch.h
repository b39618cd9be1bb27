/*
 * data/batch.h - the pixels of one sample, ready for the VAE encoder.
 *
 * Layer:    data.
 * Threads:  no shared state; any number of pictures at once.
 */
#ifndef DR_DATA_BATCH_H
#define DR_DATA_BATCH_H

#include "data/augment.h"

/*
 * Loads a picture and resizes it to fit.resized as image->picture says, cuts and colours it as the
 * use says (data/augment.h) and writes (bucket h, bucket w, 3) floats in [-1, 1] to nhwc; flip
 * mirrors left and right after the crop. Errors: DR_FORMAT, DR_IO (damaged, gone, or of another
 * size than when the dataset was built), DR_NOMEM; nhwc is then undefined.
 */
DR_MUST_USE dr_status dr_sample_pixels_of(const dr_dataset_image *image, const dr_sample_use *use,
                                          float *nhwc);
/* The same without augmentation: what a cache keeps. */
DR_MUST_USE dr_status dr_sample_pixels(const dr_dataset_image *image, bool flip, float *nhwc);

#endif
