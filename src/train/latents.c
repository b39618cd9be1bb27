#include "train/latents.h"

#include "base/log.h"
#include "base/philox.h"
#include "data/batch.h"
#include "train/latents_cache.h"
#include "train/vae_encoder.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CHANNELS = 4, FACTOR = 8 };

struct dr_latents {
    dr_latents_config c;
    dr_vae_encoder vae; /* open unless cached */
    float scale;
    float **cached; /* (images * sides): (h,w,4) unscaled, or NULL */
    size_t n_cached, cached_bytes;
    float *pixels, *noise; /* scratch of one picture */
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

static size_t latent_elems(const dr_latents *l, size_t image)
{
    int64_t h, w;
    dr_latents_size(l, image, &h, &w);
    return (size_t)(h * w * CHANNELS);
}

static dr_status check_finite(const dr_latents *l, size_t image, const float *v)
{
    for (size_t i = 0; i < latent_elems(l, image); i++) {
        if (!isfinite(v[i])) {
            DR_FAIL(DR_NUMERIC, "%s: the VAE gave a latent that is not finite",
                    l->c.dataset->images[image].path);
        }
    }
    return DR_OK;
}

/* One picture through the VAE, unscaled (h,w,4), with the posterior noise of the stream. */
static dr_status encode(dr_latents *l, size_t image, bool flip, dr_philox *stream, float *out)
{
    int64_t h, w;
    dr_latents_size(l, image, &h, &w);
    size_t n = latent_elems(l, image);
    l->pixels = dr_xrealloc(l->pixels, (size_t)(h * w * FACTOR * FACTOR * 3), sizeof(float));
    l->noise = dr_xrealloc(l->noise, n, sizeof(float));
    DR_TRY(dr_sample_pixels(&l->c.dataset->images[image], flip, l->pixels));
    dr_philox_normal(stream, l->noise, n);
    DR_TRY(dr_vae_encoder_run(&l->vae, 1, h * FACTOR, w * FACTOR, l->pixels, l->noise, out));
    return check_finite(l, image, out);
}

static dr_status encode_for_cache(void *user, size_t entry, dr_xxh3 key, float *out)
{
    dr_latents *l = user;
    dr_philox stream;
    dr_philox_init(&stream, key.high, DR_RANDOM_VAE, 0, key.low);
    return encode(l, entry / n_sides(l), entry % n_sides(l) == 1, &stream, out);
}

static dr_status fill(dr_dist *d, dr_latents *l)
{
    l->n_cached = l->c.dataset->n_images * n_sides(l);
    l->cached = dr_xcalloc(l->n_cached, sizeof *l->cached);
    for (size_t i = 0; i < l->n_cached; i++) {
        size_t n = latent_elems(l, i / n_sides(l));
        DR_TRY(dr_try_calloc(n, sizeof(float), (void **)&l->cached[i]));
        l->cached_bytes += n * sizeof(float);
    }
    DR_TRY(dr_latents_cache_fill(d, &(dr_latents_fill){.dataset = l->c.dataset,
                                                       .n_sides = n_sides(l),
                                                       .vae_hash = l->c.vae_hash,
                                                       .cache_dir = l->c.cache_dir,
                                                       .latents = l->cached,
                                                       .encode = encode_for_cache,
                                                       .user = l}));
    dr_vae_encoder_close(&l->vae);
    return DR_OK;
}

dr_status dr_latents_create(dr_dist *d, const dr_latents_config *c, dr_latents **out)
{
    dr_latents *l = dr_xcalloc(1, sizeof *l);
    l->c = *c;
    dr_status st = dr_vae_encoder_open(&l->vae, c->backend, c->threads, c->file);
    st = dr_dist_agree(d, st);
    if (st == DR_OK) {
        l->scale = (float)dr_autoencoder_scale(&l->vae.ae);
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
    for (size_t i = 0; i < l->n_cached; i++) {
        free(l->cached[i]);
    }
    free(l->cached);
    free(l->pixels);
    free(l->noise);
    free(l);
}

dr_status dr_latents_get(dr_latents *l, size_t image, uint32_t epoch, uint64_t sample, float *out)
{
    dr_philox stream;
    bool flip = false;
    if (l->c.flip) {
        dr_philox_init(&stream, l->c.seed, DR_RANDOM_FLIP, epoch, sample);
        flip = dr_philox_uniform(&stream) < 0.5f;
    }
    size_t n = latent_elems(l, image);
    if (l->cached != NULL) {
        memcpy(out, l->cached[image * n_sides(l) + (flip ? 1 : 0)], n * sizeof(float));
    } else {
        dr_philox_init(&stream, l->c.seed, DR_RANDOM_VAE, epoch, sample);
        DR_TRY(encode(l, image, flip, &stream, out));
    }
    for (size_t i = 0; i < n; i++) {
        out[i] *= l->scale;
    }
    return DR_OK;
}

size_t dr_latents_bytes(const dr_latents *l)
{
    return l->cached_bytes + (l->vae.backend != NULL ? dr_vae_encoder_bytes(&l->vae) : 0);
}
