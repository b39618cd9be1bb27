/*
 * Metadata of the single files that we write: what shapes do not tell, when it is not what every
 * SD 1.x or 2.x model has. The table is the list of keys.
 */
#include "train/model/model_file_internal.h"

#include <stdio.h>
#include <string.h>

enum { HEADS_SD1 = 8, HEAD_WIDTH = 64, GROUPS = 32 };
static const double default_eps = 1e-5;
static const double default_scale = 0.18215;

static const char heads_key[] =
    "dreamrun.attention_head_dim"; /* head counts, as Diffusers calls it */

typedef struct fact { /* a number */
    dr_model_part part;
    const char *key;
    double (*get)(const dr_model_config *c);
    void (*set)(dr_model_config *c, double v);
    double (*expected)(const dr_model_config *c); /* what a reader of shapes assumes */
    double least, most;
} fact;

static double get_groups(const dr_model_config *c)
{
    return c->unet.norm_groups;
}
static void set_groups(dr_model_config *c, double v)
{
    c->unet.norm_groups = (int)v;
}
static double get_eps(const dr_model_config *c)
{
    return (double)c->unet.norm_eps;
}
static void set_eps(dr_model_config *c, double v)
{
    c->unet.norm_eps = (float)v;
}
static double get_clip_heads(const dr_model_config *c)
{
    return c->clip.heads;
}
static void set_clip_heads(dr_model_config *c, double v)
{
    c->clip.heads = (int)v;
}
static double get_clip_eps(const dr_model_config *c)
{
    return (double)c->clip.eps;
}
static void set_clip_eps(dr_model_config *c, double v)
{
    c->clip.eps = (float)v;
}
static double get_vae_groups(const dr_model_config *c)
{
    return c->vae.kl.norm_groups;
}
static void set_vae_groups(dr_model_config *c, double v)
{
    c->vae.kl.norm_groups = (int)v;
}
static double get_vae_scale(const dr_model_config *c)
{
    return c->vae.kl.scaling_factor;
}
static void set_vae_scale(dr_model_config *c, double v)
{
    c->vae.kl.scaling_factor = v;
}
static double expect_groups(const dr_model_config *c)
{
    (void)c;
    return GROUPS;
}
static double expect_eps(const dr_model_config *c)
{
    (void)c;
    return (double)(float)default_eps;
}
static double expect_clip_heads(const dr_model_config *c)
{
    return c->clip.width % HEAD_WIDTH == 0 ? (double)(c->clip.width / HEAD_WIDTH) : 0.0;
}
static double expect_scale(const dr_model_config *c)
{
    (void)c;
    return default_scale;
}

static const fact facts[] = {
    {DR_PART_UNET, "dreamrun.norm_num_groups", get_groups, set_groups, expect_groups, 1, 1e6},
    {DR_PART_UNET, "dreamrun.norm_eps", get_eps, set_eps, expect_eps, 0, 1},
    {DR_PART_TEXT_ENCODER, "dreamrun.text_encoder.num_attention_heads", get_clip_heads,
     set_clip_heads, expect_clip_heads, 1, 1e6},
    {DR_PART_TEXT_ENCODER, "dreamrun.text_encoder.layer_norm_eps", get_clip_eps, set_clip_eps,
     expect_eps, 0, 1},
    {DR_PART_VAE, "dreamrun.vae.norm_num_groups", get_vae_groups, set_vae_groups, expect_groups, 1,
     1e6},
    {DR_PART_VAE, "dreamrun.vae.scaling_factor", get_vae_scale, set_vae_scale, expect_scale, 0,
     1e6},
};

/* ---- reading ------------------------------------------------------------------------------- */

