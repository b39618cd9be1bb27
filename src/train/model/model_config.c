/*
 * Diffusers' config.json files. Keys that change the network and have one value here are checked
 * against a table per class, in which an absent key has Diffusers' default.
 */
#include "train/model/model_file_internal.h"

#include "text/tokenizer.h"

#include <stdlib.h>
#include <stdio.h>
#include <string.h>

typedef enum fixed_kind {
    FIXED_NULL, /* absent or null */
    FIXED_BOOL, /* "true" or "false"; absent or null is fine; a list must hold only that */
    FIXED_INT,
    FIXED_TEXT
} fixed_kind;

typedef struct fixed_key { /* a key with one supported value */
    const char *key;
    fixed_kind kind;
    const char *value;
} fixed_key;

static const fixed_key unet_keys[] = {
    {"_class_name", FIXED_TEXT, "UNet2DConditionModel"},
    {"act_fn", FIXED_TEXT, "silu"},
    {"center_input_sample", FIXED_BOOL, "false"},
    {"flip_sin_to_cos", FIXED_BOOL, "true"},
    {"freq_shift", FIXED_INT, "0"},
    {"downsample_padding", FIXED_INT, "1"},
    {"mid_block_scale_factor", FIXED_INT, "1"},
    {"mid_block_type", FIXED_TEXT, "UNetMidBlock2DCrossAttn"},
    {"dropout", FIXED_INT, "0"},
    {"dual_cross_attention", FIXED_BOOL, "false"},
    {"only_cross_attention", FIXED_BOOL, "false"},
    {"mid_block_only_cross_attention", FIXED_BOOL, "false"},
    {"num_attention_heads", FIXED_NULL, NULL},
    {"reverse_transformer_layers_per_block", FIXED_NULL, NULL},
    {"class_embed_type", FIXED_NULL, NULL},
    {"num_class_embeds", FIXED_NULL, NULL},
    {"addition_embed_type", FIXED_NULL, NULL},
    {"encoder_hid_dim", FIXED_NULL, NULL},
    {"encoder_hid_dim_type", FIXED_NULL, NULL},
    {"resnet_time_scale_shift", FIXED_TEXT, "default"},
    {"resnet_skip_time_act", FIXED_BOOL, "false"},
    {"resnet_out_scale_factor", FIXED_INT, "1"},
    {"time_embedding_type", FIXED_TEXT, "positional"},
    {"time_embedding_dim", FIXED_NULL, NULL},
    {"time_embedding_act_fn", FIXED_NULL, NULL},
    {"timestep_post_act", FIXED_NULL, NULL},
    {"time_cond_proj_dim", FIXED_NULL, NULL},
    {"conv_in_kernel", FIXED_INT, "3"},
    {"conv_out_kernel", FIXED_INT, "3"},
    {"attention_type", FIXED_TEXT, "default"},
    {"cross_attention_norm", FIXED_NULL, NULL},
};

static const fixed_key vae_keys[] = {
    {"act_fn", FIXED_TEXT, "silu"},
    {"shift_factor", FIXED_NULL, NULL},
    {"latents_mean", FIXED_NULL, NULL},
    {"latents_std", FIXED_NULL, NULL},
    {"use_quant_conv", FIXED_BOOL, "true"},
    {"use_post_quant_conv", FIXED_BOOL, "true"},
    {"mid_block_add_attention", FIXED_BOOL, "true"},
};

static const fixed_key tiny_keys[] = {
    {"act_fn", FIXED_TEXT, "relu"},       {"upsampling_scaling_factor", FIXED_INT, "2"},
    {"latent_magnitude", FIXED_INT, "3"}, {"upsample_fn", FIXED_TEXT, "nearest"},
    {"shift_factor", FIXED_INT, "0"},
};

static const fixed_key clip_keys[] = {
    {"architectures/0", FIXED_TEXT, "CLIPTextModel"},
};

/* ---- checks -------------------------------------------------------------------------------- */

