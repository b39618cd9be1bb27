/*
 * --network_args of lycoris.kohya, as create_network of LyCORIS 4.1.3 takes them.
 */
#include "train/lora/lora_settings.h"

#include <string.h>
#include <strings.h>

/* 4.1.3 itself stops at full, full-lin and unet-only, because it targets the time embedding by
 * class and by name; here they are what they say. attn-only names the classes of sd-scripts' U-Net.
 */
static const dr_lora_targets presets[] = {
    {.preset = "full",
     .transformer = true,
     .residual = true,
     .samplers = true,
     .time = true,
     .ends = true,
     .windows = true,
     .text_attention = true,
     .text_mlp = true},
    {.preset = "full-lin",
     .transformer = true,
     .residual = true,
     .time = true,
     .text_attention = true,
     .text_mlp = true},
    {.preset = "attn-mlp",
     .transformer = true,
     .time = true,
     .text_attention = true,
     .text_mlp = true},
    {.preset = "attn-only", .attention = true, .text_attention = true},
    {.preset = "unet-only",
     .transformer = true,
     .residual = true,
     .samplers = true,
     .time = true,
     .ends = true,
     .windows = true},
    {.preset = "unet-transformer-only", .transformer = true, .time = true},
    {.preset = "unet-convblock-only",
     .residual = true,
     .samplers = true,
     .ends = true,
     .windows = true},
};

static const struct {
    const char *name;
    dr_lora_kind kind;
    const char *refused; /* why; NULL: trained here */
} algos[] = {
    {"lora", DR_LORA_FACTORS, NULL},
    {"locon", DR_LORA_FACTORS, NULL},
    {"loha", DR_LORA_HADAMARD, NULL},
    {"lokr", DR_LORA_KRONECKER, NULL},
    {"ia3", DR_LORA_FACTORS, "factors of activations"},
    {"dylora", DR_LORA_FACTORS, "a rank that changes from step to step"},
    {"glora", DR_LORA_FACTORS, "products with the frozen weight"},
    {"full", DR_LORA_DIFFERENCE, "whole differences (train_db trains whole weights)"},
    {"diag-oft", DR_LORA_FACTORS, "rotations"},
    {"boft", DR_LORA_FACTORS, "rotations"},
    {"tlora", DR_LORA_FACTORS, "a rank that depends on the timestep"},
};

static dr_status take_algo(const char *value, dr_lora_settings *s)
{
    for (size_t i = 0; i < sizeof algos / sizeof *algos; i++) {
        if (strcasecmp(value, algos[i].name) == 0) {
            if (algos[i].refused != NULL) {
                DR_FAIL(DR_UNSUPPORTED,
                        "--network_args algo=%s: %s are not trained here; available: lora, locon, "
                        "loha, lokr",
                        value, algos[i].refused);
            }
            s->kind = algos[i].kind;
            return DR_OK;
        }
    }
    DR_FAIL(DR_INVALID, "--network_args algo: found '%s', expected lora, locon, loha or lokr",
            value);
}

static dr_status take_preset(const char *value, dr_lora_settings *s)
{
    dr_str names = {0};
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++) {
        if (strcmp(value, presets[i].preset) == 0) {
            s->lycoris = presets[i];
            dr_str_free(&names);
            return DR_OK;
        }
        dr_str_printf(&names, "%s%s", i > 0 ? ", " : "", presets[i].preset);
    }
    (void)dr_error_set(DR_UNSUPPORTED, __FILE__, __LINE__,
                       "--network_args preset: found '%s'; available: %s (no files)", value,
                       dr_str_get(&names));
    dr_str_free(&names);
    return DR_UNSUPPORTED;
}

static dr_status take_number(const char *key, const char *value, double most, double *out)
{
    if (!dr_parse_f64(value, out) || !(*out >= 0.0 && *out <= most)) {
        DR_FAIL(DR_INVALID, "--network_args %s: found '%s', expected a number from 0 to %g", key,
                value, most);
    }
    return DR_OK;
}

/* A chance below 1: what is left is divided by 1 - chance, or is nothing at all. */
static dr_status take_chance(const char *key, const char *value, double *out)
{
    DR_TRY(take_number(key, value, 1.0, out));
    if (*out == 1.0) {
        DR_FAIL(DR_INVALID, "--network_args %s=1 leaves nothing to train; expected less than 1",
                key);
    }
    return DR_OK;
}

static dr_status take_whole(const char *key, const char *value, int64_t least, int64_t *out)
{
    if (!dr_parse_i64(value, out) || *out < least || *out > INT32_MAX) {
        DR_FAIL(DR_INVALID, "--network_args %s: found '%s', expected a whole number from %lld on",
                key, value, (long long)least);
    }
    return DR_OK;
}