static dr_status read_heads(dr_unet_config *c, const dr_tensor_file *s)
{
    const char *text = dr_tensor_file_meta_get(s, heads_key);
    dr_json_doc *d = NULL;
    dr_json_ints heads = {0};
    if (text == NULL) {
        return DR_OK;
    }
    DR_TRY(dr_json_parse(&d, heads_key, text, strlen(text)));
    dr_status st = dr_json_get_ints(d, "", &heads, NULL);
    dr_json_close(d);
    if (st == DR_OK && heads.n != (size_t)c->n_levels) {
        st = dr_error_set(DR_FORMAT, __FILE__, __LINE__,
                          "metadata %s has %zu entries, expected %d, one per level", heads_key,
                          heads.n, c->n_levels);
    }
    for (int i = 0; st == DR_OK && i < c->n_levels; i++) {
        const int64_t h = heads.at[i];
        c->heads[i] = h > 0 && h <= c->channels[i] ? (int)h : 0; /* 0 fails the config's check */
    }
    dr_json_ints_free(&heads);
    return st;
}

static dr_status read_numbers(dr_model_config *c, dr_model_part part, const dr_tensor_file *s)
{
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++) {
        const char *text = dr_tensor_file_meta_get(s, facts[i].key);
        double v = 0.0;
        if (facts[i].part != part || text == NULL) {
            continue;
        }
        if (!dr_parse_f64(text, &v) || v < facts[i].least || v > facts[i].most) {
            DR_FAIL(DR_FORMAT, "metadata %s is \"%s\", expected a number from %g to %g",
                    facts[i].key, text, facts[i].least, facts[i].most);
        }
        facts[i].set(c, v);
    }
    return DR_OK;
}

dr_status dr_model_facts_read(dr_model_config *c, dr_model_part part, const dr_tensor_file *s)
{
    dr_status st = part == DR_PART_UNET ? read_heads(&c->unet, s) : DR_OK;
    if (st == DR_OK) {
        st = read_numbers(c, part, s);
    }
    return st == DR_OK ? DR_OK : dr_error_prefix(st, "%s", dr_tensor_file_path(s));
}

/* ---- writing ------------------------------------------------------------------------------- */

static bool usual_heads(const dr_model_config *c)
{
    for (int i = 0; i < c->unet.n_levels; i++) {
        if (c->unet.heads[i] != (c->v2 ? c->unet.channels[i] / HEAD_WIDTH : HEADS_SD1)) {
            return false;
        }
    }
    return true;
}

static const char *heads_text(const dr_unet_config *c, dr_arena *arena)
{
    dr_str text = {0};
    for (int i = 0; i < c->n_levels; i++) {
        dr_str_printf(&text, "%s%d", i == 0 ? "[" : ",", c->heads[i]);
    }
    dr_str_add(&text, "]");
    const char *kept = dr_arena_strdup(arena, dr_str_get(&text));
    dr_str_free(&text);
    return kept;
}

size_t dr_model_facts_write(const dr_model_config *c, dr_arena *arena,
                            dr_safetensors_meta out[DR_MODEL_MAX_FACTS])
{
    size_t n = 0;
    if (!usual_heads(c)) {
        out[n++] = (dr_safetensors_meta){heads_key, heads_text(&c->unet, arena)};
    }
    if (c->v2 || c->v_prediction) { /* SD 2.x has both kinds, SD 1.x hardly ever v */
        out[n++] =
            (dr_safetensors_meta){DR_FACT_PREDICTION, c->v_prediction ? "v_prediction" : "epsilon"};
    }
    for (size_t i = 0; i < sizeof facts / sizeof *facts; i++) {
        const double v = facts[i].get(c);
        if ((facts[i].part == DR_PART_VAE && c->vae.kind != DR_VAE_KL) ||
            v == facts[i].expected(c)) {
            continue;
        }
        char text[32];
        if (v == (double)(int64_t)v) {
            (void)snprintf(text, sizeof text, "%lld", (long long)v);
        } else {
            dr_float_repr(v, text);
        }
        out[n++] = (dr_safetensors_meta){facts[i].key, dr_arena_strdup(arena, text)};
    }
    return n;
}
