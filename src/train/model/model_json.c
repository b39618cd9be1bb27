/*
 * The JSON files of a Diffusers directory, written without a network: what Diffusers itself writes
 * for these classes, as far as it means anything. Source: spec/models.md 9.
 */
#include "base/file.h"
#include "train/model/model_output.h"

#include <stdlib.h>

static const char version[] = "0.30.0"; /* of Diffusers, in whose layout the files are */

typedef struct object { /* a JSON object, one member per line */
    dr_str text;
    int n;
} object;

static void key(object *o, const char *name)
{
    dr_str_add(&o->text, o->n++ == 0 ? "{\n  " : ",\n  ");
    dr_json_add_string(&o->text, name);
    dr_str_add(&o->text, ": ");
}

static void put_text(object *o, const char *name, const char *value)
{
    key(o, name);
    dr_json_add_string(&o->text, value);
}

static void put_raw(object *o, const char *name, const char *value)
{
    key(o, name);
    dr_str_add(&o->text, value);
}

static void put_bool(object *o, const char *name, bool value)
{
    put_raw(o, name, value ? "true" : "false");
}

static void put_int(object *o, const char *name, int64_t value)
{
    key(o, name);
    dr_str_printf(&o->text, "%lld", (long long)value);
}

/* Shortest text that reads back as the same float. */
static void put_real(object *o, const char *name, double value)
{
    char buf[32];
    key(o, name);
    for (int digits = 1; digits <= 17; digits++) {
        (void)snprintf(buf, sizeof buf, "%.*g", digits, value);
        double back = 0.0;
        if (dr_parse_f64(buf, &back) && (float)back == (float)value) {
            break;
        }
    }
    dr_str_add(&o->text, buf);
}

static void put_ints(object *o, const char *name, const int64_t *list, int n)
{
    key(o, name);
    for (int i = 0; i < n; i++) {
        dr_str_printf(&o->text, "%s%lld", i == 0 ? "[" : ", ", (long long)list[i]);
    }
    dr_str_add(&o->text, "]");
}

static void put_small_ints(object *o, const char *name, const int *list, int n)
{
    int64_t wide[DR_UNET_MAX_LEVELS];
    DR_CHECK(n <= DR_UNET_MAX_LEVELS, "%s has %d entries", name, n);
    for (int i = 0; i < n; i++) {
        wide[i] = list[i];
    }
    put_ints(o, name, wide, n);
}

/* [library, class]; class NULL: [null, null] */
static void put_class(object *o, const char *name, const char *library, const char *class_name)
{
    key(o, name);
    if (class_name == NULL) {
        dr_str_add(&o->text, "[null, null]");
        return;
    }
    dr_str_add(&o->text, "[");
    dr_json_add_string(&o->text, library);
    dr_str_add(&o->text, ", ");
    dr_json_add_string(&o->text, class_name);
    dr_str_add(&o->text, "]");
}

static void put_repeated(object *o, const char *name, const char *value, int n)
{
    key(o, name);
    for (int i = 0; i < n; i++) {
        dr_str_add(&o->text, i == 0 ? "[" : ", ");
        dr_json_add_string(&o->text, value);
    }
    dr_str_add(&o->text, "]");
}

static void put_head(object *o, const char *class_name)
{
    put_text(o, "_class_name", class_name);
    put_text(o, "_diffusers_version", version);
}

static dr_status finish(object *o, const char *path)
{
    dr_str_add(&o->text, "\n}\n");
    const dr_status st = dr_file_write(path, o->text.data, o->text.len);
    dr_str_free(&o->text);
    return st;
}

/* ---- U-Net --------------------------------------------------------------------------------- */