static void describe(const dr_json_doc *d, const char *key, dr_str *out)
{
    double number = 0.0;
    bool flag = false;
    const char *text = "";
    bool found = true;
    switch (dr_json_kind_of(d, key)) {
    case DR_JSON_BOOL:
        (void)(dr_json_get_bool(d, key, &flag, &found) == DR_OK);
        dr_str_add(out, flag ? "true" : "false");
        break;
    case DR_JSON_INT:
    case DR_JSON_REAL:
        (void)(dr_json_get_double(d, key, &number, &found) == DR_OK);
        dr_str_printf(out, "%.9g", number);
        break;
    case DR_JSON_STRING:
        (void)(dr_json_get_string(d, key, &text, &found) == DR_OK);
        dr_str_printf(out, "\"%s\"", text);
        break;
    case DR_JSON_LIST:
        dr_str_add(out, "a list");
        break;
    case DR_JSON_OBJECT:
        dr_str_add(out, "an object");
        break;
    default:
        dr_str_add(out, "null");
        break;
    }
}

/* What the file says of a key, spelled as in the table. */
static bool has_value(const dr_json_doc *d, const char *key, const fixed_key *k)
{
    dr_str found = {0};
    dr_str want = {0};
    describe(d, key, &found);
    dr_str_printf(&want, k->kind == FIXED_TEXT ? "\"%s\"" : "%s", k->value);
    const bool same = strcmp(dr_str_get(&found), dr_str_get(&want)) == 0;
    dr_str_free(&found);
    dr_str_free(&want);
    return same;
}

static dr_status check_key(const dr_json_doc *d, const char *path, const fixed_key *k)
{
    const dr_json_kind kind = dr_json_kind_of(d, k->key);
    if (kind == DR_JSON_ABSENT || kind == DR_JSON_NULL) {
        return DR_OK;
    }
    bool good = k->kind != FIXED_NULL && has_value(d, k->key, k);
    if (k->kind == FIXED_BOOL && kind == DR_JSON_LIST) {
        const dr_json_value *list = dr_json_member(dr_json_root(d), k->key);
        good = true;
        for (size_t i = 0; i < dr_json_size(list); i++) {
            char item[96];
            (void)snprintf(item, sizeof item, "%s/%zu", k->key, i);
            good = good && has_value(d, item, k);
        }
    }
    if (good) {
        return DR_OK;
    }
    dr_str found = {0};
    describe(d, k->key, &found);
    (void)dr_error_set(DR_FORMAT, __FILE__, __LINE__,
                       "%s: %s is %s, expected %s%s%s: this network is none of Stable Diffusion "
                       "1.x or 2.x and cannot be trained here",
                       path, k->key, dr_str_get(&found), k->kind == FIXED_TEXT ? "\"" : "",
                       k->kind == FIXED_NULL ? "null" : k->value,
                       k->kind == FIXED_TEXT ? "\"" : "");
    dr_str_free(&found);
    return DR_FORMAT;
}

static dr_status check_keys(const dr_json_doc *d, const char *path, const fixed_key *keys, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        DR_TRY(check_key(d, path, &keys[i]));
    }
    return DR_OK;
}
#define CHECK_KEYS(d, path, keys) check_keys((d), (path), (keys), sizeof(keys) / sizeof *(keys))

/* ---- values -------------------------------------------------------------------------------- */

static dr_status read_int(const dr_json_doc *d, const char *key, int64_t def, int64_t *out)
{
    bool found = false;
    *out = def;
    return dr_json_get_int(d, key, out, &found);
}

/* The same into an int; sizes beyond it make no network. */
static dr_status read_small(const dr_json_doc *d, const char *path, const char *key, int def,
                            int *out)
{
    int64_t v = 0;
    DR_TRY(read_int(d, key, def, &v));
    if (v < 0 || v > 1000000) {
        DR_FAIL(DR_FORMAT, "%s: %s is %lld, expected 0 to 1000000", path, key, (long long)v);
    }
    *out = (int)v;
    return DR_OK;
}

/*
 * An integer for all, or a list with one per level. n: levels; list: out, n of them. An absent key
 * is def.
 */
