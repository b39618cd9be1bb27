/*
 * data/picture_options.h - how picture files become pixels.
 *
 * Layer:    data.
 * Everywhere a NULL pointer to these options means dr_picture_defaults. What they point to from
 * outlives the data set.
 */
#ifndef DR_DATA_PICTURE_OPTIONS_H
#define DR_DATA_PICTURE_OPTIONS_H

#include "base/str.h"
#include "image/image.h"
#include "image/resize.h"

typedef struct dr_picture_options {
    dr_image_options decode;   /* --compat, --alpha_color, --max_image_pixels */
    dr_resize_filter resizing; /* --resize_interpolation */
} dr_picture_options;

extern const dr_picture_options dr_picture_defaults;

/* Appends one line that differs for settings that give other pixels: part of the key of cached
 * latents. */
void dr_picture_options_key(const dr_picture_options *o, dr_str *out);

#endif