static void put_blocks(object *o, const dr_unet_config *c)
{
    key(o, "down_block_types");
    for (int i = 0; i < c->n_levels; i++) {
        dr_str_printf(&o->text, "%s\"%s\"", i == 0 ? "[" : ", ",
                      c->attention[i] ? "CrossAttnDownBlock2D" : "DownBlock2D");
    }
    dr_str_add(&o->text, "]");
    key(o, "up_block_types");
    for (int i = c->n_levels; i-- > 0;) {
        dr_str_printf(&o->text, "%s\"%s\"", i == c->n_levels - 1 ? "[" : ", ",
                      c->attention[i] ? "CrossAttnUpBlock2D" : "UpBlock2D");
    }
    dr_str_add(&o->text, "]");
}

static bool all_equal(const int *list, int n)
{
    for (int i = 1; i < n; i++) {
        if (list[i] != list[0]) {
            return false;
        }
    }
    return true;
}

/* One number when all are equal, else a list. */
static void put_per_level(object *o, const char *name, const int *list, int n)
{
    if (all_equal(list, n)) {
        put_int(o, name, list[0]);
    } else {
        put_small_ints(o, name, list, n);
    }
}

/* Latent side of the pictures that the family was trained on; a tiny model: 8 times the factor. */
static int64_t sample_size(const dr_model_config *c)
{
    return c->v2 && c->v_prediction ? 96 : 64;
}

dr_status dr_unet_config_write(const dr_model_config *config, const char *path)
{
    const dr_unet_config *c = &config->unet;
    object o = {0};
    put_head(&o, "UNet2DConditionModel");
    put_text(&o, "act_fn", "silu");
    put_per_level(&o, "attention_head_dim", c->heads, c->n_levels);
    put_ints(&o, "block_out_channels", c->channels, c->n_levels);
    put_bool(&o, "center_input_sample", false);
    put_int(&o, "cross_attention_dim", c->context_dim);
    put_blocks(&o, c);
    put_int(&o, "downsample_padding", 1);
    put_bool(&o, "dual_cross_attention", false);
    put_bool(&o, "flip_sin_to_cos", true);
    put_int(&o, "freq_shift", 0);
    put_int(&o, "in_channels", c->in_channels);
    put_int(&o, "layers_per_block", c->layers_per_block);
    put_int(&o, "mid_block_scale_factor", 1);
    put_real(&o, "norm_eps", (double)c->norm_eps);
    put_int(&o, "norm_num_groups", c->norm_groups);
    put_raw(&o, "num_class_embeds", "null");
    put_bool(&o, "only_cross_attention", false);
    put_int(&o, "out_channels", c->out_channels);
    put_int(&o, "sample_size", sample_size(config));
    put_per_level(&o, "transformer_layers_per_block", c->depth, c->n_levels);
    put_bool(&o, "upcast_attention", config->v2 && config->v_prediction);
    put_bool(&o, "use_linear_projection", c->linear_projection);
    return finish(&o, path);
}

/* ---- text encoder -------------------------------------------------------------------------- */

dr_status dr_clip_config_write(const dr_model_config *config, const char *path)
{
    const dr_clip_config *c = &config->clip;
    object o = {0};
    put_raw(&o, "architectures", "[\"CLIPTextModel\"]");
    put_int(&o, "attention_dropout", 0);
    put_int(&o, "bos_token_id", 0);
    put_int(&o, "dropout", 0);
    put_int(&o, "eos_token_id", 2);
    put_text(&o, "hidden_act", dr_clip_act_name(c->act));
    put_int(&o, "hidden_size", c->width);
    put_int(&o, "initializer_factor", 1);
    put_real(&o, "initializer_range", 0.02);
    put_int(&o, "intermediate_size", c->mlp_width);
    put_real(&o, "layer_norm_eps", (double)c->eps);
    put_int(&o, "max_position_embeddings", c->positions);
    put_text(&o, "model_type", "clip_text_model");
    put_int(&o, "num_attention_heads", c->heads);
    put_int(&o, "num_hidden_layers", c->layers);
    put_int(&o, "pad_token_id", 1);
    put_int(&o, "projection_dim", config->v2 ? 512 : c->width);
    put_text(&o, "torch_dtype", "float32");
    put_int(&o, "vocab_size", c->vocab);
    return finish(&o, path);
}

/* ---- VAE ----------------------------------------------------------------------------------- */