static dr_status read_per_level(const dr_json_doc *d, const char *path, const char *key,
                                int64_t def, int n, int64_t *list)
{
    if (dr_json_kind_of(d, key) != DR_JSON_LIST) {
        int64_t v = 0;
        DR_TRY(read_int(d, key, def, &v));
        for (int i = 0; i < n; i++) {
            list[i] = v;
        }
    } else {
        dr_json_ints v = {0};
        DR_TRY(dr_json_get_ints(d, key, &v, NULL));
        const size_t found = v.n;
        for (size_t i = 0; i < found && i < (size_t)n; i++) {
            list[i] = v.at[i];
        }
        dr_json_ints_free(&v);
        if (found != (size_t)n) {
            DR_FAIL(DR_FORMAT, "%s: %s has %zu entries, expected %d, one per block", path, key,
                    found, n);
        }
    }
    for (int i = 0; i < n; i++) {
        if (list[i] < 0 || list[i] > 1000000) {
            DR_FAIL(DR_FORMAT, "%s: %s is %lld, expected 0 to 1000000", path, key,
                    (long long)list[i]);
        }
    }
    return DR_OK;
}

/* A number that must be the same for every level. */
static dr_status read_uniform(const dr_json_doc *d, const char *path, const char *key, int64_t def,
                              int n, int64_t *out)
{
    int64_t list[DR_UNET_MAX_LEVELS] = {0};
    DR_TRY(read_per_level(d, path, key, def, n, list));
    for (int i = 1; i < n; i++) {
        if (list[i] != list[0]) {
            DR_FAIL(DR_FORMAT, "%s: %s differs between blocks (%lld and %lld), expected one value",
                    path, key, (long long)list[0], (long long)list[i]);
        }
    }
    *out = list[0];
    return DR_OK;
}

/* block_out_channels and its length. */
static dr_status read_channels(const dr_json_doc *d, const char *path, const int64_t *def,
                               int n_def, int64_t *channels, int max, int *n)
{
    *n = n_def;
    if (dr_json_kind_of(d, "block_out_channels") == DR_JSON_LIST) {
        const size_t size = dr_json_size(dr_json_member(dr_json_root(d), "block_out_channels"));
        if (size < 1 || size > (size_t)max) {
            DR_FAIL(DR_FORMAT, "%s: block_out_channels has %zu entries, expected 1 to %d", path,
                    size, max);
        }
        *n = (int)size;
        return read_per_level(d, path, "block_out_channels", 0, *n, channels);
    }
    memcpy(channels, def, (size_t)n_def * sizeof *def);
    return DR_OK;
}

static dr_status read_types(const dr_json_doc *d, const char *path, const char *key, int n,
                            dr_strv *out)
{
    bool found = false;
    DR_TRY(dr_json_get_strings(d, key, out, &found));
    if (found && out->n != (size_t)n) {
        DR_FAIL(DR_FORMAT, "%s: %s has %zu entries, expected %d, as block_out_channels", path, key,
                out->n, n);
    }
    return DR_OK;
}

/* ---- U-Net --------------------------------------------------------------------------------- */

static dr_status fail_block(const char *path, const char *key, size_t i, const char *found,
                            const char *expected)
{
    DR_FAIL(DR_FORMAT, "%s: %s[%zu] is \"%s\", expected %s", path, key, i, found, expected);
}

static dr_status apply_down_types(dr_unet_config *c, const char *path, const dr_strv *down)
{
    for (size_t i = 0; i < down->n; i++) {
        c->attention[i] = strcmp(down->at[i], "CrossAttnDownBlock2D") == 0;
        if (!c->attention[i] && strcmp(down->at[i], "DownBlock2D") != 0) {
            return fail_block(path, "down_block_types", i, down->at[i],
                              "\"CrossAttnDownBlock2D\" or \"DownBlock2D\"");
        }
    }
    return DR_OK;
}

