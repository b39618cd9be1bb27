#include "image/resize.h"

#include "image/image_internal.h"

#include <string.h>

static void check_image(const dr_image *img)
{
    DR_CHECK(img->pixels != NULL && img->channels == 3 && img->width >= 1 && img->height >= 1,
             "image of %d x %d x %d", img->width, img->height, img->channels);
}

const char *dr_resize_filter_name(dr_resize_filter filter)
{
    static const char *const names[DR_RESIZE_FILTERS] = {"auto",    "area",   "lanczos", "box",
                                                         "nearest", "linear", "cubic"};
    DR_CHECK(filter >= 0 && filter < DR_RESIZE_FILTERS, "filter %d", (int)filter);
    return names[filter];
}

bool dr_resize_filter_parse(const char *name, dr_resize_filter *out)
{
    name = strcmp(name, "bilinear") == 0 ? "linear" : strcmp(name, "bicubic") == 0 ? "cubic" : name;
    for (int i = 0; i < DR_RESIZE_FILTERS; i++) {
        if (strcmp(name, dr_resize_filter_name((dr_resize_filter)i)) == 0) {
            *out = (dr_resize_filter)i;
            return true;
        }
    }
    return false;
}

static dr_status resample(const dr_image *src, dr_resize_filter filter, dr_image *dst)
{
    bool shrinks = dst->width <= src->width && dst->height <= src->height;
    switch (filter) {
    case DR_RESIZE_AUTO:
        return shrinks ? dr_resize_area(src, dst) : dr_resize_pillow(src, DR_PILLOW_LANCZOS, dst);
    case DR_RESIZE_AREA:
        return shrinks ? dr_resize_area(src, dst) : dr_resize_cv(src, DR_CV_AREA, dst);
    case DR_RESIZE_LANCZOS:
        return dr_resize_pillow(src, DR_PILLOW_LANCZOS, dst);
    case DR_RESIZE_BOX:
        return dr_resize_pillow(src, DR_PILLOW_BOX, dst);
    case DR_RESIZE_NEAREST:
        return dr_resize_cv(src, DR_CV_NEAREST, dst);
    case DR_RESIZE_CUBIC:
        return dr_resize_cv(src, DR_CV_CUBIC, dst);
    default:
        return dr_resize_cv(src, DR_CV_LINEAR, dst);
    }
}

dr_status dr_image_resize(const dr_image *src, int width, int height, dr_resize_filter filter,
                          dr_image *dst)
{
    check_image(src);
    dr_image out = {0};
    DR_TRY(dr_image_alloc(&out, width, height));
    dr_status st = DR_OK;
    if (width == src->width && height == src->height) {
        memcpy(out.pixels, src->pixels, (size_t)width * (size_t)height * 3);
    } else {
        st = resample(src, filter, &out);
    }
    if (st != DR_OK) {
        dr_image_free(&out);
        return st;
    }
    *dst = out;
    return DR_OK;
}

dr_status dr_image_crop(const dr_image *src, int x, int y, int width, int height, dr_image *dst)
{
    check_image(src);
    DR_CHECK(x >= 0 && y >= 0 && width >= 1 && height >= 1 && width <= src->width - x &&
                 height <= src->height - y,
             "crop of %d x %d at (%d, %d) from %d x %d", width, height, x, y, src->width,
             src->height);
    dr_image out = {0};
    DR_TRY(dr_image_alloc(&out, width, height));
    size_t row = (size_t)width * 3;
    for (int i = 0; i < height; i++) {
        size_t from = ((size_t)(y + i) * (size_t)src->width + (size_t)x) * 3;
        memcpy(out.pixels + (size_t)i * row, src->pixels + from, row);
    }
    *dst = out;
    return DR_OK;
}

void dr_image_flip(dr_image *img)
{
    check_image(img);
    for (int y = 0; y < img->height; y++) {
        unsigned char *left = img->pixels + (size_t)y * (size_t)img->width * 3;
        unsigned char *right = left + (size_t)(img->width - 1) * 3;
        for (; left < right; left += 3, right -= 3) {
            for (int c = 0; c < 3; c++) {
                unsigned char v = left[c];
                left[c] = right[c];
                right[c] = v;
            }
        }
    }
}

void dr_image_to_f32(const dr_image *img, float *nhwc, bool flip)
{
    check_image(img);
    float value[256];
    for (int i = 0; i < 256; i++) {
        value[i] = ((float)i / 255.0f - 0.5f) / 0.5f;
    }
    size_t width = (size_t)img->width;
    for (size_t y = 0; y < (size_t)img->height; y++) {
        const unsigned char *row = img->pixels + y * width * 3;
        float *to = nhwc + y * width * 3;
        for (size_t x = 0; x < width; x++) {
            const unsigned char *p = row + (flip ? width - 1 - x : x) * 3;
            to[x * 3] = value[p[0]];
            to[x * 3 + 1] = value[p[1]];
            to[x * 3 + 2] = value[p[2]];
        }
    }
}
