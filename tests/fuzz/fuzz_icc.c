/* Colour profiles, on small pictures of every layout that they may stand in. */
#include "fuzz.h"

#include "image/image_internal.h"

static void convert(const uint8_t *profile, size_t size, dr_colours colours, bool alpha, int bits)
{
    dr_raster r = {0};
    dr_image img = {0};
    const dr_image_info info = {.width = 5, .height = 3};
    dr_status st = dr_raster_alloc(&r, &info, colours, alpha, bits);
    if (st == DR_OK) {
        st = dr_raster_set_icc(&r, profile, size);
    }
    if (st == DR_OK) {
        st = dr_raster_finish(&r, 1, &dr_image_defaults, &img, NULL);
    }
    if (st == DR_OK) {
        dr_fuzz_touch(img.pixels, 5 * 3 * 3);
    }
    dr_image_free(&img);
    dr_raster_free(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    convert(data, size, DR_GRAY, false, 8);
    convert(data, size, DR_GRAY, true, 16);
    convert(data, size, DR_RGB, false, 8);
    convert(data, size, DR_RGB, true, 16);
    convert(data, size, DR_CMYK, false, 8);
    return 0;
}
