#include "models/clip/clip.h"

#include <stdio.h>
#include <string.h>

static const struct {
    dr_act act;
    const char *name;
} acts[] = {{DR_ACT_QUICK_GELU, "quick_gelu"}, {DR_ACT_GELU, "gelu"}};

dr_status dr_clip_act_from_name(const char *name, dr_act *out)
{
    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++) {
        if (strcmp(name, acts[i].name) == 0) {
            *out = acts[i].act;
            return DR_OK;
        }
    }
    DR_FAIL(DR_UNSUPPORTED,
            "text encoder: hidden_act is \"%s\", expected \"quick_gelu\" (SD 1.x) or \"gelu\" "
            "(SD 2.x)",
            name);
}

const char *dr_clip_act_name(dr_act act)
{
    return act == DR_ACT_GELU ? "gelu" : "quick_gelu";
}

static dr_status check_size(const char *key, int64_t value)
{
    const int64_t largest = 1 << 24; /* far beyond any text encoder; products stay in 64 bits */
    if (value < 1 || value > largest) {
        DR_FAIL(DR_FORMAT, "text encoder: %s is %lld, expected 1 to %lld", key, (long long)value,
                (long long)largest);
    }
    return DR_OK;
}

dr_status dr_clip_config_check(const dr_clip_config *c)
{
    DR_TRY(check_size("vocab_size", c->vocab));
    DR_TRY(check_size("max_position_embeddings", c->positions));
    DR_TRY(check_size("hidden_size", c->width));
    DR_TRY(check_size("intermediate_size", c->mlp_width));
    DR_TRY(check_size("num_hidden_layers", c->layers));
    DR_TRY(check_size("num_attention_heads", c->heads));
    if (c->width % c->heads != 0) {
        DR_FAIL(DR_FORMAT, "text encoder: hidden_size %lld is not divisible by %d heads",
                (long long)c->width, c->heads);
    }
    if (!(c->eps > 0.0f && c->eps < 1.0f)) {
        DR_FAIL(DR_FORMAT, "text encoder: layer_norm_eps is %g, expected a small number above 0",
                (double)c->eps);
    }
    return DR_OK;
}

static void init_layer(dr_clip_layer *l, const dr_clip_config *c, dr_params *set, int i)
{
    char name[128];
    const char *base = "text_model.encoder.layers";
    (void)snprintf(name, sizeof name, "%s.%d.layer_norm1", base, i);
    dr_norm_init(&l->norm1, set, name, c->width, 0, c->eps, false);
    struct {
        dr_linear_layer *layer;
        const char *name;
    } projections[] = {
        {&l->attn.q, "q"}, {&l->attn.k, "k"}, {&l->attn.v, "v"}, {&l->attn.out, "out"}};
    for (size_t p = 0; p < sizeof projections / sizeof *projections; p++) {
        (void)snprintf(name, sizeof name, "%s.%d.self_attn.%s_proj", base, i, projections[p].name);
        dr_linear_init(projections[p].layer, set, name, c->width, c->width, true);
    }
    l->attn.heads = c->heads;
    l->attn.causal = true;
    (void)snprintf(name, sizeof name, "%s.%d.layer_norm2", base, i);
    dr_norm_init(&l->norm2, set, name, c->width, 0, c->eps, false);
    (void)snprintf(name, sizeof name, "%s.%d.mlp.fc1", base, i);
    dr_linear_init(&l->fc1, set, name, c->width, c->mlp_width, true);
    (void)snprintf(name, sizeof name, "%s.%d.mlp.fc2", base, i);
    dr_linear_init(&l->fc2, set, name, c->mlp_width, c->width, true);
}

void dr_clip_init(dr_clip *m, const dr_clip_config *config, dr_params *set)
{
    *m = (dr_clip){.config = *config, .params = set, .trained = set};
    m->layer = dr_arena_array(set->arena, (size_t)config->layers, sizeof *m->layer);
    m->first_segment = dr_params_begin_segment(set);
    m->tokens = dr_params_add(set, DR_PARAM_MATRIX, 2, DR_DIMS(config->vocab, config->width),
                              "text_model.embeddings.token_embedding.weight");
    m->positions = dr_params_add(set, DR_PARAM_MATRIX, 2, DR_DIMS(config->positions, config->width),
                                 "text_model.embeddings.position_embedding.weight");
    for (int i = 0; i < config->layers; i++) {
        (void)dr_params_begin_segment(set);
        init_layer(&m->layer[i], config, set, i);
    }
    (void)dr_params_begin_segment(set);
    dr_norm_init(&m->final_norm, set, "text_model.final_layer_norm", config->width, 0, config->eps,
                 false);
}

void dr_clip_freeze_skipped(dr_clip *m, int clip_skip)
{
    const int first = m->first_segment + 1 + m->config.layers - (clip_skip - 1);
    const int last = m->first_segment + m->config.layers;
    for (size_t i = 0; i < m->params->n; i++) {
        dr_param *p = m->params->at[i];
        if (p->segment >= first && p->segment <= last) {
            p->trainable = false;
        }
    }
}
