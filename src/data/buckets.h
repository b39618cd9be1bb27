/*
 * data/buckets.h - aspect-ratio buckets: which sizes exist, which one a picture goes to, how it is
 * resized and cropped to fit.
 *
 * Layer:    data.  Pure functions; no files, no randomness.
 * Source:   sd-scripts' make_bucket_resolutions and BucketManager.select_bucket, in the arithmetic
 *           of Python (integer floor division, IEEE double). tests/interop/data_peers.py compares.
 */
#ifndef DR_DATA_BUCKETS_H
#define DR_DATA_BUCKETS_H

#include "base/arena.h"

typedef struct dr_size_px {
    int32_t w, h;
} dr_size_px;
/* qsort and bsearch order: ascending by (w, h). */
int dr_size_px_compare(const void *a, const void *b);
/* Sorts n >= 1 sizes and drops duplicates; returns how many are left. */
size_t dr_size_px_sort_unique(dr_size_px *sizes, size_t n);

typedef struct dr_bucket_options {
    dr_size_px resolution;  /* --resolution                                            */
    bool enable;            /* --enable_bucket; off: one bucket, the resolution itself */
    bool no_upscale;        /* --bucket_no_upscale                                     */
    int32_t min_px, max_px; /* --min_bucket_reso, --max_bucket_reso                    */
    int32_t step_px;        /* --bucket_reso_steps                                     */
} dr_bucket_options;
/* sd-scripts' defaults: 512x512, no buckets, 256, 1024, steps of 64. */
dr_bucket_options dr_bucket_options_default(void);

/* "S" or "W,H" (the value of --resolution) in pixels; each side 1..65536. Errors: DR_INVALID. */
DR_MUST_USE dr_status dr_resolution_parse(const char *text, dr_size_px *out);

/*
 * Checks the options and rounds min_px down and max_px up to the steps (with a warning). Errors:
 * DR_INVALID for a resolution or steps not divisible by 64 and for limits that exclude the
 * resolution; *o is then unchanged.
 */
DR_MUST_USE dr_status dr_bucket_options_validate(dr_bucket_options *o);

typedef struct dr_bucket_set { /* everything dr_bucket_fit_image needs; sizes live in the arena */
    dr_bucket_options options;
    const dr_size_px *sizes; /* predefined sizes, ascending by (w, h); none with no_upscale */
    size_t n;
} dr_bucket_set;
/* Builds the list for validated options. */
void dr_bucket_set_build(dr_bucket_set *set, const dr_bucket_options *o, dr_arena *arena);

typedef struct dr_bucket_fit {
    dr_size_px bucket;      /* the size that is trained                              */
    dr_size_px resized;     /* the picture is resized to this; covers the bucket     */
    int32_t crop_x, crop_y; /* left, top of the bucket inside the resized picture    */
    double aspect_error;    /* |bucket w/h - picture w/h|                            */
} dr_bucket_fit;
/*
 * The bucket of a picture of w x h >= 1 x 1 pixels. Errors: DR_FORMAT when it cannot be used: with
 * no_upscale a side shorter than one step, otherwise an aspect ratio so extreme that the resized
 * picture would exceed 65500 pixels on a side. The message starts with the picture's size.
 */
DR_MUST_USE dr_status dr_bucket_fit_image(const dr_bucket_set *set, dr_size_px image,
                                          dr_bucket_fit *out);

#endif
