#include "train/latents/latents.h"

#include "base/log.h"
#include "base/philox.h"
#include "data/batch.h"
#include "data/prefetch.h"
#include "train/latents/latents_cache.h"
#include "train/latents/vae_encoder.h"
#include "train/watchdog.h"

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
    dr_prefetch *prefetch;     /* pictures that are decoded ahead */
    const uint32_t *expected;  /* while the cache is filled: entries that will be encoded */
    size_t n_expected, expected_at;
    size_t pixel_bytes;     /* of pictures ahead and of scratch memory, while training */
    float *pixels;          /* scratch: a batch */
    float *moments, *noise; /* scratch: one picture */
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

static dr_status load_pixels(void *user, const dr_prefetch_job *job, float *pixels)
{
    const dr_latents *l = user;
    const dr_dataset_image *im = &l->c.dataset->images[job->image];
    return l->c.cached ? dr_sample_pixels(im, job->flip, pixels)
                       : dr_sample_pixels_of(im,
                                             &(dr_sample_use){.seed = l->c.seed,
                                                              .epoch = job->epoch,
                                                              .sample = job->sample,
                                                              .flip = job->flip},
                                             pixels);
}

/* One use of an entry (image * n_sides + side); filling the cache is epoch 0, sample 0. */
static dr_prefetch_job job_of(const dr_latents *l, uint32_t entry, uint32_t epoch, uint64_t sample)
{
    return (dr_prefetch_job){.image = entry / n_sides(l),
                             .flip = entry % n_sides(l) == 1,
                             .epoch = epoch,
                             .sample = sample};
}

static size_t pixel_floats(const dr_latents *l, uint32_t entry)
{
    return plane(l, entry / n_sides(l)) * FACTOR * FACTOR * 3;
}

static bool announce(dr_latents *l, uint32_t entry, uint32_t epoch, uint64_t sample)
{
    dr_prefetch_job job = job_of(l, entry, epoch, sample);
    return dr_prefetch_add(l->prefetch, &job, pixel_floats(l, entry));
}

static void expect(void *user, const uint32_t *entries, size_t n)
{
    dr_latents *l = user;
    l->expected = entries;
    l->n_expected = n;
    l->expected_at = 0;
}

static void announce_expected(dr_latents *l)
{
    while (l->expected_at < l->n_expected && announce(l, l->expected[l->expected_at], 0, 0)) {
        l->expected_at++;
    }
}

/* Pictures of one bucket (entries: image * n_sides + side) through the VAE. */
static dr_status encode(dr_latents *l, dr_encode_batch b, uint32_t epoch, uint64_t sample,
                        float *out)
{
    int64_t h, w;
    size_t first = b.entries[0] / n_sides(l);
    dr_latents_size(l, first, &h, &w);
    size_t n_pixels = (size_t)(h * w * FACTOR * FACTOR * 3);
    size_t n_values = (size_t)(h * w * l->vae_channels);
    l->pixels = dr_xrealloc(l->pixels, b.n * n_pixels, sizeof(float));
    for (uint32_t i = 0; i < b.n; i++) {
        dr_prefetch_job job = job_of(l, b.entries[i], epoch, sample);
        announce_expected(l);
        DR_TRY(dr_prefetch_take(l->prefetch, &job, n_pixels, l->pixels + i * n_pixels));
    }
    announce_expected(l); /* the threads go on while the VAE works */
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
    dr_watchdog_alive();
    if (!l->c.keep_draw) {
        return encode(l, b, 0, 0, out);
    }
    size_t image = b.entries[0] / n_sides(l);
    size_t n = plane(l, image);
    float *values = dr_xcalloc(b.n * n * MOMENTS, sizeof *values);
    dr_status st = encode(l, b, 0, 0, values);
    for (uint32_t i = 0; st == DR_OK && i < b.n; i++) {
        dr_philox stream;
        dr_philox_init(&stream, keys[i].high, DR_RANDOM_VAE, 0, keys[i].low);
        st = draw(l, image, values + i * n * (size_t)l->vae_channels, l->vae_channels, &stream,
                  out + i * n * CHANNELS);
    }
    free(values);
    return st;
}

/* One entry, apart from the work that is dealt: nothing of it is announced. */
static dr_status moments_of(void *user, size_t entry, float *out, int64_t *channels)
{
    dr_latents *l = user;
    size_t image = entry / n_sides(l);
    int64_t h, w;
    dr_latents_size(l, image, &h, &w);
    l->pixels = dr_xrealloc(l->pixels, (size_t)(h * w * FACTOR * FACTOR * 3), sizeof(float));
    DR_TRY(dr_sample_pixels(&l->c.dataset->images[image], entry % n_sides(l) == 1, l->pixels));
    *channels = l->vae_channels;
    DR_TRY(dr_vae_encoder_run(&l->vae, 1, h * FACTOR, w * FACTOR, l->pixels, out));
    return check_finite(l, image, out, (size_t)(h * w * l->vae_channels));
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
                                        .expect = expect,
                                        .encode = encode_for_cache,
                                        .moments = moments_of,
                                        .user = l,
                                    },
                                    &l->cached));
    expect(l, NULL, 0);
    dr_prefetch_destroy(l->prefetch);
    l->prefetch = NULL;
    dr_vae_encoder_close(&l->vae);
    free(l->pixels);
    l->pixels = NULL;
    return DR_OK;
}

