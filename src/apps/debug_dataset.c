#include "apps/debug_dataset.h"

#include "base/arena.h"
#include "base/log.h"
#include "base/philox.h"
#include "data/batch.h"
#include "data/epoch_plan.h"
#include "text/tokenizer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Mirrored in this epoch, as train/latents/latents.c decides it. */
static bool is_flipped(const dr_debug_view *v, const dr_sample_ref *ref)
{
    dr_philox stream;
    const dr_dataset_image *im = &v->dataset->images[ref->image];
    if (!v->dataset->subsets[im->subset].options->flip_aug) {
        return false;
    }
    dr_philox_init(&stream, v->c->seed, DR_RANDOM_FLIP, 1, ref->sample);
    return dr_philox_uniform(&stream) < 0.5f;
}

static dr_status load(const dr_dataset_image *im, const dr_sample_use *use, dr_image *img)
{
    int w = im->fit.bucket.w;
    int h = im->fit.bucket.h;
    size_t n = (size_t)w * (size_t)h * 3;
    float *pixels = dr_xcalloc(n, sizeof *pixels);
    dr_status st = dr_sample_pixels_of(im, use, pixels);
    if (st == DR_OK) {
        st = dr_image_alloc(img, w, h);
    }
    for (size_t i = 0; st == DR_OK && i < n; i++) {
        img->pixels[i] = (unsigned char)lrintf((pixels[i] * 0.5f + 0.5f) * 255.0f);
    }
    free(pixels);
    return st;
}

dr_status dr_debug_sample(const dr_debug_view *v, uint32_t i, dr_image *img, dr_str *text)
{
    const dr_sample_ref *ref = &v->plan->samples[i];
    const dr_dataset_image *im = &v->dataset->images[ref->image];
    bool flip = is_flipped(v, ref);
    size_t n_tokens = 0;
    dr_str caption = {0};
    const dr_sample_use use = {v->c->seed, 1, ref->sample, flip};
    DR_TRY(load(im, &use, img));
    dr_caption_process(
        &v->dataset->subsets[im->subset].options->captions, im->caption,
        &(dr_caption_use){
            .seed = v->c->seed, .epoch = 1, .sample = ref->sample, .n_steps = v->c->max_steps},
        &caption);
    dr_tokenizer *t = dr_tokenizer_create(v->c->model.v2 ? DR_TOKENIZER_SD2 : DR_TOKENIZER_SD1);
    dr_status st = dr_tokenizer_encode(t, dr_str_get(&caption), caption.len, NULL, 0, &n_tokens);
    dr_tokenizer_destroy(t);
    dr_str_printf(text, "%s\n%dx%d -> %dx%d at %d,%d%s%s, repeat %lu\n%s (%zu tokens)", im->path,
                  (int)im->size.w, (int)im->size.h, (int)im->fit.bucket.w, (int)im->fit.bucket.h,
                  (int)im->fit.crop_x, (int)im->fit.crop_y, flip ? ", mirrored" : "",
                  im->is_reg ? ", regularisation" : "", (unsigned long)ref->repeat + 1,
                  caption.len > 0 ? dr_str_get(&caption) : "[no caption]", n_tokens);
    dr_str_free(&caption);
    if (st != DR_OK) {
        dr_image_free(img);
    }
    return st;
}

dr_status dr_debug_dataset(const dr_train_config *c)
{
    dr_arena arena;
    dr_dataset dataset = {0};
    dr_epoch_plan plan = {0};
    dr_str text = {0};
    dr_arena_init(&arena);
    dr_status st = dr_dataset_open(&arena, &c->data, &dataset);
    if (st == DR_OK) {
        dr_dataset_summary(&dataset, &text);
        dr_info("%s", dr_str_get(&text));
        st = dr_epoch_plan_build(&plan, &dataset,
                                 &(dr_epoch_plan_options){.seed = c->seed,
                                                          .epoch = 1,
                                                          .batch_size = c->batch_size,
                                                          .n_leaves = (uint32_t)c->accumulation});
    }
    const dr_debug_view v = {c, &dataset, &plan};
    if (st == DR_OK) {
        st = dr_debug_has_terminal() ? dr_debug_page(&v) : dr_debug_sheet(&v);
    }
    dr_str_free(&text);
    dr_epoch_plan_deinit(&plan);
    dr_arena_deinit(&arena);
    return st;
}
