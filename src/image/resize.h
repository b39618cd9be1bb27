/*
 * image/resize.h - scaling, cropping and conversion to the network's input range.
 *
 * Layer:    image.
 * Threads:  no shared state, no threads inside: the caller works on many pictures at once.
 * Errors:   DR_NOMEM. Sizes out of range are broken contracts.
 *
 * dst is overwritten, never read, and owned by the caller afterwards; it may not be src.
 */
#ifndef DR_IMAGE_RESIZE_H
#define DR_IMAGE_RESIZE_H

#include "image/image.h"

typedef enum dr_resize_filter {
    DR_RESIZE_AUTO,    /* sd-scripts' choice: AREA when neither side grows, LANCZOS otherwise */
    DR_RESIZE_AREA,    /* OpenCV's INTER_AREA, bit for bit; neither side may grow */
    DR_RESIZE_LANCZOS, /* Pillow's LANCZOS (a = 3), bit for bit; see below */
    DR_RESIZE_FILTERS
} dr_resize_filter;

/* "auto", "area", ...: the names of --resize_interpolation. */
const char *dr_resize_filter_name(dr_resize_filter filter);

/*
 * Scales src to width x height (>= 1 each); the same size is a copy.
 *
 * AREA equals cv2.resize(..., INTER_AREA) of x86-64 builds (checked: 4.8.1 and 5.0.0).
 * LANCZOS equals Image.resize(..., LANCZOS): horizontal pass, rounding to 8 bits, vertical pass.
 * Pillow 13 swaps the passes where height shrinks by more than twice what width does; no picture
 * that dr_resize_auto sends there shrinks at all.
 */
DR_MUST_USE dr_status dr_image_resize(const dr_image *src, int width, int height,
                                      dr_resize_filter filter, dr_image *dst);

/* The width x height window of src whose top left corner is (x, y); it must lie inside. */
DR_MUST_USE dr_status dr_image_crop(const dr_image *src, int x, int y, int width, int height,
                                    dr_image *dst);

/* Mirrors left and right, in place. */
void dr_image_flip(dr_image *img);

/* Network input, nhwc: (height, width, 3) floats in [-1, 1], (v/255 - 0.5) / 0.5 in f32 as
 * torchvision's ToTensor and Normalize compute it. flip: mirrored left and right. */
void dr_image_to_f32(const dr_image *img, float *nhwc, bool flip);

#endif
