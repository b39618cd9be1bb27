/*
 * image/recolor.h - small changes of colour, as sd-scripts' colour augmentation makes them.
 *
 * Layer:    image.
 * Source:   OpenCV's 8-bit BGR to HSV and back, to which sd-scripts gives RGB; NumPy's power.
 *           tests/interop/data_peers.py compares with both.
 */
#ifndef DR_IMAGE_RECOLOR_H
#define DR_IMAGE_RECOLOR_H

#include "image/image.h"

/* Turns the hue by `shift` of OpenCV's 180 units (0..180), in place. */
void dr_image_shift_hue(dr_image *img, double shift);
/* Every value to the power of gamma, at most 255, fraction cut off, in place. */
void dr_image_power(dr_image *img, double gamma);

#endif
