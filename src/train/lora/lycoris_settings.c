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
    bool known; /* here */
    dr_lora_kind kind;
} algos[] = {
    {"lora", true, DR_LORA_FACTORS},      {"locon", true, DR_LORA_FACTORS},
    {"loha", true, DR_LORA_HADAMARD},     {"lokr", false, DR_LORA_KRONECKER},
    {"ia3", false, DR_LORA_FACTORS},      {"dylora", false, DR_LORA_FACTORS},
    {"glora", false, DR_LORA_FACTORS},    {"full", false, DR_LORA_DIFFERENCE},
    {"diag-oft", false, DR_LORA_FACTORS}, {"boft", false, DR_LORA_FACTORS},
    {"tlora", false, DR_LORA_FACTORS},
};

static dr_status take_algo(const char *value, dr_lora_settings *s)
{
    for (size_t i = 0; i < sizeof algos / sizeof *algos; i++) {
        if (strcasecmp(value, algos[i].name) == 0) {
            if (!algos[i].known) {
                DR_FAIL(DR_UNSUPPORTED,
                        "--network_args algo=%s is not available yet; available: lora, locon, loha",
                        value);
            }
            s->kind = algos[i].kind;
            return DR_OK;
        }
    }
    DR_FAIL(DR_INVALID, "--network_args algo: found '%s', expected lora, locon or loha", value);
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

static dr_status take_number(const char *key, const char *value, double *out)
{
    if (!dr_parse_f64(value, out) || *out < 0.0 || *out > 1e6) {
        DR_FAIL(DR_INVALID, "--network_args %s: found '%s', expected a number from 0 on", key,
                value);
    }
    return DR_OK;
}

static dr_status take_rank(const char *value, int64_t *out)
{
    if (!dr_parse_i64(value, out) || *out < 0 || *out > INT32_MAX) {
        DR_FAIL(DR_INVALID, "--network_args conv_dim: found '%s', expected a rank such as 8",
                value);
    }
    return DR_OK;
}

/* LyCORIS takes any word but "false" for true. */
static bool is_off(const char *value)
{
    double number = 1.0;
    return strcasecmp(value, "false") == 0 || strcasecmp(value, "none") == 0 ||
           (dr_parse_f64(value, &number) && number == 0.0);
}

/* Settings that are fine as long as they are off. */
static dr_status take_off(const char *key, const char *value)
{
    static const char *const keys[] = {"dropout",    "rank_dropout", "module_dropout", "use_tucker",
                                       "use_cp",     "use_conv_cp",  "use_scalar",     "train_norm",
                                       "dora_wd",    "rs_lora",      "constraint",     "rescaled",
                                       "train_t5xxl"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (strcmp(key, keys[i]) == 0) {
            if (is_off(value)) {
                return DR_OK;
            }
            DR_FAIL(DR_UNSUPPORTED,
                    "--network_args %s=%s is not available yet; leave it out or switch it off", key,
                    value);
        }
    }
    DR_FAIL(DR_UNSUPPORTED,
            "--network_args %s: not available with lycoris.kohya here; known: algo, preset, "
            "conv_dim, conv_alpha, bypass_mode, disable_conv_cp, loraplus_lr_ratio, "
            "loraplus_unet_lr_ratio, loraplus_text_encoder_lr_ratio",
            key);
}

typedef struct plus { /* ratios; 0: not given */
    double both, unet, text;
} plus;

static dr_status take(const char *key, const char *value, dr_lora_settings *s, plus *p)
{
    const struct {
        const char *key;
        double *out;
    } numbers[] = {{"conv_alpha", &s->conv_alpha},
                   {"loraplus_lr_ratio", &p->both},
                   {"loraplus_unet_lr_ratio", &p->unet},
                   {"loraplus_text_encoder_lr_ratio", &p->text}};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (strcmp(key, numbers[i].key) == 0) {
            return take_number(key, value, numbers[i].out);
        }
    }
    if (strcmp(key, "algo") == 0) {
        return take_algo(value, s);
    }
    if (strcmp(key, "preset") == 0) {
        return take_preset(value, s);
    }
    if (strcmp(key, "conv_dim") == 0) {
        return take_rank(value, &s->conv_dim);
    }
    if (strcmp(key, "bypass_mode") == 0 || strcmp(key, "disable_conv_cp") == 0) {
        return DR_OK; /* the same product in another order; no core, which is so anyway */
    }
    return take_off(key, value);
}

dr_status dr_lycoris_settings_parse(const dr_strv *args, dr_lora_settings *s)
{
    plus p = {0};
    s->lycoris = presets[0];
    for (size_t i = 0; i < args->n; i++) {
        char key[64];
        const char *equals = strchr(args->at[i], '=');
        const size_t n = equals != NULL ? (size_t)(equals - args->at[i]) : 0;
        if (equals == NULL || n >= sizeof key) {
            DR_FAIL(DR_INVALID, "--network_args: found '%s', expected key=value", args->at[i]);
        }
        memcpy(key, args->at[i], n);
        key[n] = '\0';
        DR_TRY(take(key, equals + 1, s, &p));
    }
    s->conv_dim = s->conv_dim > 0 ? s->conv_dim : s->dim;
    s->conv_alpha = s->conv_alpha > 0.0 ? s->conv_alpha : s->alpha;
    s->has_conv = s->lycoris.windows;
    s->plus_unet = p.unet > 0.0 ? p.unet : p.both;
    s->plus_text_encoder = p.text > 0.0 ? p.text : p.both;
    if (s->kind != DR_LORA_FACTORS && (s->plus_unet > 0.0 || s->plus_text_encoder > 0.0)) {
        DR_FAIL(DR_INVALID, "--network_args loraplus_...: only a LoRA has the matrix whose rate it "
                            "raises; leave it out with algo=loha");
    }
    return DR_OK;
}
