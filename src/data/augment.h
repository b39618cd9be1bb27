/*
 * data/augment.h - how one use of a picture is cut and coloured: random crop, crop around a face,
 * colour augmentation.
 *
 * Layer:    data.
 * Source:   sd-scripts' trim_and_resize_if_required, crop_target and AugHelper.color_aug; their
 *           random numbers are replaced by draws keyed with (seed, epoch, sample).
 */
#ifndef DR_DATA_AUGMENT_H
#define DR_DATA_AUGMENT_H

#include "data/dataset.h"

typedef struct dr_sample_use { /* one use of a picture */
    uint64_t seed;
    uint32_t epoch;
    uint64_t sample;
    bool flip;
} dr_sample_use;

typedef struct dr_cut { /* the picture is resized to this, then the bucket is cut out at (x, y) */
    dr_size_px resized;
    int32_t x, y;
} dr_cut;
/*
 * The cut of one use; without augmentation that of image->fit. A picture of a dataset without
 * buckets that is at least as large as the resolution is cut at random without being resized; one
 * with a face in its name (<name>_<x>_<y>_<width>_<height>) is scaled so that the face is between
 * least and most of the shorter side, and cut around it. Errors: DR_FORMAT for such a name without
 * whole numbers.
 */
DR_MUST_USE dr_status dr_cut_choose(const dr_dataset_image *image, const dr_sample_use *use,
                                    dr_cut *out);

typedef struct dr_recolor { /* at most one of the two */
    double hue_shift;       /* of 180; 0: none */
    double gamma;           /* 1: none */
} dr_recolor;
/* A third of the uses are changed: the hue by up to 8 units, or the gamma by up to 5 %. */
dr_recolor dr_recolor_choose(const dr_sample_use *use);

#endif
