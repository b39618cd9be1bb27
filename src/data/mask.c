#include "data/mask.h"

#include "base/file.h"
#include "data/folders_internal.h"
#include "image/image.h"

#include <stdlib.h>
#include <string.h>

enum { FACTOR = 8 }; /* pixels of one latent pixel on a side */

dr_status dr_mask_find(dr_arena *arena, const char *dir, const char *image_path, const char **out)
{
    static const char *const endings[] = {".png", ".jpg", ".jpeg", ".webp", ".bmp",
                                          ".PNG", ".JPG", ".JPEG", ".WEBP", ".BMP"};
    const char *name = dr_path_base(image_path);
    const char *dot = strrchr(name, '.');
    int stem = (int)(dot != NULL ? (size_t)(dot - name) : strlen(name));
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        char *path = dr_arena_printf(arena, "%s/%.*s%s", dir, stem, name, endings[i]);
        if (dr_folders_is_file(path)) {
            *out = path;
            return DR_OK;
        }
    }
    DR_FAIL(DR_FORMAT, "%s: no mask picture %.*s.png (.jpg, .webp, .bmp) in %s", image_path, stem,
            name, dir);
}

/* The red channel, averaged over blocks. */
static void average(const dr_image *mask, bool flip, float *out)
{
    const int w = mask->width / FACTOR;
    const int h = mask->height / FACTOR;
    for (int y = 0; y < h; y++) {
        for (int x = 0; x < w; x++) {
            int sum = 0;
            for (int i = 0; i < FACTOR * FACTOR; i++) {
                size_t row = (size_t)(y * FACTOR + i / FACTOR);
                size_t column = (size_t)(x * FACTOR + i % FACTOR);
                sum += mask->pixels[3 * (row * (size_t)mask->width + column)];
            }
            out[y * w + (flip ? w - 1 - x : x)] = (float)sum / (float)DR_MASK_ONE;
        }
    }
}

bool dr_mask_is_used(const dr_dataset_image *image)
{
    return image->mask != NULL || (image->options != NULL && image->options->alpha_mask);
}

static void fill_ones(const dr_dataset_image *image, float *out)
{
    int32_t n = image->fit.bucket.w / FACTOR * (image->fit.bucket.h / FACTOR);
    for (int32_t i = 0; i < n; i++) {
        out[i] = 1.0f;
    }
}

/* The mask in the picture's own size: its mask picture, or its alpha as gray; empty where a picture
 * has none. */
static dr_status load_source(const dr_dataset_image *image, const dr_image_options *decode,
                             dr_image *out)
{
    if (image->mask != NULL) {
        return dr_image_load(image->mask, decode, out);
    }
    unsigned char *alpha = NULL;
    DR_TRY(dr_image_load_alpha(image->path, decode, out, &alpha));
    if (alpha == NULL) {
        dr_image_free(out);
        return DR_OK;
    }
    size_t n = (size_t)out->width * (size_t)out->height;
    for (size_t i = 0; i < n; i++) {
        memset(out->pixels + 3 * i, alpha[i], 3);
    }
    free(alpha);
    return DR_OK;
}

static dr_status check_size(const dr_dataset_image *image, const dr_image *loaded)
{
    if (loaded->width != image->size.w || loaded->height != image->size.h) {
        DR_FAIL(DR_FORMAT, "%s: the mask is %dx%d pixels, its picture %s is %dx%d",
                image->mask != NULL ? image->mask : "alpha channel", loaded->width, loaded->height,
                image->path, image->size.w, image->size.h);
    }
    return DR_OK;
}

dr_status dr_mask_load(const dr_dataset_image *image, const dr_sample_use *use, bool flip,
                       float *out)
{
    const dr_bucket_fit *fit = &image->fit;
    const dr_picture_options *how = image->picture != NULL ? image->picture : &dr_picture_defaults;
    dr_cut cut = {fit->resized, fit->crop_x, fit->crop_y};
    fill_ones(image, out);
    if (!dr_mask_is_used(image)) {
        return DR_OK;
    }
    if (use != NULL) {
        DR_TRY(dr_cut_choose(image, use, &cut));
    }
    dr_image loaded = {0};
    dr_image resized = {0};
    dr_image cropped = {0};
    dr_status st = DR_OK;
    DR_TRY_GOTO(load_source(image, &how->decode, &loaded), st, done);
    if (loaded.pixels == NULL) {
        goto done;
    }
    DR_TRY_GOTO(check_size(image, &loaded), st, done);
    DR_TRY_GOTO(dr_image_resize(&loaded, cut.resized.w, cut.resized.h, how->resizing, &resized), st,
                done);
    DR_TRY_GOTO(dr_image_crop(&resized, cut.x, cut.y, fit->bucket.w, fit->bucket.h, &cropped), st,
                done);
    average(&cropped, flip, out);
done:
    dr_image_free(&loaded);
    dr_image_free(&resized);
    dr_image_free(&cropped);
    return st;
}
