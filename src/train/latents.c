#include "train/latents.h"

#include "base/log.h"
#include "base/philox.h"
#include "data/batch.h"
#include "train/latents_cache.h"
#include "train/vae_encoder.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CHANNELS = 4, MOMENTS = 8, FACTOR = 8 };

struct dr_latents {
    dr_latents_config c;
    dr_vae_encoder vae; /* open unless cached */
    dr_posterior posterior;
    float scale;
    int64_t vae_channels;      /* of what the VAE gives: 8, or 4 without a posterior */
    dr_cached_latents *cached; /* NULL: not cached */
    float *pixels;             /* scratch: a batch */
    float *moments, *noise;    /* scratch: one picture */
};

static size_t n_sides(const dr_latents *l)
{
    return l->c.flip ? 2 : 1;
}

void dr_latents_size(const dr_latents *l, size_t image, int64_t *h, int64_t *w)
{
    const dr_dataset *ds = l->c.dataset;
    *w = ds->buckets[ds->images[image].bucket].size.w / FACTOR;
    *h = ds->buckets[ds->images[image].bucket].size.h / FACTOR;
}

/* Elements of one channel of the picture's latent. */
static size_t plane(const dr_latents *l, size_t image)
{
    int64_t h, w;
    dr_latents_size(l, image, &h, &w);
    return (size_t)(h * w);
}

static dr_status check_finite(const dr_latents *l, size_t image, const float *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(v[i])) {
            DR_FAIL(DR_NUMERIC, "%s: the VAE gave a latent that is not finite",
                    l->c.dataset->images[image].path);
        }
    }
    return DR_OK;
}

/* Pictures of one bucket (entries: image * n_sides + side) through the VAE. */
static dr_status encode(dr_latents *l, dr_encode_batch b, float *out)
{
    int64_t h, w;
    size_t first = b.entries[0] / n_sides(l);
    dr_latents_size(l, first, &h, &w);
    size_t n_pixels = (size_t)(h * w * FACTOR * FACTOR * 3);
    size_t n_values = (size_t)(h * w * l->vae_channels);
    l->pixels = dr_xrealloc(l->pixels, b.n * n_pixels, sizeof(float));
    for (uint32_t i = 0; i < b.n; i++) {
        const dr_dataset_image *im = &l->c.dataset->images[b.entries[i] / n_sides(l)];
        DR_TRY(dr_sample_pixels(im, b.entries[i] % n_sides(l) == 1, l->pixels + i * n_pixels));
    }
    DR_TRY(dr_vae_encoder_run(&l->vae, b.n, h * FACTOR, w * FACTOR, l->pixels, out));
    for (uint32_t i = 0; i < b.n; i++) {
        DR_TRY(check_finite(l, b.entries[i] / n_sides(l), out + i * n_values, n_values));
    }
    return DR_OK;
}

/* A latent (h,w,4) from values of that many channels; the stream gives the posterior's noise. */
static dr_status draw(dr_latents *l, size_t image, const float *values, int64_t channels,
                      dr_philox *stream, float *out)
{
    int64_t h, w;
    dr_latents_size(l, image, &h, &w);
    size_t n = plane(l, image) * CHANNELS;
    if (channels == CHANNELS) {
        memcpy(out, values, n * sizeof *out);
        return DR_OK;
    }
    l->noise = dr_xrealloc(l->noise, n, sizeof(float));
    dr_philox_normal(stream, l->noise, n);
    return dr_posterior_draw(&l->posterior, h, w, values, l->noise, out);
}

/* For the cache: moments as they are, or one draw for all uses, keyed by the entry's key. */
static dr_status encode_for_cache(void *user, dr_encode_batch b, const dr_xxh3 *keys, float *out)
{
    dr_latents *l = user;
    if (!l->c.keep_draw) {
        return encode(l, b, out);
    }
    size_t image = b.entries[0] / n_sides(l);
    size_t n = plane(l, image);
    float *values = dr_xcalloc(b.n * n * MOMENTS, sizeof *values);
    dr_status st = encode(l, b, values);
    for (uint32_t i = 0; st == DR_OK && i < b.n; i++) {
        dr_philox stream;
        dr_philox_init(&stream, keys[i].high, DR_RANDOM_VAE, 0, keys[i].low);
        st = draw(l, image, values + i * n * (size_t)l->vae_channels, l->vae_channels, &stream,
                  out + i * n * CHANNELS);
    }
    free(values);
    return st;
}

