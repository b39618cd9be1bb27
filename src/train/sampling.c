#include "train/sampling.h"

#include "base/log.h"
#include "base/philox.h"
#include "train/device_values.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- checks -------------------------------------------------------------------------------- */

static int64_t vae_factor(const dr_autoencoder_config *c)
{
    return (int64_t)1 << ((c->kind == DR_VAE_KL ? c->kl.n_levels : c->tiny.n_stages) - 1);
}

int64_t dr_sampling_multiple(const dr_model_config *config)
{
    return vae_factor(&config->vae) << (config->unet.n_levels - 1);
}

static dr_status check_size(const char *what, int64_t size, int64_t multiple)
{
    if (size < multiple || size % multiple != 0) {
        int64_t below = size / multiple * multiple;
        DR_FAIL(DR_INVALID,
                "%s: found %lld, expected a multiple of %lld for this model, such as %lld", what,
                (long long)size, (long long)multiple, (long long)(below > 0 ? below : multiple));
    }
    return DR_OK;
}

static dr_status check_model(const dr_sampling *s, const dr_model_config *config)
{
    int64_t latent = dr_autoencoder_channels(&s->ae);
    if (config->unet.in_channels != latent || config->unet.out_channels != latent) {
        DR_FAIL(DR_FORMAT,
                "the U-Net has %lld input and %lld output channels, the VAE's latents have %lld: "
                "expected the same number everywhere (another model's --vae?)",
                (long long)config->unet.in_channels, (long long)config->unet.out_channels,
                (long long)latent);
    }
    if (config->clip.vocab < DR_TOKEN_VOCAB || config->clip.positions < DR_TOKEN_ROW) {
        DR_FAIL(DR_FORMAT,
                "the text encoder knows %lld tokens in %lld positions, expected at least %d in %d "
                "(CLIP's vocabulary)",
                (long long)config->clip.vocab, (long long)config->clip.positions, DR_TOKEN_VOCAB,
                DR_TOKEN_ROW);
    }
    return DR_OK;
}

/* ---- the walks, dry and real --------------------------------------------------------------- */

static dr_status predict(dr_context *cx, dr_sampling *s, int step, const dr_tensor *context,
                         float *latent)
{
    size_t n = dr_sampling_latent_elems(s);
    dr_frame f = dr_frame_begin(cx);
    dr_tensor x = dr_new(cx, f, 4, DR_DIMS(s->n_texts, s->h, s->w, s->channels));
    dr_tensor pred = dr_new_like(cx, f, &x);
    dr_tensor t = dr_new_typed(cx, f, DR_F32, 1, DR_DIMS(s->n_texts));
    const float times[2] = {s->sampler.timestep[step], s->sampler.timestep[step]};
    if (!cx->dry) {
        dr_sampler_scale_input(&s->sampler, step, latent, s->input, n);
        memcpy(s->input + (size_t)(s->n_texts - 1) * n, s->input, n * sizeof(float));
    }
    DR_TRY(dr_upload(cx, &x, s->input));
    DR_TRY(dr_upload(cx, &t, times));
    DR_TRY(dr_unet_forward(cx, s->unet_run, &x, &t, context, &pred));
    DR_TRY(dr_download(cx, &pred, s->pred));
    dr_frame_end(cx, f);
    if (!cx->dry) {
        if (s->n_texts == 2) {
            dr_guide(s->pred, s->pred + n, s->o.cfg_scale, s->pred, n);
        }
        dr_sampler_step(&s->sampler, step, s->pred, latent, n);
    }
    return DR_OK;
}

/* s->ids, latent -> latent; one step when dry: all steps need the same. */
static dr_status denoise(dr_context *cx, dr_sampling *s, const dr_sampling_prompt *p, float *latent)
{
    int64_t rows = (int64_t)s->n_texts * s->net->o.n_rows;
    int n_steps = cx->dry ? 1 : s->o.n_steps;
    dr_frame f = dr_frame_begin(cx);
    dr_tensor ids = dr_new_typed(cx, f, DR_I32, 2, DR_DIMS(rows, DR_TOKEN_ROW));
    dr_tensor context =
        dr_new(cx, f, 3, DR_DIMS(s->n_texts, dr_context_length(s->net), s->net->clip.config.width));
    DR_TRY(dr_upload(cx, &ids, s->ids));
    DR_TRY(dr_text_states(cx, s->net, &ids, &context));
    for (int i = 0; i < n_steps; i++) {
        DR_TRY(predict(cx, s, i, &context, latent));
        if (p->progress != NULL) {
            p->progress(p->user, i + 1, n_steps);
        }
    }
    dr_frame_end(cx, f);
    return DR_OK;
}