/* LyCORIS takes any word but "false" for true. */
static bool is_true(const char *value)
{
    return strcasecmp(value, "false") != 0;
}

typedef struct parser {
    dr_lora_settings *s;
    double plus, plus_unet, plus_text; /* ratios; 0: not given */
    double dropout, rank_dropout;
} parser;

/* Keys of other algorithms and models, which are fine as long as they are off. */
static dr_status take_other(const char *key, const char *value)
{
    static const struct {
        const char *key, *why;
    } others[] = {{"train_norm", "a norm's weights have no factors; they are not trained here"},
                  {"constrain", "it is of the OFT algorithms, which are not trained here"},
                  {"constraint", "it is of the OFT algorithms, which are not trained here"},
                  {"rescaled", "it is of the OFT algorithms, which are not trained here"},
                  {"block_size", "it is of dylora and boft, which are not trained here"},
                  {"train_t5xxl", "Stable Diffusion 1.x and 2.x have no T5"},
                  {"train_llm_adapter", "Stable Diffusion 1.x and 2.x have no such adapter"}};
    double number = 1.0;
    const bool off = !is_true(value) || (dr_parse_f64(value, &number) && number == 0.0);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        if (strcmp(key, others[i].key) == 0) {
            if (off) {
                return DR_OK;
            }
            DR_FAIL(DR_UNSUPPORTED, "--network_args %s=%s: %s; leave it out", key, value,
                    others[i].why);
        }
    }
    DR_FAIL(DR_INVALID,
            "--network_args: lycoris.kohya has no '%s'; known: algo, preset, conv_dim, conv_alpha, "
            "dropout, rank_dropout, module_dropout, use_tucker, use_scalar, dora_wd, wd_on_output, "
            "rs_lora, bypass_mode, factor, decompose_both, full_matrix, unbalanced_factorization, "
            "loraplus_lr_ratio, loraplus_unet_lr_ratio, loraplus_text_encoder_lr_ratio",
            key);
}

/* False when it is none of the switches. */
static bool take_switch(parser *p, const char *key, const char *value)
{
    dr_lycoris_form *form = &p->s->form;
    bool on_output = true;
    const struct {
        const char *key;
        bool *out;
    } switches[] = {
        {"use_tucker", &form->tucker},       {"use_cp", &form->tucker},
        {"use_conv_cp", &form->tucker},      {"use_scalar", &form->scalar},
        {"dora_wd", &form->magnitude},       {"wd_on_output", &on_output},
        {"rs_lora", &form->root_scale},      {"bypass_mode", &form->bypass},
        {"full_matrix", &form->full_matrix}, {"unbalanced_factorization", &form->unbalanced}};
    for (size_t i = 0; i < sizeof switches / sizeof *switches; i++) {
        if (strcmp(key, switches[i].key) == 0) {
            *switches[i].out = is_true(value);
            form->by_input = form->by_input || !on_output;
            return true;
        }
    }
    return false;
}