static void put_kl(object *o, const dr_model_config *config)
{
    const dr_vae_config *c = &config->vae.kl;
    put_head(o, "AutoencoderKL");
    put_text(o, "act_fn", "silu");
    put_ints(o, "block_out_channels", c->channels, c->n_levels);
    put_repeated(o, "down_block_types", "DownEncoderBlock2D", c->n_levels);
    put_int(o, "in_channels", c->in_channels);
    put_int(o, "latent_channels", c->latent_channels);
    put_int(o, "layers_per_block", c->layers_per_block);
    put_int(o, "norm_num_groups", c->norm_groups);
    put_int(o, "out_channels", c->out_channels);
    put_int(o, "sample_size", 8 * sample_size(config));
    put_real(o, "scaling_factor", c->scaling_factor);
    put_repeated(o, "up_block_types", "UpDecoderBlock2D", c->n_levels);
}

static void put_tiny(object *o, const dr_model_config *config)
{
    const dr_taesd_config *c = &config->vae.tiny;
    int64_t width[DR_TAESD_MAX_STAGES];
    for (int i = 0; i < c->n_stages; i++) {
        width[i] = c->width;
    }
    put_head(o, "AutoencoderTiny");
    put_text(o, "act_fn", "relu");
    put_ints(o, "decoder_block_out_channels", width, c->n_stages);
    put_ints(o, "encoder_block_out_channels", width, c->n_stages);
    put_bool(o, "force_upcast", false);
    put_int(o, "in_channels", c->in_channels);
    put_int(o, "latent_channels", c->latent_channels);
    put_int(o, "latent_magnitude", 3);
    put_real(o, "latent_shift", 0.5);
    put_small_ints(o, "num_decoder_blocks", c->decoder_blocks, c->n_stages);
    put_small_ints(o, "num_encoder_blocks", c->encoder_blocks, c->n_stages);
    put_int(o, "out_channels", c->out_channels);
    put_real(o, "scaling_factor", c->scaling_factor);
    put_int(o, "upsampling_scaling_factor", 2);
}

dr_status dr_autoencoder_config_write(const dr_model_config *config, const char *path)
{
    object o = {0};
    if (config->vae.kind == DR_VAE_KL) {
        put_kl(&o, config);
    } else {
        put_tiny(&o, config);
    }
    return finish(&o, path);
}

/* ---- scheduler and index ------------------------------------------------------------------- */

dr_status dr_scheduler_config_write(const dr_model_config *config, const char *path)
{
    object o = {0};
    put_head(&o, "DDIMScheduler");
    put_raw(&o, "beta_end", "0.012");
    put_text(&o, "beta_schedule", "scaled_linear");
    put_raw(&o, "beta_start", "0.00085");
    put_bool(&o, "clip_sample", false);
    put_int(&o, "num_train_timesteps", 1000);
    put_text(&o, "prediction_type", config->v_prediction ? "v_prediction" : "epsilon");
    put_bool(&o, "set_alpha_to_one", false);
    put_int(&o, "steps_offset", 1);
    put_text(&o, "timestep_spacing", "leading");
    put_raw(&o, "trained_betas", "null");
    return finish(&o, path);
}

dr_status dr_model_index_write(const dr_model_config *config, const char *scheduler,
                               const char *tokenizer, const char *path)
{
    object o = {0};
    put_head(&o, "StableDiffusionPipeline");
    put_class(&o, "feature_extractor", NULL, NULL);
    put_bool(&o, "requires_safety_checker", false);
    put_class(&o, "safety_checker", NULL, NULL);
    put_class(&o, "scheduler", "diffusers", scheduler);
    put_class(&o, "text_encoder", "transformers", "CLIPTextModel");
    put_class(&o, "tokenizer", "transformers", tokenizer);
    put_class(&o, "unet", "diffusers", "UNet2DConditionModel");
    put_class(&o, "vae", "diffusers",
              config->vae.kind == DR_VAE_KL ? "AutoencoderKL" : "AutoencoderTiny");
    return finish(&o, path);
}
