#include "train/sample/sampling.h"

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
    return DR_OK;
}

/* ---- one picture's walk, dry and real ------------------------------------------------------ */

typedef struct walk {
    dr_sampling *s;
    const dr_sample_request *q;
    const dr_sampling_watch *watch;
    dr_sample_text text;
    int64_t shape[3];    /* of the latent: h, w, channels */
    size_t n;            /* its floats */
    float *input, *pred; /* (n_texts,h,w,channels) */
    float *noise;        /* as the latent */
} walk;

static dr_status weigh(dr_context *cx, const walk *w, const dr_tensor *context)
{
    float *states = NULL;
    if (cx->dry || !w->text.weighted) {
        return DR_OK;
    }
    DR_TRY(dr_try_calloc((size_t)dr_numel(context), sizeof *states, (void **)&states));
    dr_status st = dr_download_floats(cx, context, states);
    if (st == DR_OK) {
        dr_sample_text_weigh(&w->text, states, context->dim[2]);
        st = dr_upload_floats(cx, context, states);
    }
    free(states);
    return st;
}

/* context (n_texts, 77 n_rows, width) of the texts */
static dr_status encode_text(dr_context *cx, const walk *w, const dr_tensor *context)
{
    dr_network *net = w->s->net;
    const int64_t rows = (int64_t)w->text.n_texts * w->text.n_rows;
    dr_frame f = dr_frame_begin(cx);
    dr_tensor ids = dr_new_typed(cx, f, DR_I32, 2, DR_DIMS(rows, DR_TOKEN_ROW));
    dr_tensor states = dr_reshape(context, 3, DR_DIMS(rows, DR_TOKEN_ROW, context->dim[2]));
    dr_status st = dr_upload(cx, &ids, w->text.ids);
    if (st == DR_OK) {
        st = dr_clip_forward(cx, net->clip_eval, &ids, &states);
    }
    dr_frame_end(cx, f);
    return st == DR_OK ? weigh(cx, w, context) : st;
}

static dr_status call_unet(dr_context *cx, walk *w, int i, const dr_tensor *context, dr_frame f)
{
    const int64_t n_texts = w->text.n_texts;
    const float t = w->s->sampler.timestep[i];
    const float times[DR_SAMPLE_MAX_TEXTS] = {t, t};
    dr_tensor x = dr_new(cx, f, 4, DR_DIMS(n_texts, w->shape[0], w->shape[1], w->shape[2]));
    dr_tensor pred = dr_new_like(cx, f, &x);
    dr_tensor steps = dr_new_typed(cx, f, DR_F32, 1, DR_DIMS(n_texts));
    DR_TRY(dr_upload_floats(cx, &x, w->input));
    DR_TRY(dr_upload(cx, &steps, times));
    DR_TRY(dr_unet_forward(cx, w->s->unet_run, &x, &steps, context, &pred));
    return dr_download_floats(cx, &pred, w->pred);
}

/* Call i of the U-Net: w->pred, of all texts. */
static dr_status predict(dr_context *cx, walk *w, int i, const dr_tensor *context,
                         const float *latent)
{
    if (!cx->dry) {
        dr_sampler_scale_input(&w->s->sampler, i, latent, w->input);
        memcpy(w->input + (size_t)(w->text.n_texts - 1) * w->n, w->input, w->n * sizeof(float));
    }
    dr_frame f = dr_frame_begin(cx);
    const dr_status st = call_unet(cx, w, i, context, f);
    dr_frame_end(cx, f);
    return st;
}

/* What call i predicted moves the latent on. */
static void advance(walk *w, int i, float *latent)
{
    dr_sampler *sampler = &w->s->sampler;
    const bool noisy = dr_sampler_wants_noise(sampler, i);
    if (w->text.n_texts == 2) {
        dr_guide(w->pred, w->pred + w->n, w->q->cfg_scale, w->pred, w->n);
    }
    if (noisy) {
        dr_philox stream;
        dr_philox_init(&stream, w->q->seed, DR_RANDOM_SAMPLE, (uint32_t)i + 1, 0);
        dr_philox_normal(&stream, w->noise, w->n);
        if (w->watch != NULL && w->watch->noise != NULL) {
            w->watch->noise(w->watch->user, w->noise, w->n);
        }
    }
    dr_sampler_step(sampler, i, w->pred, noisy ? w->noise : NULL, latent);
}

