/*
 * AutoencoderKL and AutoencoderTiny against diffusers in f64 (models_vectors.py), also with TAESD's
 * real weights. Limits, relative to the root mean square: f64 measured below 1e-12, f32 by ref and
 * cpu 1.2e-6; times 8 and more.
 */
#include "data/models_vectors.h"

#include "dr_test.h"
#include "golden_backends.h"
#include "golden_compare.h"
#include "golden_input.h"
#include "models/vae/autoencoder.h"
#include "model_case.h"
#include "io/safetensors.h"

#include "base/file.h"

#include <math.h>
#include <stdlib.h>

static const double f64_limit = 1e-11;
static const double f32_limit = 1e-5;

typedef struct vae_case {
    dr_model_case m;
    dr_autoencoder ae;
    dr_tensor images, latents, moments, noise, decoded;
} vae_case;

static dr_status walk_kl(dr_context *cx, void *user)
{
    vae_case *c = user;
    DR_TRY(dr_vae_encode(cx, &c->ae.kl, &c->images, &c->moments));
    return dr_vae_decode(cx, &c->ae.kl, &c->latents, &c->decoded);
}

static dr_autoencoder_config kl_config(size_t i)
{
    dr_autoencoder_config config = {.kind = DR_VAE_KL,
                                    .kl = {.in_channels = 3,
                                           .out_channels = 3,
                                           .latent_channels = golden_vae[i].latent,
                                           .n_levels = golden_vae[i].n_levels,
                                           .layers_per_block = golden_vae[i].layers,
                                           .norm_groups = golden_vae[i].groups,
                                           .scaling_factor = 0.18215}};
    for (int k = 0; k < golden_vae[i].n_levels; k++) {
        config.kl.channels[k] = golden_vae[i].channels[k];
    }
    return config;
}

static dr_autoencoder_config tiny_config(size_t i)
{
    dr_autoencoder_config config = {.kind = DR_VAE_TINY, .tiny = dr_taesd_config_default()};
    config.tiny.width = golden_tiny[i].width;
    config.tiny.n_stages = golden_tiny[i].n_stages;
    config.tiny.latent_channels = golden_tiny[i].latent;
    for (int k = 0; k < golden_tiny[i].n_stages; k++) {
        config.tiny.encoder_blocks[k] = golden_tiny[i].encoder_blocks[k];
        config.tiny.decoder_blocks[k] = golden_tiny[i].decoder_blocks[k];
    }
    return config;
}

static void begin(vae_case *c, const dr_autoencoder_config *config, const dr_backend *backend)
{
    *c = (vae_case){0};
    dr_model_case_begin(&c->m, backend);
    assert_ok(dr_autoencoder_config_check(config));
    dr_autoencoder_init(&c->ae, config, &c->m.params, true, true);
    dr_model_case_bind(&c->m, false);
}

typedef struct inputs {
    const int64_t *image; /* N, C, H, W */
    double image_scale, latent_scale;
} inputs;

static void make_tensors(vae_case *c, const inputs *in)
{
    const int64_t factor = dr_autoencoder_factor(&c->ae);
    const int64_t n = in->image[0];
    const int64_t h = in->image[2];
    const int64_t w = in->image[3];
    const int64_t z = dr_autoencoder_channels(&c->ae);
    c->images = dr_model_case_input(&c->m, "input.image", in->image_scale * DR_GOLDEN_UNIT, 4,
                                    DR_DIMS(n, h, w, in->image[1]));
    c->latents = dr_model_case_input(&c->m, "input.latent", in->latent_scale * DR_GOLDEN_UNIT, 4,
                                     DR_DIMS(n, h / factor, w / factor, z));
    c->noise = dr_model_case_input(&c->m, "input.noise", DR_GOLDEN_UNIT, 4, c->latents.dim);
    c->moments = dr_model_case_tensor(&c->m, 4, DR_DIMS(n, h / factor, w / factor, 2 * z));
    c->decoded = dr_model_case_tensor(&c->m, 4, c->images.dim);
}

static void check_kl(const dr_backend *backend, double limit)
{
    for (size_t i = 0; i < sizeof golden_vae / sizeof *golden_vae; i++) {
        const dr_autoencoder_config config = kl_config(i);
        vae_case c;
        begin(&c, &config, backend);
        make_tensors(&c, &(inputs){golden_vae[i].image, 0.25, 1.0});
        dr_model_case_run(&c.m, walk_kl, &c);
        golden_check(golden_vae[i].name, &c.moments, &golden_vae[i].moments, limit);
        golden_check(golden_vae[i].name, &c.decoded, &golden_vae[i].decoded, limit);
        dr_model_case_end(&c.m);
    }
}

/* The weights that people use, from the two files in the shared folder. */
static void load_real_weights(vae_case *c)
{
    dr_safetensors *files[2] = {NULL, NULL};
    for (int i = 0; i < 2; i++) {
        char *path = dr_path_join(dr_test_shared(), i == 0 ? "taesd/taesd_encoder.safetensors"
                                                           : "taesd/taesd_decoder.safetensors");
        assert_ok(dr_safetensors_open(&files[i], path));
        free(path);
    }
    size_t used = 0;
    for (size_t i = 0; i < c->m.params.n; i++) {
        const dr_param *p = c->m.params.at[i];
        char name[96];
        bool in_decoder = false;
        assert_true(dr_taesd_raw_name(p->name, name, sizeof name, &in_decoder));
        const dr_safetensors_tensor *t = dr_safetensors_find(files[in_decoder], name);
        assert_non_null(t);
        assert_int_equal(t->n_elems, p->n);
        const void *data = NULL;
        assert_ok(dr_safetensors_data(files[in_decoder], t, &data));
        dr_param_from_file_order(p, data, t->dtype, p->value.data, p->value.dtype);
        used++;
    }
    assert_int_equal(used, dr_safetensors_count(files[0]) + dr_safetensors_count(files[1]));
    dr_safetensors_close(files[0]);
    dr_safetensors_close(files[1]);
}

