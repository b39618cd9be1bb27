#include "train/model/model_presets.h"

#include "base/philox.h"
#include "text/tokenizer.h"
#include "train/model/model_output.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- presets ------------------------------------------------------------------------------- */

typedef struct preset {
    const char *name;
    bool v2, v_prediction;
    int64_t channels[4];
    int heads[4];
    int64_t width, mlp_width; /* text encoder */
    int layers, text_heads;
    int64_t vae_channels[4];
} preset;

static const preset presets[] = {
    {"sd1",
     false,
     false,
     {320, 640, 1280, 1280},
     {8, 8, 8, 8},
     768,
     3072,
     12,
     12,
     {128, 256, 512, 512}},
    {"sd2",
     true,
     false,
     {320, 640, 1280, 1280},
     {5, 10, 20, 20},
     1024,
     4096,
     23,
     16,
     {128, 256, 512, 512}},
    {"sd2v",
     true,
     true,
     {320, 640, 1280, 1280},
     {5, 10, 20, 20},
     1024,
     4096,
     23,
     16,
     {128, 256, 512, 512}},
    {"tiny", false, false, {32, 64, 64, 64}, {8, 8, 8, 8}, 32, 64, 2, 4, {32, 32, 64, 64}},
    {"tiny2", true, false, {32, 64, 64, 64}, {2, 4, 4, 4}, 32, 64, 3, 4, {32, 32, 64, 64}},
    {"tiny2v", true, true, {32, 64, 64, 64}, {2, 4, 4, 4}, 32, 64, 3, 4, {32, 32, 64, 64}},
};

static dr_unet_config unet_of(const preset *p)
{
    dr_unet_config c = {.in_channels = 4,
                        .out_channels = 4,
                        .n_levels = 4,
                        .layers_per_block = 2,
                        .context_dim = p->width,
                        .norm_groups = 32,
                        .norm_eps = 1e-5f,
                        .linear_projection = p->v2};
    for (int i = 0; i < c.n_levels; i++) {
        c.channels[i] = p->channels[i];
        c.heads[i] = p->heads[i];
        c.attention[i] = i + 1 < c.n_levels;
        c.depth[i] = 1;
    }
    return c;
}

static dr_autoencoder_config vae_of(const preset *p)
{
    dr_autoencoder_config c = {.kind = DR_VAE_KL,
                               .kl = {.in_channels = 3,
                                      .out_channels = 3,
                                      .latent_channels = 4,
                                      .n_levels = 4,
                                      .layers_per_block = 2,
                                      .norm_groups = 32,
                                      .scaling_factor = 0.18215}};
    memcpy(c.kl.channels, p->vae_channels, sizeof p->vae_channels);
    return c;
}

dr_status dr_model_preset(const char *name, dr_model_config *out)
{
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++) {
        const preset *p = &presets[i];
        if (strcmp(p->name, name) != 0) {
            continue;
        }
        *out = (dr_model_config){.unet = unet_of(p),
                                 .clip = {.vocab = DR_TOKEN_VOCAB,
                                          .positions = DR_TOKEN_ROW,
                                          .width = p->width,
                                          .mlp_width = p->mlp_width,
                                          .layers = p->layers,
                                          .heads = p->text_heads,
                                          .act = p->v2 ? DR_ACT_GELU : DR_ACT_QUICK_GELU,
                                          .eps = 1e-5f},
                                 .vae = vae_of(p),
                                 .v2 = p->v2,
                                 .v_prediction = p->v_prediction};
        return DR_OK;
    }
    DR_FAIL(DR_INVALID, "no model \"%s\"; expected sd1, sd2, sd2v, tiny, tiny2 or tiny2v", name);
}

/* ---- random weights ------------------------------------------------------------------------ */

typedef struct init { /* parameters are keyed by their place in all parts one after the other */
    uint64_t seed;
    dr_arena arena;
    dr_params set[DR_MODEL_PARTS];
} init;

static dr_status init_dtype(void *user, dr_model_part part, const dr_param *p, dr_dtype *out)
{
    (void)user;
    (void)part;
    (void)p;
    *out = DR_F32;
    return DR_OK;
}

static uint64_t place_of(const init *in, dr_model_part part, const char *name)
{
    uint64_t place = 0;
    for (int i = 0; i < (int)part; i++) {
        place += in->set[i].n;
    }
    for (size_t i = 0; i < in->set[part].n; i++) {
        if (strcmp(in->set[part].at[i]->name, name) == 0) {
            return place + i;
        }
    }
    dr_panic("known name", __FILE__, __LINE__, "%s is no parameter", name);
}

/* Inputs of one output of the layer that a parameter belongs to: a bias has those of its weight,
 * which stands right before it. */
static int64_t fan_in(const init *in, dr_model_part part, uint64_t place, const dr_param *p)
{
    for (int i = 0; i < (int)part; i++) {
        place -= in->set[i].n;
    }
    const dr_param *weight = p->rank > 1 || place == 0 ? p : in->set[part].at[place - 1];
    int64_t n = 1;
    for (int i = 1; i < weight->rank; i++) {
        n *= weight->dim[i];
    }
    return n;
}

static bool is_norm(const init *in, dr_model_part part, uint64_t place, const dr_param *p)
{
    if (p->rank > 1) {
        return false;
    }
    for (int i = 0; i < (int)part; i++) {
        place -= in->set[i].n;
    }
    return dr_str_ends(p->name, ".weight") || in->set[part].at[place - 1]->rank == 1;
}

static dr_status init_read(void *user, dr_model_part part, const dr_param *p, dr_dtype dtype,
                           void *out)
{
    const init *in = user;
    const uint64_t place = place_of(in, part, p->name);
    float *v = out;
    DR_CHECK(dtype == DR_F32, "random weights are F32");
    if (is_norm(in, part, place, p)) {
        for (int64_t i = 0; i < p->n; i++) {
            v[i] = dr_str_ends(p->name, ".weight") ? 1.0f : 0.0f;
        }
        return DR_OK;
    }
    dr_philox random;
    dr_philox_init(&random, in->seed, DR_RANDOM_INIT, 0, place);
    if (strstr(p->name, "_embedding.weight") != NULL) {
        dr_philox_normal(&random, v, (size_t)p->n);
        for (int64_t i = 0; i < p->n; i++) {
            v[i] *= 0.02f;
        }
        return DR_OK;
    }
    /* Kaiming uniform with a = sqrt(5), torch's default, has this bound; so has its bias */
    const float bound = (float)(1.0 / sqrt((double)fan_in(in, part, place, p)));
    for (int64_t i = 0; i < p->n; i++) {
        v[i] = bound * (2.0f * dr_philox_uniform(&random) - 1.0f);
    }
    return DR_OK;
}

dr_status dr_model_write_random(const dr_model_config *config, const dr_model_init *o)
{
    init in = {.seed = o->seed};
    dr_arena_init(&in.arena);
    for (int i = 0; i < DR_MODEL_PARTS; i++) {
        dr_params_init(&in.set[i], &in.arena);
        dr_model_part_params(config, (dr_model_part)i, &in.set[i]);
    }
    dr_model_job job = {.path = o->path,
                        .config = config,
                        .values = {init_dtype, init_read, &in},
                        .changed = {true, true, true},
                        .format = o->format};
    const dr_status st = dr_model_write(&job);
    for (int i = 0; i < DR_MODEL_PARTS; i++) {
        dr_params_deinit(&in.set[i]);
    }
    dr_arena_deinit(&in.arena);
    return st;
}