/* The way up must mirror the way down. */
static dr_status check_up_types(const dr_unet_config *c, const char *path, const dr_strv *up)
{
    for (size_t i = 0; i < up->n; i++) {
        const char *want =
            c->attention[c->n_levels - 1 - (int)i] ? "CrossAttnUpBlock2D" : "UpBlock2D";
        if (strcmp(up->at[i], want) != 0) {
            return fail_block(path, "up_block_types", i, up->at[i],
                              c->attention[c->n_levels - 1 - (int)i]
                                  ? "\"CrossAttnUpBlock2D\", the mirror of down_block_types"
                                  : "\"UpBlock2D\", the mirror of down_block_types");
        }
    }
    return DR_OK;
}

static dr_status read_blocks(dr_unet_config *c, const dr_json_doc *d, const char *path)
{
    static const int64_t channels[] = {320, 640, 1280, 1280};
    int64_t heads[DR_UNET_MAX_LEVELS] = {0};
    int64_t depth[DR_UNET_MAX_LEVELS] = {0};
    dr_strv down = {0};
    dr_strv up = {0};
    DR_TRY(read_channels(d, path, channels, 4, c->channels, DR_UNET_MAX_LEVELS, &c->n_levels));
    DR_TRY(read_per_level(d, path, "attention_head_dim", 8, c->n_levels, heads));
    DR_TRY(read_per_level(d, path, "transformer_layers_per_block", 1, c->n_levels, depth));
    for (int i = 0; i < c->n_levels; i++) {
        c->heads[i] = (int)heads[i];
        c->depth[i] = (int)depth[i];
        c->attention[i] = i + 1 < c->n_levels;
    }
    dr_status st = read_types(d, path, "down_block_types", c->n_levels, &down);
    DR_KEEP_FIRST(read_types(d, path, "up_block_types", c->n_levels, &up), st);
    if (st == DR_OK) {
        st = apply_down_types(c, path, &down);
    }
    if (st == DR_OK) {
        st = check_up_types(c, path, &up);
    }
    dr_strv_free(&down);
    dr_strv_free(&up);
    return st;
}

static dr_status read_unet(dr_unet_config *c, const dr_json_doc *d, const char *path)
{
    bool found = false;
    double eps = 1e-5;
    int64_t layers = 0;
    *c = (dr_unet_config){0};
    DR_TRY(CHECK_KEYS(d, path, unet_keys));
    DR_TRY(read_blocks(c, d, path));
    DR_TRY(read_int(d, "in_channels", 4, &c->in_channels));
    DR_TRY(read_int(d, "out_channels", 4, &c->out_channels));
    DR_TRY(read_uniform(d, path, "layers_per_block", 2, c->n_levels, &layers));
    DR_TRY(read_uniform(d, path, "cross_attention_dim", 1280, c->n_levels, &c->context_dim));
    DR_TRY(read_small(d, path, "norm_num_groups", 32, &c->norm_groups));
    DR_TRY(dr_json_get_double(d, "norm_eps", &eps, &found));
    DR_TRY(dr_json_get_bool(d, "use_linear_projection", &c->linear_projection, &found));
    c->layers_per_block = (int)layers;
    c->norm_eps = (float)eps;
    if (c->in_channels == 9 || c->in_channels == 8) {
        DR_FAIL(DR_FORMAT, "%s: in_channels is %lld, expected 4: %s, which cannot be trained here",
                path, (long long)c->in_channels,
                c->in_channels == 9 ? "an inpainting model" : "an instruct-pix2pix model");
    }
    const dr_status st = dr_unet_config_check(c);
    return st == DR_OK ? DR_OK : dr_error_prefix(st, "%s", path);
}

dr_status dr_unet_config_read(dr_unet_config *c, const char *path)
{
    dr_json_doc *d = NULL;
    DR_TRY(dr_json_open(&d, path));
    const dr_status st = read_unet(c, d, path);
    dr_json_close(d);
    return st;
}

/* ---- text encoder -------------------------------------------------------------------------- */

