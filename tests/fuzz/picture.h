/*
 * tests/fuzz/picture.h - decodes an input as a picture in every way there is.
 */
#ifndef DR_TESTS_FUZZ_PICTURE_H
#define DR_TESTS_FUZZ_PICTURE_H

#include "fuzz.h"

#include "image/image.h"

/* The content decides on the format; 2^18 pixels at most, so that a run stays short. */
static inline int fuzz_picture(const uint8_t *data, size_t size)
{
    static const dr_image_options ways[] = {
        {.max_pixels = 1 << 18, .background = {255, 0, 1}},
        {.max_pixels = 1 << 18, .as_pillow = true},
    };
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        dr_image img;
        if (dr_image_decode("input", data, size, &ways[i], &img) == DR_OK) {
            dr_fuzz_touch(img.pixels, (size_t)img.width * (size_t)img.height * 3);
        }
        DR_CHECK(img.pixels != NULL || img.width == 0, "an image of %d columns and no pixels",
                 img.width);
        dr_image_free(&img);
    }
    return 0;
}

#endif