/* latent (h,w,channels), not scaled -> s->pixels */
static dr_status decode(dr_context *cx, dr_sampling *s, const float *latent)
{
    dr_frame f = dr_frame_begin(cx);
    dr_tensor z = dr_new(cx, f, 4, DR_DIMS(1, s->h, s->w, s->channels));
    dr_tensor pixels = dr_new(cx, f, 4, DR_DIMS(1, s->o.height, s->o.width, 3));
    DR_TRY(dr_upload(cx, &z, latent));
    DR_TRY(dr_autoencoder_decode(cx, &s->ae, &z, &pixels));
    DR_TRY(dr_download(cx, &pixels, s->pixels));
    dr_frame_end(cx, f);
    return DR_OK;
}

/* The two walks follow each other in one pool, so the larger one sets its size. */
static dr_status plan(dr_sampling *s)
{
    const dr_sampling_prompt nothing = {0};
    dr_context cx;
    dr_pool *dry = dr_pool_create_dry();
    dr_context_init(&cx, s->net->o.backend, dry, s->net->o.threads);
    dr_status st = denoise(&cx, s, &nothing, NULL);
    if (st == DR_OK) {
        st = decode(&cx, s, NULL);
    }
    s->work_bytes = dr_pool_peak_bytes(dry);
    dr_pool_destroy(dry);
    return st;
}

/* ---- life ---------------------------------------------------------------------------------- */

dr_status dr_sampling_init(dr_sampling *s, dr_network *net, const dr_model_config *config,
                           const dr_sampling_options *o)
{
    *s = (dr_sampling){.o = *o, .net = net, .n_texts = o->cfg_scale > 1.0f ? 2 : 1};
    dr_arena_init(&s->arena);
    dr_params_init(&s->vae_params, &s->arena);
    dr_schedule_init(&s->schedule);
    DR_TRY(dr_sampler_init(&s->sampler, o->sampler,
                           config->v_prediction ? DR_PREDICT_V : DR_PREDICT_EPSILON, o->n_steps,
                           &s->schedule));
    DR_TRY(dr_autoencoder_config_check(&config->vae));
    dr_autoencoder_init(&s->ae, &config->vae, &s->vae_params, false, true);
    DR_TRY(check_model(s, config));
    DR_TRY(check_size("width", o->width, dr_sampling_multiple(config)));
    DR_TRY(check_size("height", o->height, dr_sampling_multiple(config)));
    s->w = o->width / dr_autoencoder_factor(&s->ae);
    s->h = o->height / dr_autoencoder_factor(&s->ae);
    s->channels = dr_autoencoder_channels(&s->ae);
    s->tokenizer = dr_tokenizer_create(config->v2 ? DR_TOKENIZER_SD2 : DR_TOKENIZER_SD1);
    s->unet_run = dr_unet_run_create(&net->unet, (dr_unet_options){.train = false});
    dr_params_bind_dry(&s->vae_params, DR_F32, false);
    if (net->values == NULL) {
        dr_params_bind_dry(&net->text_params, DR_F32, false);
        dr_params_bind_dry(&net->unet_params, DR_F32, false);
    }
    return plan(s);
}

dr_status dr_sampling_load(dr_sampling *s, const dr_model_file *file)
{
    const dr_device *device = s->net->o.backend->device;
    size_t n = dr_sampling_latent_elems(s) * (size_t)s->n_texts;
    DR_TRY(device->alloc(dr_sampling_vae_bytes(s), &s->vae_values));
    DR_TRY(dr_pool_create(device, s->work_bytes, &s->pool));
    s->ids = dr_xcalloc((size_t)(s->n_texts * s->net->o.n_rows) * DR_TOKEN_ROW, sizeof *s->ids);
    DR_TRY(dr_try_calloc(n, sizeof(float), (void **)&s->input));
    DR_TRY(dr_try_calloc(n, sizeof(float), (void **)&s->pred));
    DR_TRY(
        dr_try_calloc((size_t)(s->o.width * s->o.height * 3), sizeof(float), (void **)&s->pixels));
    return dr_device_load(device, file, DR_PART_VAE, &s->vae_params, s->vae_values, NULL);
}