static dr_status read_clip(dr_clip_config *c, const dr_json_doc *d, const char *path)
{
    bool found = false;
    double eps = 1e-5;
    const char *act = "quick_gelu";
    *c = (dr_clip_config){0};
    DR_TRY(CHECK_KEYS(d, path, clip_keys));
    DR_TRY(read_int(d, "vocab_size", DR_TOKEN_VOCAB, &c->vocab));
    DR_TRY(read_int(d, "max_position_embeddings", DR_TOKEN_ROW, &c->positions));
    DR_TRY(read_int(d, "hidden_size", 512, &c->width));
    DR_TRY(read_int(d, "intermediate_size", 2048, &c->mlp_width));
    DR_TRY(read_small(d, path, "num_hidden_layers", 12, &c->layers));
    DR_TRY(read_small(d, path, "num_attention_heads", 8, &c->heads));
    DR_TRY(dr_json_get_double(d, "layer_norm_eps", &eps, &found));
    DR_TRY(dr_json_get_string(d, "hidden_act", &act, &found));
    c->eps = (float)eps;
    dr_status st = dr_clip_act_from_name(act, &c->act);
    if (st == DR_OK) {
        st = dr_clip_config_check(c);
    }
    return st == DR_OK ? DR_OK : dr_error_prefix(st, "%s", path);
}

dr_status dr_clip_config_read(dr_clip_config *c, const char *path)
{
    dr_json_doc *d = NULL;
    DR_TRY(dr_json_open(&d, path));
    const dr_status st = read_clip(c, d, path);
    dr_json_close(d);
    return st;
}

/* ---- VAE ----------------------------------------------------------------------------------- */

static dr_status check_all(const dr_json_doc *d, const char *path, const char *key, int n,
                           const char *want)
{
    dr_strv types = {0};
    dr_status st = read_types(d, path, key, n, &types);
    for (size_t i = 0; st == DR_OK && i < types.n; i++) {
        if (strcmp(types.at[i], want) != 0) {
            st = fail_block(path, key, i, types.at[i], want);
        }
    }
    dr_strv_free(&types);
    return st;
}

static dr_status read_kl(dr_vae_config *c, const dr_json_doc *d, const char *path)
{
    static const int64_t channels[] = {64};
    bool found = false;
    *c = (dr_vae_config){.scaling_factor = 0.18215};
    DR_TRY(CHECK_KEYS(d, path, vae_keys));
    DR_TRY(read_channels(d, path, channels, 1, c->channels, DR_VAE_MAX_LEVELS, &c->n_levels));
    DR_TRY(check_all(d, path, "down_block_types", c->n_levels, "DownEncoderBlock2D"));
    DR_TRY(check_all(d, path, "up_block_types", c->n_levels, "UpDecoderBlock2D"));
    DR_TRY(read_int(d, "in_channels", 3, &c->in_channels));
    DR_TRY(read_int(d, "out_channels", 3, &c->out_channels));
    DR_TRY(read_int(d, "latent_channels", 4, &c->latent_channels));
    DR_TRY(read_small(d, path, "layers_per_block", 1, &c->layers_per_block));
    DR_TRY(read_small(d, path, "norm_num_groups", 32, &c->norm_groups));
    return dr_json_get_double(d, "scaling_factor", &c->scaling_factor, &found);
}

/* num_{en,de}coder_blocks: one count per stage; *n is 0 or the length that it must have. */
static dr_status read_stages(const dr_json_doc *d, const char *path, const char *key, int *n,
                             int *blocks)
{
    const size_t size = dr_json_size(dr_json_member(dr_json_root(d), key));
    int64_t list[DR_TAESD_MAX_STAGES] = {0};
    if (size == 0) {
        return DR_OK; /* the default */
    }
    if (size > DR_TAESD_MAX_STAGES) {
        DR_FAIL(DR_FORMAT, "%s: %s has %zu entries, expected at most %d", path, key, size,
                DR_TAESD_MAX_STAGES);
    }
    DR_TRY(read_per_level(d, path, key, 0, (int)size, list));
    for (size_t i = 0; i < size; i++) {
        blocks[i] = (int)list[i];
    }
    *n = (int)size;
    return DR_OK;
}