static dr_status fill(dr_dist *d, dr_latents *l)
{
    bool moments = !l->c.keep_draw && l->vae_channels == MOMENTS;
    DR_TRY(dr_cached_latents_create(d,
                                    &(dr_cached_latents_config){
                                        .dataset = l->c.dataset,
                                        .n_sides = n_sides(l),
                                        .vae_hash = l->c.vae_hash,
                                        .cache_dir = l->c.cache_dir,
                                        .kind = moments ? "moments" : "latent",
                                        .channels = moments ? MOMENTS : CHANNELS,
                                        .stored = l->c.stored,
                                        .batch = l->c.vae_batch,
                                        .fill_only = l->c.fill_only,
                                        .encode = encode_for_cache,
                                        .user = l,
                                    },
                                    &l->cached));
    dr_vae_encoder_close(&l->vae);
    free(l->pixels);
    l->pixels = NULL;
    return DR_OK;
}

dr_status dr_latents_create(dr_dist *d, const dr_latents_config *c, dr_latents **out)
{
    dr_latents *l = dr_xcalloc(1, sizeof *l);
    l->c = *c;
    l->posterior = (dr_posterior){.backend = c->backend, .threads = c->threads};
    dr_status st = dr_vae_encoder_open(&l->vae, c->backend, c->threads, c->file);
    st = dr_dist_agree(d, st);
    if (st == DR_OK) {
        l->scale = (float)dr_autoencoder_scale(&l->vae.ae);
        l->vae_channels = dr_autoencoder_moment_channels(&l->vae.ae);
        st = c->cached ? fill(d, l) : DR_OK;
    }
    if (st != DR_OK) {
        dr_latents_destroy(l);
        return st;
    }
    *out = l;
    return DR_OK;
}

void dr_latents_destroy(dr_latents *l)
{
    if (l == NULL) {
        return;
    }
    dr_vae_encoder_close(&l->vae);
    dr_posterior_deinit(&l->posterior);
    dr_cached_latents_destroy(l->cached);
    free(l->pixels);
    free(l->moments);
    free(l->noise);
    free(l);
}

dr_status dr_latents_get(dr_latents *l, size_t image, uint32_t epoch, uint64_t sample, float *out)
{
    dr_philox stream;
    bool flip = false;
    const dr_dataset *ds = l->c.dataset;
    if (l->c.flip && ds->subsets[ds->images[image].subset].options->flip_aug) {
        dr_philox_init(&stream, l->c.seed, DR_RANDOM_FLIP, epoch, sample);
        flip = dr_philox_uniform(&stream) < 0.5f;
    }
    size_t n = plane(l, image) * CHANNELS;
    uint32_t entry = (uint32_t)(image * n_sides(l) + (flip ? 1 : 0));
    int64_t channels = l->vae_channels;
    l->moments = dr_xrealloc(l->moments, plane(l, image) * MOMENTS, sizeof(float));
    if (l->cached != NULL) {
        DR_TRY(dr_cached_latents_read(l->cached, entry, l->moments, &channels));
    } else {
        DR_TRY(encode(l, (dr_encode_batch){&entry, 1}, l->moments));
    }
    dr_philox_init(&stream, l->c.seed, DR_RANDOM_VAE, epoch, sample);
    DR_TRY(draw(l, image, l->moments, channels, &stream, out));
    for (size_t i = 0; i < n; i++) {
        out[i] *= l->scale;
    }
    return DR_OK;
}

size_t dr_latents_bytes(const dr_latents *l)
{
    return (l->cached != NULL ? dr_cached_latents_bytes(l->cached) : 0) +
           (l->vae.backend != NULL ? dr_vae_encoder_bytes(&l->vae) : 0);
}