void dr_sampling_deinit(dr_sampling *s)
{
    if (s->net == NULL) {
        return;
    }
    dr_pool_destroy(s->pool);
    s->net->o.backend->device->free(s->vae_values);
    dr_unet_run_destroy(s->unet_run);
    dr_tokenizer_destroy(s->tokenizer);
    dr_params_deinit(&s->vae_params);
    dr_arena_deinit(&s->arena);
    free(s->ids);
    free(s->input);
    free(s->pred);
    free(s->pixels);
    *s = (dr_sampling){0};
}

size_t dr_sampling_vae_bytes(const dr_sampling *s)
{
    return (size_t)s->vae_params.n_elems * sizeof(float);
}

size_t dr_sampling_latent_elems(const dr_sampling *s)
{
    return (size_t)(s->h * s->w * s->channels);
}

/* ---- one picture --------------------------------------------------------------------------- */

void dr_sampling_noise(const dr_sampling *s, uint64_t seed, float *latent)
{
    dr_philox stream;
    dr_philox_init(&stream, seed, DR_RANDOM_SAMPLE, 0, 0);
    dr_philox_normal(&stream, latent, dr_sampling_latent_elems(s));
}

static dr_status fill_ids(dr_sampling *s, const char *what, const char *text, int index)
{
    int n_rows = s->net->o.n_rows;
    int length = n_rows * (DR_TOKEN_ROW - 2);
    dr_token_rows rows;
    dr_status st = dr_tokenizer_encode_padded(s->tokenizer, text, strlen(text), length, &rows);
    if (st != DR_OK) {
        return dr_error_prefix(st, "%s", what);
    }
    if (rows.truncated) {
        dr_warn("%s: %zu tokens, only the first %d are used; --max_token_length takes up to %d",
                what, rows.n_tokens, length, DR_TOKEN_MAX_ROWS * (DR_TOKEN_ROW - 2));
    }
    size_t n = (size_t)n_rows * DR_TOKEN_ROW;
    memcpy(s->ids + (size_t)index * n, rows.ids, n * sizeof *s->ids);
    return DR_OK;
}

dr_status dr_sampling_run(dr_sampling *s, const dr_sampling_prompt *p, float *latent)
{
    size_t n = dr_sampling_latent_elems(s);
    dr_context cx;
    if (s->n_texts == 2) {
        DR_TRY(fill_ids(s, "negative prompt", p->negative_prompt, 0));
    }
    DR_TRY(fill_ids(s, "prompt", p->prompt, s->n_texts - 1));
    for (size_t i = 0; i < n; i++) {
        latent[i] *= s->sampler.init_noise_sigma;
    }
    dr_context_init(&cx, s->net->o.backend, s->pool, s->net->o.threads);
    DR_TRY(denoise(&cx, s, p, latent));
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(latent[i])) {
            DR_FAIL(DR_NUMERIC,
                    "sampling \"%s\" ended in NaN or infinity: the model's weights are damaged, or "
                    "its prediction type is not \"%s\"",
                    p->prompt, dr_prediction_name(s->sampler.prediction));
        }
    }
    return DR_OK;
}

/* -1..1 to 0..255, rounding half to even as numpy does */
static unsigned char to_byte(float x)
{
    float v = x / 2.0f + 0.5f;
    v = v < 0.0f ? 0.0f : v > 1.0f ? 1.0f : v;
    return (unsigned char)lrintf(v * 255.0f);
}

dr_status dr_sampling_decode(dr_sampling *s, const float *latent, dr_image *out)
{
    const float scale = (float)dr_autoencoder_scale(&s->ae);
    dr_context cx;
    for (size_t i = 0; i < dr_sampling_latent_elems(s); i++) {
        s->input[i] = latent[i] / scale;
    }
    dr_context_init(&cx, s->net->o.backend, s->pool, s->net->o.threads);
    DR_TRY(decode(&cx, s, s->input));
    size_t n = (size_t)(s->o.width * s->o.height * 3);
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(s->pixels[i])) {
            DR_FAIL(DR_NUMERIC, "the VAE's decoder gave NaN or infinity: try another one (--vae)");
        }
    }
    DR_TRY(dr_image_alloc(out, (int)s->o.width, (int)s->o.height));
    for (size_t i = 0; i < n; i++) {
        out->pixels[i] = to_byte(s->pixels[i]);
    }
    return DR_OK;
}
