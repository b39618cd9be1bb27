#include "apps/network_settings.h"

#include "apps/network_facts.h"
#include "base/log.h"

#include <string.h>

enum { DEFAULT_DIM = 4 };

static const char lycoris[] = "lycoris.kohya";

static bool is_lycoris(const dr_options *o)
{
    const char *module = dr_opt_str(o, DR_OPT_network_module);
    return module != NULL && strcmp(module, lycoris) == 0;
}

static dr_status check_module(const dr_options *o)
{
    const char *module = dr_opt_str(o, DR_OPT_network_module);
    if (module == NULL) {
        DR_FAIL(DR_INVALID, "--network_module is missing: the kind of network, networks.lora");
    }
    if (strcmp(module, "networks.lora") != 0 && !is_lycoris(o)) {
        DR_FAIL(DR_UNSUPPORTED,
                "--network_module %s: Python modules cannot be loaded here; available: "
                "networks.lora, lycoris.kohya",
                module);
    }
    return DR_OK;
}

/* What lycoris.kohya cannot be combined with. */
static dr_status check_lycoris(const dr_lora_settings *s)
{
    if (s->kind == DR_LORA_KRONECKER && s->dim_from_weights) {
        DR_FAIL(DR_UNSUPPORTED,
                "--dim_from_weights: a LoKr's file does not tell its factor, and of "
                "whole matrices no rank; give --network_dim and the --network_args "
                "that it was trained with");
    }
    if (s->dialect == DR_LORA_DIFFUSERS &&
        (s->kind != DR_LORA_FACTORS || s->form.tucker || s->form.magnitude)) {
        DR_FAIL(DR_INVALID, "--lora_format diffusers has names for up and down only: leave it out "
                            "with algo=loha, algo=lokr, use_tucker and dora_wd");
    }
    return DR_OK;
}

/* The first of --text_encoder_lr, as sd-scripts; the run has one text encoder. */
static dr_status text_rate(const dr_options *o, double lr, double *out)
{
    const dr_strv *list = dr_opt_list(o, DR_OPT_text_encoder_lr);
    *out = lr;
    if (list->n > 1) {
        dr_warn("--text_encoder_lr: %zu values; the model has one text encoder, which gets the "
                "first",
                list->n);
    }
    if (list->n > 0 && !dr_parse_f64(list->at[0], out)) {
        DR_FAIL(DR_INVALID, "--text_encoder_lr: found '%s', expected a number", list->at[0]);
    }
    return DR_OK;
}

static dr_status check_weights(const dr_options *o)
{
    if (dr_opt_flag(o, DR_OPT_dim_from_weights) && dr_opt_str(o, DR_OPT_network_weights) == NULL) {
        DR_FAIL(DR_INVALID, "--dim_from_weights needs --network_weights: the file whose ranks it "
                            "takes");
    }
    if (dr_opt_flag(o, DR_OPT_network_train_unet_only) &&
        dr_opt_flag(o, DR_OPT_network_train_text_encoder_only)) {
        DR_FAIL(DR_INVALID, "--network_train_unet_only and --network_train_text_encoder_only "
                            "exclude each other; leave one out");
    }
    return DR_OK;
}

static dr_status base_weights(const dr_options *o, dr_arena *arena, dr_lora_settings *s)
{
    const dr_strv *files = dr_opt_list(o, DR_OPT_base_weights);
    const dr_strv *ratios = dr_opt_list(o, DR_OPT_base_weights_multiplier);
    dr_lora_base *base = dr_arena_array(arena, files->n + 1, sizeof *base);
    if (ratios->n > files->n) {
        DR_FAIL(DR_INVALID, "--base_weights_multiplier: %zu numbers for %zu --base_weights",
                ratios->n, files->n);
    }
    for (size_t i = 0; i < files->n; i++) {
        base[i] = (dr_lora_base){.path = files->at[i], .ratio = 1.0};
        if (i < ratios->n && !dr_parse_f64(ratios->at[i], &base[i].ratio)) {
            DR_FAIL(DR_INVALID, "--base_weights_multiplier: found '%s', expected a number",
                    ratios->at[i]);
        }
    }
    s->base = base;
    s->n_base = files->n;
    return DR_OK;
}

dr_status dr_network_settings(const dr_options *o, dr_arena *arena, dr_train_config *c)
{
    dr_lora_settings *s = dr_arena_alloc(arena, sizeof *s);
    const char *ending = dr_opt_str(o, DR_OPT_save_model_as_network);
    const bool only_text = dr_opt_flag(o, DR_OPT_network_train_text_encoder_only);
    const bool only_unet = dr_opt_flag(o, DR_OPT_network_train_unet_only);
    DR_TRY(check_module(o));
    DR_TRY(check_weights(o));
    *s = (dr_lora_settings){
        .unet = !only_text,
        .text_encoder = !only_unet,
        .dim = dr_opt_int_or(o, DR_OPT_network_dim, DEFAULT_DIM),
        .alpha = dr_opt_float(o, DR_OPT_network_alpha),
        .weights = dr_opt_str(o, DR_OPT_network_weights),
        .dim_from_weights = dr_opt_flag(o, DR_OPT_dim_from_weights),
        .dialect =
            dr_opt_is(o, DR_OPT_lora_format, "diffusers") ? DR_LORA_DIFFUSERS : DR_LORA_KOHYA,
        .ending = dr_arena_printf(arena, ".%s", ending),
        .lr_unet = dr_opt_float_or(o, DR_OPT_unet_lr, c->lr),
        .norm_limit = dr_opt_float_or(o, DR_OPT_scale_weight_norms, 0.0),
        .dropout.elements = (float)dr_opt_float_or(o, DR_OPT_network_dropout, 0.0),
    };
    DR_TRY(text_rate(o, c->lr, &s->lr_text_encoder));
    DR_TRY(base_weights(o, arena, s));
    if (is_lycoris(o)) {
        DR_TRY(dr_lycoris_settings_parse(dr_opt_list(o, DR_OPT_network_args), s));
        DR_TRY(check_lycoris(s));
    } else {
        DR_TRY(dr_lora_settings_parse(dr_opt_list(o, DR_OPT_network_args), arena, s));
    }
    if (s->dialect == DR_LORA_DIFFUSERS && strcmp(ending, "safetensors") != 0) {
        DR_FAIL(DR_INVALID,
                "--lora_format diffusers is a .safetensors file; found --save_model_as "
                "%s",
                ending);
    }
    c->lora = s;
    c->ss = dr_network_facts(o, arena);
    c->minimal_metadata = dr_opt_flag(o, DR_OPT_no_metadata);
    c->skip_until_initial_step = dr_opt_flag(o, DR_OPT_skip_until_initial_step);
    c->initial_epoch = dr_opt_int_or(o, DR_OPT_initial_epoch, 0);
    c->initial_step = dr_opt_int_or(o, DR_OPT_initial_step, 0);
    return DR_OK;
}
