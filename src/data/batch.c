#include "data/batch.h"

#include "image/recolor.h"

static dr_status check_size(const dr_dataset_image *image, const dr_image *loaded)
{
    if (loaded->width != image->size.w || loaded->height != image->size.h) {
        DR_FAIL(DR_FORMAT,
                "%s: the picture is %dx%d pixels, but was %dx%d when training started; do not "
                "change pictures while training",
                image->path, loaded->width, loaded->height, image->size.w, image->size.h);
    }
    return DR_OK;
}

static void recolor(const dr_recolor *r, dr_image *image)
{
    if (r->hue_shift > 0.0) {
        dr_image_shift_hue(image, r->hue_shift);
    }
    if (r->gamma < 1.0 || r->gamma > 1.0) {
        dr_image_power(image, r->gamma);
    }
}

static dr_status load(const dr_dataset_image *image, const dr_cut *cut, const dr_recolor *colors,
                      bool flip, float *nhwc)
{
    const dr_size_px bucket = image->fit.bucket;
    const dr_picture_options *how = image->picture != NULL ? image->picture : &dr_picture_defaults;
    dr_image loaded = {0};
    dr_image resized = {0};
    dr_image cropped = {0};
    dr_status st = DR_OK;
    DR_TRY_GOTO(dr_image_load(image->path, &how->decode, &loaded), st, done);
    DR_TRY_GOTO(check_size(image, &loaded), st, done);
    DR_TRY_GOTO(dr_image_resize(&loaded, cut->resized.w, cut->resized.h, how->resizing, &resized),
                st, done);
    DR_TRY_GOTO(dr_image_crop(&resized, cut->x, cut->y, bucket.w, bucket.h, &cropped), st, done);
    recolor(colors, &cropped);
    dr_image_to_f32(&cropped, nhwc, flip);
done:
    dr_image_free(&loaded);
    dr_image_free(&resized);
    dr_image_free(&cropped);
    return st;
}

dr_status dr_sample_pixels_of(const dr_dataset_image *image, const dr_sample_use *use, float *nhwc)
{
    dr_cut cut;
    dr_recolor colors = {.gamma = 1.0};
    DR_TRY(dr_cut_choose(image, use, &cut));
    if (image->options != NULL && image->options->color_aug) {
        colors = dr_recolor_choose(use);
    }
    return load(image, &cut, &colors, use->flip, nhwc);
}

dr_status dr_sample_pixels(const dr_dataset_image *image, bool flip, float *nhwc)
{
    const dr_cut cut = {image->fit.resized, image->fit.crop_x, image->fit.crop_y};
    return load(image, &cut, &(dr_recolor){.gamma = 1.0}, flip, nhwc);
}