static dr_status walk_both(dr_context *cx, void *user)
{
    vae_case *c = user;
    DR_TRY(dr_autoencoder_decode(cx, &c->ae, &c->latents, &c->decoded));
    return dr_autoencoder_encode(cx, &c->ae, &c->images, &c->noise, &c->latents);
}

static void check_tiny(size_t i, const dr_backend *backend, double limit)
{
    const bool real = golden_tiny[i].width == 64;
    const dr_autoencoder_config config = tiny_config(i);
    vae_case c;
    begin(&c, &config, backend);
    if (real) {
        load_real_weights(&c);
    }
    make_tensors(&c, &(inputs){golden_tiny[i].image, 0.5, real ? 2.0 : 1.0});
    dr_pool *pool = NULL; /* encode overwrites what decode reads, so no second walk */
    dr_context cx;
    assert_ok(dr_pool_create(backend->device, 16u << 20, &pool));
    dr_context_init(&cx, backend, pool, 2);
    assert_ok(walk_both(&cx, &c));
    assert_int_equal(dr_pool_used_bytes(pool), 0);
    dr_pool_destroy(pool);
    golden_check(golden_tiny[i].name, &c.decoded, &golden_tiny[i].decoded, limit);
    golden_check(golden_tiny[i].name, &c.latents, &golden_tiny[i].latents, limit);
    assert_true(dr_autoencoder_scale(&c.ae) == 1.0);
    dr_model_case_end(&c.m);
}

static void kl_ref_f64_equals_diffusers(void **state)
{
    (void)state;
    check_kl(&dr_backend_ref_f64, f64_limit);
}

static void kl_f32_is_close(void **state)
{
    (void)state;
    check_kl(&dr_backend_ref_f32, f32_limit);
    if (golden_cpu_backend() != NULL) {
        check_kl(golden_cpu_backend(), f32_limit);
    }
}

static void tiny_equals_diffusers(void **state)
{
    (void)state;
    check_tiny(0, &dr_backend_ref_f64, f64_limit);
    check_tiny(0, &dr_backend_ref_f32, f32_limit);
    if (golden_cpu_backend() != NULL) {
        check_tiny(0, golden_cpu_backend(), f32_limit);
    }
}

static void real_tiny_weights_equal_diffusers(void **state)
{
    (void)state;
    if (dr_test_shared() == NULL) {
        DR_SKIP("shared");
        return;
    }
    check_tiny(1, &dr_backend_ref_f64, f64_limit);
    if (golden_cpu_backend() != NULL) {
        check_tiny(1, golden_cpu_backend(), f32_limit);
    }
}

/* latents = mean + exp(logvar / 2) noise of the same moments; without noise the mean */
static void kl_latents_sample_the_posterior(void **state)
{
    (void)state;
    const dr_autoencoder_config config = kl_config(0);
    vae_case c;
    begin(&c, &config, &dr_backend_ref_f64);
    make_tensors(&c, &(inputs){golden_vae[0].image, 0.25, 1.0});
    dr_model_case_run(&c.m, walk_kl, &c);
    dr_model_case_run(&c.m, walk_both, &c);
    const double *moments = c.moments.data;
    const double *noise = c.noise.data;
    const double *latents = c.latents.data;
    const int64_t z = c.latents.dim[3];
    for (int64_t i = 0; i < dr_numel(&c.latents); i++) {
        const double *m = moments + i / z * 2 * z + i % z;
        assert_at_most(fabs(m[0] + exp(0.5 * m[z]) * noise[i] - latents[i]), 1e-12);
    }
    assert_true(dr_autoencoder_scale(&c.ae) == 0.18215);
    assert_int_equal(dr_autoencoder_factor(&c.ae), 2);
    dr_model_case_end(&c.m);
}

/* Input and two more images of the widest level at a time (the backend's scratch left aside). */
static void activations_are_freed_on_the_way(void **state)
{
    (void)state;
    dr_backend backend = dr_backend_ref_f32;
    backend.work_bytes = NULL;
    dr_autoencoder_config config = kl_config(0);
    config.kl.channels[1] = 32;
    vae_case c;
    begin(&c, &config, &backend);
    make_tensors(&c, &(inputs){(const int64_t[4]){1, 3, 64, 64}, 0.25, 1.0});
    dr_pool *dry = dr_pool_create_dry();
    dr_context cx;
    dr_context_init(&cx, &backend, dry, 1);
    assert_ok(walk_kl(&cx, &c));
    const size_t widest = (size_t)(64 * 64 * 32) * sizeof(float);
    assert_true(dr_pool_peak_bytes(dry) < 4 * widest); /* 3.5: gaps in the pool */
    dr_pool_destroy(dry);
    dr_model_case_end(&c.m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kl_ref_f64_equals_diffusers),
        cmocka_unit_test(kl_f32_is_close),
        cmocka_unit_test(tiny_equals_diffusers),
        cmocka_unit_test(real_tiny_weights_equal_diffusers),
        cmocka_unit_test(kl_latents_sample_the_posterior),
        cmocka_unit_test(activations_are_freed_on_the_way),
    };
    return DR_TEST_MAIN("vae_golden", tests);
}
