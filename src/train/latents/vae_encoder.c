#include "train/latents/vae_encoder.h"

#include "ops/diffusion_ops.h"
#include "train/device_values.h"

dr_status dr_vae_encoder_open(dr_vae_encoder *e, const dr_backend *backend, int threads,
                              const dr_model_file *file)
{
    const dr_autoencoder_config *config = &dr_model_file_config(file)->vae;
    *e = (dr_vae_encoder){.backend = backend, .threads = threads};
    dr_arena_init(&e->arena);
    dr_params_init(&e->params, &e->arena);
    DR_TRY(dr_autoencoder_config_check(config));
    dr_autoencoder_init(&e->ae, config, &e->params, true, false);
    DR_TRY(backend->device->alloc((size_t)e->params.n_elems * sizeof(float), &e->values));
    return dr_device_load(backend->device, file, DR_PART_VAE, &e->params, DR_F32, e->values);
}

void dr_vae_encoder_close(dr_vae_encoder *e)
{
    if (e->backend == NULL) {
        return;
    }
    dr_pool_destroy(e->pool);
    e->backend->device->free(e->values);
    dr_params_deinit(&e->params);
    dr_arena_deinit(&e->arena);
    *e = (dr_vae_encoder){0};
}

typedef struct encode_job {
    int64_t n, h, w;
    const float *pixels;
    float *moments;
} encode_job;

static dr_status walk(dr_context *cx, const dr_vae_encoder *e, const encode_job *j)
{
    int64_t factor = dr_autoencoder_factor(&e->ae);
    dr_frame f = dr_frame_begin(cx);
    dr_tensor pixels = dr_new(cx, f, 4, DR_DIMS(j->n, j->h, j->w, 3));
    dr_tensor moments =
        dr_new(cx, f, 4,
               DR_DIMS(j->n, j->h / factor, j->w / factor, dr_autoencoder_moment_channels(&e->ae)));
    DR_TRY(dr_upload(cx, &pixels, j->pixels));
    DR_TRY(dr_autoencoder_moments(cx, &e->ae, &pixels, &moments));
    DR_TRY(dr_download(cx, &moments, j->moments));
    dr_frame_end(cx, f);
    return DR_OK;
}

/* Makes *pool at least as large as a walk that was dry needed. */
static dr_status grow_pool(const dr_backend *backend, size_t need, dr_pool **pool)
{
    if (*pool != NULL && dr_pool_capacity_bytes(*pool) >= need) {
        return DR_OK;
    }
    dr_pool_destroy(*pool);
    *pool = NULL;
    return dr_pool_create(backend->device, need, pool);
}

/* Raises what is planned to what the job needs. */
static dr_status plan(dr_vae_encoder *e, const encode_job *j)
{
    dr_context cx;
    dr_pool *dry = dr_pool_create_dry();
    dr_context_init(&cx, e->backend, dry, e->threads);
    dr_status st = walk(&cx, e, j);
    size_t need = dr_pool_peak_bytes(dry);
    dr_pool_destroy(dry);
    e->planned = need > e->planned ? need : e->planned;
    return st;
}

dr_status dr_vae_encoder_plan(dr_vae_encoder *e, int64_t n, int64_t h, int64_t w)
{
    return plan(e, &(encode_job){.n = n, .h = h, .w = w});
}

dr_status dr_vae_encoder_run(dr_vae_encoder *e, int64_t n, int64_t h, int64_t w,
                             const float *pixels, float *moments)
{
    const encode_job j = {n, h, w, pixels, moments};
    dr_context cx;
    DR_TRY(plan(e, &j));
    DR_TRY(grow_pool(e->backend, e->planned, &e->pool));
    dr_context_init(&cx, e->backend, e->pool, e->threads);
    return walk(&cx, e, &j);
}

size_t dr_vae_encoder_bytes(const dr_vae_encoder *e)
{
    return (size_t)e->params.n_elems * sizeof(float) + e->planned;
}

enum { LATENT_CHANNELS = 4 };

typedef struct draw_job {
    int64_t h, w;
    const float *moments, *noise;
    float *latent;
} draw_job;

static dr_status draw(dr_context *cx, const draw_job *j)
{
    dr_frame f = dr_frame_begin(cx);
    dr_tensor moments = dr_new(cx, f, 4, DR_DIMS(1, j->h, j->w, 2 * LATENT_CHANNELS));
    dr_tensor noise = dr_new(cx, f, 4, DR_DIMS(1, j->h, j->w, LATENT_CHANNELS));
    dr_tensor latent = dr_new_like(cx, f, &noise);
    DR_TRY(dr_upload(cx, &moments, j->moments));
    DR_TRY(dr_upload(cx, &noise, j->noise));
    DR_TRY(dr_posterior_sample(
        cx, &(dr_posterior_sample_args){.moments = &moments, .noise = &noise, .z = &latent}));
    DR_TRY(dr_download(cx, &latent, j->latent));
    dr_frame_end(cx, f);
    return DR_OK;
}

dr_status dr_posterior_draw(dr_posterior *p, int64_t h, int64_t w, const float *moments,
                            const float *noise, float *latent)
{
    const draw_job j = {h, w, moments, noise, latent};
    dr_context cx;
    dr_pool *dry = dr_pool_create_dry();
    dr_context_init(&cx, p->backend, dry, p->threads);
    dr_status st = draw(&cx, &j);
    size_t need = dr_pool_peak_bytes(dry);
    dr_pool_destroy(dry);
    DR_TRY(st);
    DR_TRY(grow_pool(p->backend, need, &p->pool));
    dr_context_init(&cx, p->backend, p->pool, p->threads);
    return draw(&cx, &j);
}

void dr_posterior_deinit(dr_posterior *p)
{
    dr_pool_destroy(p->pool);
    p->pool = NULL;
}