/* Two pictures for each thread, as many as a PyTorch loader holds batches. */
static dr_prefetch_config prefetch_config(dr_latents *l)
{
    const int n = l->c.loader_threads < l->c.threads ? l->c.loader_threads : l->c.threads;
    return (dr_prefetch_config){
        .n_threads = n, .n_ahead = 2 * (size_t)n, .load = load_pixels, .user = l};
}

static dr_status open_prefetch(dr_latents *l)
{
    const dr_prefetch_config c = prefetch_config(l);
    return dr_prefetch_create(&c, &l->prefetch);
}

/* What encoding in every step will need, of pictures of any size of the dataset. */
static dr_status plan_encoding(dr_latents *l)
{
    const dr_dataset *ds = l->c.dataset;
    size_t most = 0;
    for (size_t i = 0; i < ds->n_buckets; i++) {
        const int64_t h = ds->buckets[i].size.h;
        const int64_t w = ds->buckets[i].size.w;
        const size_t bytes = (size_t)(h * w * 3) * sizeof(float);
        most = bytes > most ? bytes : most;
        DR_TRY(dr_vae_encoder_plan(&l->vae, 1, h, w));
    }
    l->pixel_bytes = (prefetch_config(l).n_ahead + 1) * most;
    return DR_OK;
}

dr_status dr_latents_create(dr_dist *d, const dr_latents_config *c, dr_latents **out)
{
    dr_latents *l = dr_xcalloc(1, sizeof *l);
    l->c = *c;
    l->posterior = (dr_posterior){.backend = c->backend, .threads = c->threads};
    dr_status st = dr_vae_encoder_open(&l->vae, c->backend, c->threads, c->file);
    if (st == DR_OK) {
        st = open_prefetch(l);
    }
    st = dr_dist_agree(d, st);
    if (st == DR_OK) {
        l->scale = (float)dr_autoencoder_scale(&l->vae.ae);
        l->vae_channels = dr_autoencoder_moment_channels(&l->vae.ae);
        st = c->cached ? fill(d, l) : dr_dist_agree(d, plan_encoding(l));
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
    dr_prefetch_destroy(l->prefetch);
    dr_vae_encoder_close(&l->vae);
    dr_posterior_deinit(&l->posterior);
    dr_cached_latents_destroy(l->cached);
    free(l->pixels);
    free(l->moments);
    free(l->noise);
    free(l);
}

/* The entry that a sample uses in an epoch. */
static uint32_t entry_of(const dr_latents *l, size_t image, uint32_t epoch, uint64_t sample)
{
    bool flip = false;
    const dr_dataset *ds = l->c.dataset;
    if (l->c.flip && ds->subsets[ds->images[image].subset].options->flip_aug) {
        dr_philox stream;
        dr_philox_init(&stream, l->c.seed, DR_RANDOM_FLIP, epoch, sample);
        flip = dr_philox_uniform(&stream) < 0.5f;
    }
    return (uint32_t)(image * n_sides(l) + (flip ? 1 : 0));
}

bool dr_latents_flips(const dr_latents *l, size_t image, uint32_t epoch, uint64_t sample)
{
    return entry_of(l, image, epoch, sample) % n_sides(l) == 1;
}

bool dr_latents_announce(dr_latents *l, size_t image, uint32_t epoch, uint64_t sample)
{
    return l->prefetch != NULL && announce(l, entry_of(l, image, epoch, sample), epoch, sample);
}

bool dr_latents_reads_ahead(const dr_latents *l)
{
    return l->prefetch != NULL && dr_prefetch_is_on(l->prefetch);
}

dr_status dr_latents_get(dr_latents *l, size_t image, uint32_t epoch, uint64_t sample, float *out)
{
    dr_philox stream;
    size_t n = plane(l, image) * CHANNELS;
    uint32_t entry = entry_of(l, image, epoch, sample);
    int64_t channels = l->vae_channels;
    l->moments = dr_xrealloc(l->moments, plane(l, image) * MOMENTS, sizeof(float));
    if (l->cached != NULL) {
        DR_TRY(dr_cached_latents_read(l->cached, entry, l->moments, &channels));
    } else {
        DR_TRY(encode(l, (dr_encode_batch){&entry, 1}, epoch, sample, l->moments));
    }
    dr_philox_init(&stream, epoch == 0 ? l->c.validation_seed : l->c.seed, DR_RANDOM_VAE, epoch,
                   sample);
    DR_TRY(draw(l, image, l->moments, channels, &stream, out));
    for (size_t i = 0; i < n; i++) {
        out[i] *= l->scale;
    }
    return DR_OK;
}

size_t dr_latents_bytes(const dr_latents *l)
{
    return (l->cached != NULL ? dr_cached_latents_bytes(l->cached) : 0) +
           (l->vae.backend != NULL ? dr_vae_encoder_bytes(&l->vae) : 0) + l->pixel_bytes;
}