static dr_status read_width(const dr_json_doc *d, const char *path, const char *key, int n,
                            int64_t *width)
{
    int64_t found = 0;
    DR_TRY(read_uniform(d, path, key, 64, n, &found));
    if (*width != 0 && found != *width) {
        DR_FAIL(DR_FORMAT, "%s: %s is %lld, expected %lld as in the encoder", path, key,
                (long long)found, (long long)*width);
    }
    *width = found;
    return DR_OK;
}

static dr_status read_tiny(dr_taesd_config *c, const dr_json_doc *d, const char *path)
{
    bool found = false;
    *c = dr_taesd_config_default();
    int n_decoder = c->n_stages;
    DR_TRY(CHECK_KEYS(d, path, tiny_keys));
    DR_TRY(read_stages(d, path, "num_encoder_blocks", &c->n_stages, c->encoder_blocks));
    DR_TRY(read_stages(d, path, "num_decoder_blocks", &n_decoder, c->decoder_blocks));
    if (n_decoder != c->n_stages) {
        DR_FAIL(DR_FORMAT,
                "%s: num_decoder_blocks has %d entries, expected %d as "
                "num_encoder_blocks",
                path, n_decoder, c->n_stages);
    }
    c->width = 0;
    DR_TRY(read_width(d, path, "encoder_block_out_channels", c->n_stages, &c->width));
    DR_TRY(read_width(d, path, "decoder_block_out_channels", c->n_stages, &c->width));
    DR_TRY(read_int(d, "in_channels", 3, &c->in_channels));
    DR_TRY(read_int(d, "out_channels", 3, &c->out_channels));
    DR_TRY(read_int(d, "latent_channels", 4, &c->latent_channels));
    return dr_json_get_double(d, "scaling_factor", &c->scaling_factor, &found);
}

static dr_status read_autoencoder(dr_autoencoder_config *c, const dr_json_doc *d, const char *path)
{
    const char *class_name = "AutoencoderKL";
    bool found = false;
    *c = (dr_autoencoder_config){.kind = DR_VAE_KL};
    DR_TRY(dr_json_get_string(d, "_class_name", &class_name, &found));
    if (strcmp(class_name, "AutoencoderTiny") == 0) {
        c->kind = DR_VAE_TINY;
        DR_TRY(read_tiny(&c->tiny, d, path));
    } else if (strcmp(class_name, "AutoencoderKL") == 0) {
        DR_TRY(read_kl(&c->kl, d, path));
    } else {
        DR_FAIL(DR_FORMAT,
                "%s: _class_name is \"%s\", expected \"AutoencoderKL\" or \"AutoencoderTiny\"",
                path, class_name);
    }
    const dr_status st = dr_autoencoder_config_check(c);
    return st == DR_OK ? DR_OK : dr_error_prefix(st, "%s", path);
}

dr_status dr_autoencoder_config_read(dr_autoencoder_config *c, const char *path)
{
    dr_json_doc *d = NULL;
    DR_TRY(dr_json_open(&d, path));
    const dr_status st = read_autoencoder(c, d, path);
    dr_json_close(d);
    return st;
}

/* ---- scheduler ----------------------------------------------------------------------------- */

dr_status dr_scheduler_config_read(dr_model_config *c, const char *path)
{
    dr_json_doc *d = NULL;
    const char *type = "epsilon";
    bool found = false;
    DR_TRY(dr_json_open(&d, path));
    dr_status st = dr_json_get_string(d, "prediction_type", &type, &found);
    if (st == DR_OK && strcmp(type, "epsilon") != 0 && strcmp(type, "v_prediction") != 0) {
        st = dr_error_set(DR_FORMAT, __FILE__, __LINE__,
                          "%s: prediction_type is \"%s\", expected \"epsilon\" or "
                          "\"v_prediction\"",
                          path, type);
    }
    c->v_prediction = st == DR_OK && strcmp(type, "v_prediction") == 0;
    if (st == DR_OK) {
        st = dr_json_get_bool(d, "rescale_betas_zero_snr", &c->zero_terminal_snr, &found);
    }
    dr_json_close(d);
    return st;
}