/* One call when dry: all of them need the same memory. */
static dr_status denoise(dr_context *cx, walk *w, float *latent)
{
    const dr_sampling *s = w->s;
    const int n_calls = cx->dry ? 1 : s->sampler.n_calls;
    dr_frame f = dr_frame_begin(cx);
    dr_tensor context = dr_new(cx, f, 3,
                               DR_DIMS(w->text.n_texts, (int64_t)w->text.n_rows * DR_TOKEN_ROW,
                                       s->net->clip.config.width));
    dr_status st = encode_text(cx, w, &context);
    for (int i = 0; st == DR_OK && i < n_calls; i++) {
        st = predict(cx, w, i, &context, latent);
        if (st == DR_OK && !cx->dry) {
            advance(w, i, latent);
        }
        if (st == DR_OK && w->watch != NULL && w->watch->progress != NULL) {
            w->watch->progress(w->watch->user, i + 1, n_calls);
        }
    }
    dr_frame_end(cx, f);
    return st;
}

/* The decoder's weights, read into the pool unless they have a place of their own. */
static dr_status bind_vae(dr_context *cx, dr_sampling *s, dr_frame f)
{
    if (!s->o.vae_in_pool) {
        return DR_OK;
    }
    dr_tensor values = dr_new_typed(cx, f, DR_F32, 1, DR_DIMS(s->vae_params.n_elems));
    return cx->dry ? DR_OK
                   : dr_device_load(s->net->o.backend->device, s->file, DR_PART_VAE, &s->vae_params,
                                    DR_F32, values.data);
}

static dr_status run_decoder(dr_context *cx, dr_sampling *s, const dr_sample_request *q,
                             const float *latent, float *pixels, dr_frame f)
{
    int64_t shape[3];
    dr_sampling_shape(s, q, shape);
    DR_TRY(bind_vae(cx, s, f));
    dr_tensor z = dr_new(cx, f, 4, DR_DIMS(1, shape[0], shape[1], shape[2]));
    dr_tensor image = dr_new(cx, f, 4, DR_DIMS(1, q->height, q->width, 3));
    DR_TRY(dr_upload_floats(cx, &z, latent));
    DR_TRY(dr_autoencoder_decode(cx, &s->ae, &z, &image));
    return dr_download_floats(cx, &image, pixels);
}

/* latent (h,w,channels), not scaled; pixels (height,width,3) */
static dr_status decode(dr_context *cx, dr_sampling *s, const dr_sample_request *q,
                        const float *latent, float *pixels)
{
    dr_frame f = dr_frame_begin(cx);
    const dr_status st = run_decoder(cx, s, q, latent, pixels, f);
    dr_frame_end(cx, f);
    return st;
}

/* ---- planning ------------------------------------------------------------------------------ */

/* Everything of a picture but its memory. */
static dr_status walk_init(walk *w, dr_sampling *s, const dr_sample_request *q)
{
    const dr_sample_text_options text = {.tokenizer = s->tokenizer,
                                         .kind = s->tokenizer_kind,
                                         .pad_with_end = s->o.as_sd_scripts,
                                         .max_rows = s->o.max_rows};
    const dr_sampler_options sampler = {.kind = q->sampler,
                                        .prediction = s->prediction,
                                        .n_steps = q->n_steps,
                                        .karras = q->karras,
                                        .as_sd_scripts = s->o.as_sd_scripts};
    dr_sampler_deinit(&s->sampler);
    DR_TRY(dr_sampler_init(&s->sampler, &sampler, &s->schedule));
    DR_TRY(check_size("width", q->width, s->multiple));
    DR_TRY(check_size("height", q->height, s->multiple));
    *w = (walk){.s = s, .q = q, .n = dr_sampling_latent_elems(s, q)};
    dr_sampling_shape(s, q, w->shape);
    return dr_sample_text_encode(&text, q->prompt, q->cfg_scale > 1.0f ? q->negative_prompt : NULL,
                                 &w->text);
}

