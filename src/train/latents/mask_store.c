#include "train/latents/mask_store.h"

#include "base/arena.h"

#include <math.h>
#include <stdlib.h>

enum { FACTOR = 8 }; /* pixels of one latent pixel on a side */

struct dr_mask_store {
    const dr_dataset *dataset;
    uint16_t **kept; /* (images): in units of 1 / DR_MASK_ONE, not mirrored; NULL: not kept */
    size_t bytes, max_bytes;
};

dr_mask_store *dr_mask_store_create(const dr_dataset *dataset, size_t max_bytes)
{
    dr_mask_store *s = dr_xcalloc(1, sizeof *s);
    *s = (dr_mask_store){.dataset = dataset, .max_bytes = max_bytes};
    s->kept = dr_xcalloc(dataset->n_images, sizeof *s->kept);
    return s;
}

void dr_mask_store_destroy(dr_mask_store *s)
{
    if (s == NULL) {
        return;
    }
    for (size_t i = 0; i < s->dataset->n_images; i++) {
        free(s->kept[i]);
    }
    free((void *)s->kept);
    free(s);
}

static bool is_cut_alike(const dr_dataset_image *im)
{
    return im->options == NULL || !(im->options->random_crop || im->options->face_most > 0.0);
}

static void keep(dr_mask_store *s, size_t image, const float *mask, size_t n)
{
    void *copy = NULL;
    if (s->max_bytes - s->bytes < n * sizeof(uint16_t) ||
        dr_try_calloc(n, sizeof(uint16_t), &copy) != DR_OK) {
        dr_error_clear(); /* no memory: it is made again, that is all */
        return;
    }
    s->kept[image] = copy;
    s->bytes += n * sizeof(uint16_t);
    for (size_t i = 0; i < n; i++) {
        s->kept[image][i] = (uint16_t)lrintf(mask[i] * (float)DR_MASK_ONE);
    }
}

static void copy_out(const uint16_t *kept, int w, int h, bool flip, float *out)
{
    for (int y = 0; y < h; y++) {
        for (int x = 0; x < w; x++) {
            out[y * w + (flip ? w - 1 - x : x)] = (float)kept[y * w + x] / (float)DR_MASK_ONE;
        }
    }
}

dr_status dr_mask_store_get(dr_mask_store *s, size_t image, const dr_sample_use *use, float *out)
{
    const dr_dataset_image *im = &s->dataset->images[image];
    const int w = im->fit.bucket.w / FACTOR;
    const int h = im->fit.bucket.h / FACTOR;
    if (!dr_mask_is_used(im) || !is_cut_alike(im)) {
        return dr_mask_load(im, use, use->flip, out);
    }
    if (s->kept[image] == NULL) {
        DR_TRY(dr_mask_load(im, NULL, false, out));
        keep(s, image, out, (size_t)w * (size_t)h);
        if (s->kept[image] == NULL) {
            return use->flip ? dr_mask_load(im, NULL, true, out) : DR_OK;
        }
    }
    copy_out(s->kept[image], w, h, use->flip, out);
    return DR_OK;
}

size_t dr_mask_store_bytes(const dr_mask_store *s)
{
    return s->bytes;
}
