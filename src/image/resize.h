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

/* Each equals the named peer bit for bit. */
typedef enum dr_resize_filter {
    DR_RESIZE_AUTO,    /* sd-scripts' choice: AREA when neither side grows, LANCZOS otherwise */
    DR_RESIZE_AREA,    /* OpenCV's INTER_AREA */
    DR_RESIZE_LANCZOS, /* Pillow's LANCZOS (a = 3) */
    DR_RESIZE_BOX,     /* Pillow's BOX */
    DR_RESIZE_NEAREST, /* OpenCV's INTER_NEAREST_EXACT */
    DR_RESIZE_LINEAR,  /* OpenCV's INTER_LINEAR; does not smooth when shrinking */
    DR_RESIZE_CUBIC,   /* OpenCV's INTER_CUBIC; likewise */
    DR_RESIZE_FILTERS
} dr_resize_filter;

/* "auto", "area", "lanczos", "box", "nearest", "linear", "cubic". */
const char *dr_resize_filter_name(dr_resize_filter filter);
/* A name of --resize_interpolation: those above, and bilinear and bicubic. false: none of them. */
bool dr_resize_filter_parse(const char *name, dr_resize_filter *out);

/*
 * Scales src to width x height (>= 1 each); the same size is a copy.
 *
 * OpenCV: cv2.resize of x86-64 builds, checked with 4.10.0 (which sd-scripts names) and 5.0.0. Two
 * differ: CUBIC is OpenCV's own code; wheels for x86 may call Intel's IPP instead, which differs by
 * 1 of 255 in some samples (OPENCV_IPP=disabled makes them equal). NEAREST is that of 4.10; 5.0.0
 * rounds a position that falls exactly between two pixels otherwise.
 * Pillow: Image.resize of Pillow 13, which begins with the vertical pass where height shrinks by
 * more than twice what width does; older versions always begin with the horizontal one. AUTO is not
 * concerned: what it gives to LANCZOS does not shrink.
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
