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
            out[y * w + (flip ? w - 1 - x : x)] = (float)sum / (255.0f * FACTOR * FACTOR);
        }
    }
}

dr_status dr_mask_load(const dr_dataset_image *image, const dr_sample_use *use, bool flip,
                       float *out)
{
    const dr_bucket_fit *fit = &image->fit;
    const dr_picture_options *how = image->picture != NULL ? image->picture : &dr_picture_defaults;
    dr_cut cut = {fit->resized, fit->crop_x, fit->crop_y};
    if (image->mask == NULL) {
        int32_t n = fit->bucket.w / FACTOR * (fit->bucket.h / FACTOR);
        for (int32_t i = 0; i < n; i++) {
            out[i] = 1.0f;
        }
        return DR_OK;
    }
    if (use != NULL) {
        DR_TRY(dr_cut_choose(image, use, &cut));
    }
    dr_image loaded = {0};
    dr_image resized = {0};
    dr_image cropped = {0};
    dr_status st = DR_OK;
    DR_TRY_GOTO(dr_image_load(image->mask, &how->decode, &loaded), st, done);
    if (loaded.width != image->size.w || loaded.height != image->size.h) {
        st = dr_error_set(DR_FORMAT, __FILE__, __LINE__,
                          "%s: the mask is %dx%d pixels, its picture %s is %dx%d", image->mask,
                          loaded.width, loaded.height, image->path, image->size.w, image->size.h);
        goto done;
    }
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