dr_status dr_sampling_plan(dr_sampling *s, const dr_sample_request *q)
{
    walk *w = dr_xcalloc(1, sizeof *w);
    dr_pool *dry = dr_pool_create_dry();
    dr_context cx = dr_network_context(s->net, dry);
    dr_status st = walk_init(w, s, q);
    if (st == DR_OK) {
        st = denoise(&cx, w, NULL);
    }
    if (st == DR_OK) {
        dr_context_init(&cx, s->net->o.backend, dry, s->net->o.threads); /* the VAE is F32 */
        st = decode(&cx, s, q, NULL, NULL);
    }
    const size_t peak = dr_pool_peak_bytes(dry);
    s->work_bytes = peak > s->work_bytes ? peak : s->work_bytes;
    dr_pool_destroy(dry);
    free(w);
    return st;
}

/* ---- life ---------------------------------------------------------------------------------- */

dr_status dr_sampling_init(dr_sampling *s, dr_network *net, const dr_model_config *config,
                           const dr_sampling_options *o)
{
    *s = (dr_sampling){.o = *o,
                       .net = net,
                       .prediction = config->v_prediction ? DR_PREDICT_V : DR_PREDICT_EPSILON,
                       .tokenizer_kind = config->v2 ? DR_TOKENIZER_SD2 : DR_TOKENIZER_SD1};
    dr_arena_init(&s->arena);
    dr_params_init(&s->vae_params, &s->arena);
    dr_schedule_init(&s->schedule);
    if (o->zero_terminal_snr) {
        dr_schedule_zero_terminal_snr(&s->schedule);
    }
    DR_TRY(dr_autoencoder_config_check(&config->vae));
    dr_autoencoder_init(&s->ae, &config->vae, &s->vae_params, false, true);
    DR_TRY(check_model(s, config));
    s->multiple = dr_sampling_multiple(config);
    s->tokenizer = dr_tokenizer_create(s->tokenizer_kind);
    s->unet_run = dr_unet_run_create(&net->unet, (dr_unet_options){.train = false});
    dr_params_bind_dry(&s->vae_params, DR_F32, false);
    if (net->values == NULL && !net->o.train) {
        dr_network_bind_dry(net);
    }
    return DR_OK;
}

dr_status dr_sampling_open(dr_sampling *s, const dr_model_file *file, dr_pool *pool)
{
    const dr_device *device = s->net->o.backend->device;
    s->file = file;
    if (!s->o.vae_in_pool) {
        DR_TRY(device->alloc(dr_sampling_vae_bytes(s), &s->vae_values));
        DR_TRY(dr_device_load(device, file, DR_PART_VAE, &s->vae_params, DR_F32, s->vae_values));
    }
    if (pool != NULL) {
        DR_CHECK(dr_pool_capacity_bytes(pool) >= s->work_bytes, "the pool is too small");
        s->pool = pool;
        return DR_OK;
    }
    s->owns_pool = true;
    return dr_pool_create(device, s->work_bytes, &s->pool);
}

void dr_sampling_deinit(dr_sampling *s)
{
    if (s->net == NULL) {
        return;
    }
    if (s->owns_pool) {
        dr_pool_destroy(s->pool);
    }
    s->net->o.backend->device->free(s->vae_values);
    dr_sampler_deinit(&s->sampler);
    dr_unet_run_destroy(s->unet_run);
    dr_tokenizer_destroy(s->tokenizer);
    dr_params_deinit(&s->vae_params);
    dr_arena_deinit(&s->arena);
    *s = (dr_sampling){0};
}

size_t dr_sampling_vae_bytes(const dr_sampling *s)
{
    return (size_t)s->vae_params.n_elems * sizeof(float);
}

void dr_sampling_shape(const dr_sampling *s, const dr_sample_request *q, int64_t shape[3])
{
    const int64_t factor = dr_autoencoder_factor(&s->ae);
    shape[0] = q->height / factor;
    shape[1] = q->width / factor;
    shape[2] = dr_autoencoder_channels(&s->ae);
}

