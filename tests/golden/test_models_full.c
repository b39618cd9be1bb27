/*
 * Full-size text encoders and VAE against golden.json (spec models.md 11: transformers and
 * diffusers in f64). Limits, relative to the root mean square: f64 measured 9e-11 (text encoders,
 * whose eps is an f32 1e-5 here; VAE below 1e-13), cpu in f32 1.5e-6; times 7 and more.
 */
#include "clip_case.h"
#include "dr_test.h"
#include "golden_backends.h"
#include "golden_compare.h"
#include "golden_input.h"
#include "models/vae/autoencoder.h"

#include <stdio.h>

static const double f64_limit = 1e-9;
static const double f32_limit = 1e-5;

typedef struct clip_golden {
    const char *key; /* in golden.json */
    dr_clip_config model;
    int32_t pad;
} clip_golden;

static const clip_golden clip_l = {"clip_l",
                                   {.vocab = 49408,
                                    .positions = 77,
                                    .width = 768,
                                    .mlp_width = 3072,
                                    .layers = 12,
                                    .heads = 12,
                                    .act = DR_ACT_QUICK_GELU,
                                    .eps = 1e-5f},
                                   49407};
static const clip_golden openclip_h = {"openclip_h23",
                                       {.vocab = 49408,
                                        .positions = 77,
                                        .width = 1024,
                                        .mlp_width = 4096,
                                        .layers = 23,
                                        .heads = 16,
                                        .act = DR_ACT_GELU,
                                        .eps = 1e-5f},
                                       0};

static void check_clip(const clip_golden *g, const dr_backend *backend, double limit)
{
    /* "a photo of sks dog" */
    int32_t ids[77] = {49406, 320, 1125, 539, 48136, 1929, 49407};
    for (int i = 7; i < 77; i++) {
        ids[i] = g->pad;
    }
    for (int skip = 1; skip <= 2; skip++) {
        char key[64];
        golden_stats want;
        (void)snprintf(key, sizeof key, "%s/%s", g->key, skip == 1 ? "last" : "skip2");
        if (!golden_load(key, &want)) {
            return;
        }
        const clip_case_config config = {.model = g->model,
                                         .options = {.clip_skip = skip},
                                         .backend = backend,
                                         .batch = 1,
                                         .tokens = 77,
                                         .ids = ids};
        clip_case c;
        clip_case_begin(&c, &config);
        clip_case_step(&c);
        golden_check(key, &c.out, &want, limit);
        clip_case_end(&c);
    }
}

typedef struct vae_case {
    dr_model_case m;
    dr_vae vae;
    dr_tensor images, latents, moments, decoded;
} vae_case;

static dr_status walk_vae(dr_context *cx, void *user)
{
    vae_case *c = user;
    DR_TRY(dr_vae_encode(cx, &c->vae, &c->images, &c->moments));
    return dr_vae_decode(cx, &c->vae, &c->latents, &c->decoded);
}

static void check_vae(const dr_backend *backend, double limit)
{
    static const dr_vae_config config = {.in_channels = 3,
                                         .out_channels = 3,
                                         .latent_channels = 4,
                                         .n_levels = 4,
                                         .channels = {128, 256, 512, 512},
                                         .layers_per_block = 2,
                                         .norm_groups = 32,
                                         .scaling_factor = 0.18215};
    golden_stats moments;
    golden_stats decoded;
    if (!golden_load("vae/moments", &moments) || !golden_load("vae/dec", &decoded)) {
        return;
    }
    vae_case c;
    dr_model_case_begin(&c.m, backend);
    dr_vae_init(&c.vae, &config, &c.m.params, true, true);
    dr_model_case_bind(&c.m, false);
    c.images =
        dr_model_case_input(&c.m, "input.image", 0.25 * DR_GOLDEN_UNIT, 4, DR_DIMS(1, 64, 64, 3));
    c.latents = dr_model_case_input(&c.m, "input.latent", DR_GOLDEN_UNIT, 4, DR_DIMS(1, 8, 8, 4));
    c.moments = dr_model_case_tensor(&c.m, 4, DR_DIMS(1, 8, 8, 8));
    c.decoded = dr_model_case_tensor(&c.m, 4, DR_DIMS(1, 64, 64, 3));
    dr_model_case_run(&c.m, walk_vae, &c);
    golden_check("moments", &c.moments, &moments, limit);
    golden_check("decoded", &c.decoded, &decoded, limit);
    dr_model_case_end(&c.m);
}

static void clip_l_by_ref(void **state)
{
    (void)state;
    check_clip(&clip_l, &dr_backend_ref_f64, f64_limit);
}

static void openclip_h_by_ref(void **state)
{
    (void)state;
    check_clip(&openclip_h, &dr_backend_ref_f64, f64_limit);
}

static void vae_by_ref(void **state)
{
    (void)state;
    check_vae(&dr_backend_ref_f64, f64_limit);
}

static void all_by_cpu(void **state)
{
    (void)state;
    if (golden_cpu_backend() == NULL) {
        DR_SKIP("cpu backend");
        return;
    }
    check_clip(&clip_l, golden_cpu_backend(), f32_limit);
    check_clip(&openclip_h, golden_cpu_backend(), f32_limit);
    check_vae(golden_cpu_backend(), f32_limit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clip_l_by_ref),
        cmocka_unit_test(openclip_h_by_ref),
        cmocka_unit_test(vae_by_ref),
        cmocka_unit_test(all_by_cpu),
    };
    return DR_TEST_MAIN("models_full", tests);
}