static dr_status take(const char *key, const char *value, parser *p)
{
    const struct {
        const char *key;
        double *out;
        bool is_chance;
    } numbers[] = {{"conv_alpha", &p->s->conv_alpha, false},
                   {"loraplus_lr_ratio", &p->plus, false},
                   {"loraplus_unet_lr_ratio", &p->plus_unet, false},
                   {"loraplus_text_encoder_lr_ratio", &p->plus_text, false},
                   {"dropout", &p->dropout, true},
                   {"rank_dropout", &p->rank_dropout, true},
                   {"module_dropout", &p->s->module_dropout, true}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (strcmp(key, numbers[i].key) == 0) {
            return numbers[i].is_chance ? take_chance(key, value, numbers[i].out)
                                        : take_number(key, value, 1e6, numbers[i].out);
        }
    }
    if (strcmp(key, "algo") == 0) {
        return take_algo(value, p->s);
    }
    if (strcmp(key, "preset") == 0) {
        return take_preset(value, p->s);
    }
    if (strcmp(key, "conv_dim") == 0) {
        return take_whole(key, value, 0, &p->s->conv_dim);
    }
    if (strcmp(key, "factor") == 0) {
        return take_whole(key, value, -1, &p->s->form.factor);
    }
    if (strcmp(key, "decompose_both") == 0) {
        if (!is_true(value)) {
            DR_FAIL(DR_UNSUPPORTED,
                    "--network_args decompose_both=%s: LyCORIS takes any text, this "
                    "one too, for true; leave it out",
                    value);
        }
        p->s->form.decompose_both = true;
        return DR_OK;
    }
    if (strcmp(key, "disable_conv_cp") == 0 && is_true(value)) {
        DR_FAIL(DR_UNSUPPORTED,
                "--network_args disable_conv_cp=%s: LyCORIS 4.1.3 takes it for "
                "use_tucker, the opposite; leave it out: there is no core then",
                value);
    }
    return strcmp(key, "disable_conv_cp") == 0 || take_switch(p, key, value)
               ? DR_OK
               : take_other(key, value);
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* Where LyCORIS puts its dropout; see lycoris/modules/base.py. */
static dr_status finish_dropout(parser *p)
{
    dr_lora_settings *s = p->s;
    const bool bypass = s->form.bypass;
    const double network = (double)s->dropout.elements; /* --network_dropout, dropout's default */
    const double dropout = p->dropout > 0.0 ? p->dropout : network;
    s->dropout = (dr_adapter_dropout){0};
    if (dropout > 0.0 && !bypass) {
        DR_FAIL(DR_UNSUPPORTED,
                "--network_args dropout (or --network_dropout): LyCORIS 4.1.3 uses "
                "it with bypass_mode=True only and ignores it otherwise; give both, "
                "or rank_dropout");
    }
    if (p->rank_dropout > 0.0 && bypass && s->kind == DR_LORA_KRONECKER) {
        DR_FAIL(DR_UNSUPPORTED,
                "--network_args rank_dropout: LyCORIS ignores it with algo=lokr and "
                "bypass_mode=True; leave one out");
    }
    s->dropout.output = (float)dropout;
    if (bypass && s->kind == DR_LORA_FACTORS) {
        s->dropout.ranks = (float)p->rank_dropout;
    } else {
        s->dropout.rows = (float)p->rank_dropout;
    }
    return DR_OK;
}

/* Settings that LyCORIS would take and ignore. */
static dr_status check_form(const dr_lora_settings *s)
{
    const dr_lycoris_form *form = &s->form;
    const bool of_lokr =
        form->factor != -1 || form->decompose_both || form->full_matrix || form->unbalanced;
    if (of_lokr && s->kind != DR_LORA_KRONECKER) {
        DR_FAIL(DR_INVALID, "--network_args factor, decompose_both, full_matrix and "
                            "unbalanced_factorization are of algo=lokr; leave them out");
    }
    if (form->full_matrix && form->decompose_both) {
        DR_FAIL(DR_INVALID,
                "--network_args decompose_both does nothing with full_matrix; leave one out");
    }
    if (form->by_input && !form->magnitude) {
        DR_FAIL(DR_INVALID, "--network_args wd_on_output needs dora_wd=True");
    }
    if (form->magnitude && form->bypass) {
        DR_FAIL(DR_UNSUPPORTED,
                "--network_args dora_wd: LyCORIS ignores it with bypass_mode=True; leave one out");
    }
    if (s->kind != DR_LORA_FACTORS && (s->plus_unet > 0.0 || s->plus_text_encoder > 0.0)) {
        DR_FAIL(DR_INVALID, "--network_args loraplus_...: only a LoRA has the matrix whose rate it "
                            "raises; leave it out with algo=loha and algo=lokr");
    }
    return DR_OK;
}

dr_status dr_lycoris_settings_parse(const dr_strv *args, dr_lora_settings *s)
{
    parser p = {.s = s};
    s->lycoris = presets[0];
    s->form = (dr_lycoris_form){.factor = -1};
    for (size_t i = 0; i < args->n; i++) {
        char key[64];
        const char *equals = strchr(args->at[i], '=');
        const size_t n = equals != NULL ? (size_t)(equals - args->at[i]) : 0;
        if (equals == NULL || n >= sizeof key) {
            DR_FAIL(DR_INVALID, "--network_args: found '%s', expected key=value", args->at[i]);
        }
        memcpy(key, args->at[i], n);
        key[n] = '\0';
        DR_TRY(take(key, equals + 1, &p));
    }
    s->conv_dim = s->conv_dim > 0 ? s->conv_dim : s->dim;
    s->conv_alpha = s->conv_alpha > 0.0 ? s->conv_alpha : s->alpha;
    s->has_conv = s->lycoris.windows;
    s->plus_unet = p.plus_unet > 0.0 ? p.plus_unet : p.plus;
    s->plus_text_encoder = p.plus_text > 0.0 ? p.plus_text : p.plus;
    DR_TRY(finish_dropout(&p));
    return check_form(s);
}