size_t dr_sampling_latent_elems(const dr_sampling *s, const dr_sample_request *q)
{
    int64_t shape[3];
    dr_sampling_shape(s, q, shape);
    return (size_t)(shape[0] * shape[1] * shape[2]);
}

/* ---- one picture --------------------------------------------------------------------------- */

void dr_sampling_noise(const dr_sampling *s, const dr_sample_request *q, float *latent)
{
    dr_philox stream;
    dr_philox_init(&stream, q->seed, DR_RANDOM_SAMPLE, 0, 0);
    dr_philox_normal(&stream, latent, dr_sampling_latent_elems(s, q));
}

static bool all_finite(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(x[i])) {
            return false;
        }
    }
    return true;
}

static dr_status run(walk *w, float *latent)
{
    dr_sampling *s = w->s;
    const size_t all = w->n * (size_t)w->text.n_texts;
    dr_context cx;
    DR_TRY(dr_try_calloc(all, sizeof(float), (void **)&w->input));
    DR_TRY(dr_try_calloc(all, sizeof(float), (void **)&w->pred));
    DR_TRY(dr_try_calloc(w->n, sizeof(float), (void **)&w->noise));
    DR_TRY(dr_sampler_begin(&s->sampler, w->n));
    for (size_t i = 0; i < w->n; i++) {
        latent[i] *= s->sampler.init_noise_sigma;
    }
    cx = dr_network_context(s->net, s->pool);
    return denoise(&cx, w, latent);
}

dr_status dr_sampling_run(dr_sampling *s, const dr_sample_request *q,
                          const dr_sampling_watch *watch, float *latent)
{
    walk *w = dr_xcalloc(1, sizeof *w);
    dr_status st = walk_init(w, s, q);
    if (st == DR_OK) {
        w->watch = watch;
        st = run(w, latent);
    }
    if (st == DR_OK && !all_finite(latent, w->n)) {
        st = dr_error_set(DR_NUMERIC, __FILE__, __LINE__,
                          "sampling \"%s\" ended in NaN or infinity: the model's weights are "
                          "damaged, or its prediction type is not \"%s\"",
                          q->prompt, dr_prediction_name(s->prediction));
    }
    free(w->input);
    free(w->pred);
    free(w->noise);
    free(w);
    return st;
}

/* -1..1 to 0..255, rounding half to even as numpy does */
static unsigned char to_byte(float x)
{
    float v = x / 2.0f + 0.5f;
    v = v < 0.0f ? 0.0f : v > 1.0f ? 1.0f : v;
    return (unsigned char)lrintf(v * 255.0f);
}

static dr_status picture_of(dr_sampling *s, const dr_sample_request *q, const float *latent,
                            float *scaled, float *pixels, dr_image *out)
{
    const size_t n = (size_t)(q->width * q->height * 3);
    const float scale = (float)dr_autoencoder_scale(&s->ae);
    dr_context cx;
    for (size_t i = 0; i < dr_sampling_latent_elems(s, q); i++) {
        scaled[i] = latent[i] / scale;
    }
    dr_context_init(&cx, s->net->o.backend, s->pool, s->net->o.threads);
    DR_TRY(decode(&cx, s, q, scaled, pixels));
    if (!all_finite(pixels, n)) {
        DR_FAIL(DR_NUMERIC, "the VAE's decoder gave NaN or infinity: try another one (--vae)");
    }
    DR_TRY(dr_image_alloc(out, (int)q->width, (int)q->height));
    for (size_t i = 0; i < n; i++) {
        out->pixels[i] = to_byte(pixels[i]);
    }
    return DR_OK;
}

dr_status dr_sampling_decode(dr_sampling *s, const dr_sample_request *q, const float *latent,
                             dr_image *out)
{
    const size_t n = (size_t)(q->width * q->height * 3);
    float *scaled = NULL;
    float *pixels = NULL;
    dr_status st = dr_try_calloc(dr_sampling_latent_elems(s, q), sizeof *scaled, (void **)&scaled);
    if (st == DR_OK) {
        st = dr_try_calloc(n, sizeof *pixels, (void **)&pixels);
    }
    if (st == DR_OK) {
        st = picture_of(s, q, latent, scaled, pixels, out);
    }
    free(scaled);
    free(pixels);
    return st;
}
