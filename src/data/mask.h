/*
 * data/mask.h - mask pictures: how much each latent pixel of a picture counts in the loss.
 *
 * Layer:    data.
 * Source:   sd-scripts' --masked_loss: the red channel of a picture of the same name and size, 0 to
 *           1, averaged over the 8 x 8 pixels of each latent pixel. The mask is resized and cut
 * like its picture (sd-scripts squeezes it into the bucket instead).
 */
#ifndef DR_DATA_MASK_H
#define DR_DATA_MASK_H

#include "data/augment.h"

/* The mask picture of a picture: dir/<its name without ending>.<png, jpg, ...>, in the arena.
 * Errors: DR_FORMAT when there is none. */
DR_MUST_USE dr_status dr_mask_find(dr_arena *arena, const char *dir, const char *image_path,
                                   const char **out);
/*
 * The mask of one use, (bucket h / 8, bucket w / 8) values of 0 to 1 to out; ones for a picture
 * without mask. use NULL: cut as a cache keeps it. Errors: those of reading a picture; DR_FORMAT
 * for a size that is not the picture's.
 */
DR_MUST_USE dr_status dr_mask_load(const dr_dataset_image *image, const dr_sample_use *use,
                                   bool flip, float *out);

#endif
