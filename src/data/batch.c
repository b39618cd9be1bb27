#include "data/batch.h"

#include "image/image.h"

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

dr_status dr_sample_pixels(const dr_dataset_image *image, bool flip, float *nhwc)
{
    const dr_bucket_fit *fit = &image->fit;
    const dr_picture_options *how = image->picture != NULL ? image->picture : &dr_picture_defaults;
    dr_image loaded = {0};
    dr_image resized = {0};
    dr_image cropped = {0};
    dr_status st = DR_OK;
    DR_TRY_GOTO(dr_image_load(image->path, &how->decode, &loaded), st, done);
    DR_TRY_GOTO(check_size(image, &loaded), st, done);
    DR_TRY_GOTO(dr_image_resize(&loaded, fit->resized.w, fit->resized.h, how->resizing, &resized),
                st, done);
    DR_TRY_GOTO(
        dr_image_crop(&resized, fit->crop_x, fit->crop_y, fit->bucket.w, fit->bucket.h, &cropped),
        st, done);
    dr_image_to_f32(&cropped, nhwc, flip);
done:
    dr_image_free(&loaded);
    dr_image_free(&resized);
    dr_image_free(&cropped);
    return st;
}
