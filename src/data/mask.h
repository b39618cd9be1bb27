/*
 * data/mask.h - masks: how much each latent pixel of a picture counts in the loss.
 *
 * Layer:    data.
 * Source:   sd-scripts' --masked_loss: the red channel of a picture of the same name and size, 0 to
 *           1, averaged over the 8 x 8 pixels of each latent pixel; its --alpha_mask: the same with
 *           the picture's own alpha. The mask is resized and cut like its picture (sd-scripts does
 *           so with alpha, but squeezes mask pictures into the bucket). A mask picture goes before
 *           alpha; a picture without alpha counts whole.
 */
#ifndef DR_DATA_MASK_H
#define DR_DATA_MASK_H

#include "data/augment.h"

enum { DR_MASK_ONE = 255 * 8 * 8 };

/* The mask picture of a picture: dir/<its name without ending>.<png, jpg, ...>, in the arena.
 * Errors: DR_FORMAT when there is none. */
DR_MUST_USE dr_status dr_mask_find(dr_arena *arena, const char *dir, const char *image_path,
                                   const char **out);
/* Whether the loss of this picture is weighed at all. */
bool dr_mask_is_used(const dr_dataset_image *image);
/*
 * The mask of one use, (bucket h / 8, bucket w / 8) values of 0 to 1 to out, whole multiples of
 * 1 / DR_MASK_ONE; ones for a picture without mask. use NULL: cut as a cache keeps it. Errors:
 * those of reading a picture; DR_FORMAT for a size that is not the picture's.
 */
DR_MUST_USE dr_status dr_mask_load(const dr_dataset_image *image, const dr_sample_use *use,
                                   bool flip, float *out);

#endif
