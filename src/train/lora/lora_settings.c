#include "train/lora/lora_settings.h"

#include "base/log.h"

#include <math.h>
#include <regex.h>
#include <string.h>

typedef struct parser {
    dr_arena *arena;
    dr_lora_settings *s;
    bool block_dims, block_alphas, conv_block_dims, conv_block_alphas, conv_alpha;
    double zero_threshold;
    const char *down, *mid, *up; /* weights of the rate; NULL: not given */
    double plus;                 /* of both networks; 0: not given */
    double rank_dropout;
} parser;

static dr_status wrong(const char *key, const char *value, const char *expected)
{
    DR_FAIL(DR_INVALID, "--network_args %s: found '%s', expected %s", key, value, expected);
}

static dr_status take_number(const char *key, const char *value, double least, double most,
                             double *out)
{
    if (!dr_parse_f64(value, out) || !(*out >= least && *out <= most)) {
        DR_FAIL(DR_INVALID, "--network_args %s: found '%s', expected a number from %g to %g", key,
                value, least, most);
    }
    return DR_OK;
}

static dr_status take_rank(const char *key, const char *value, int64_t *out)
{
    if (!dr_parse_i64(value, out) || *out < 0 || *out > INT32_MAX) {
        return wrong(key, value, "a rank such as 8");
    }
    return DR_OK;
}

/* Splits at commas into at most `most` numbers; an empty one is 0. */
static dr_status take_list(const char *key, const char *value, int most, double *out, int *n)
{
    const char *at = value;
    for (*n = 0;; (*n)++) {
        char number[32] = "0";
        const size_t len = strcspn(at, ",");
        const size_t blanks = strspn(at, " ");
        if (*n == most) {
            dr_warn("--network_args %s: only the first %d values are used", key, most);
            return DR_OK;
        }
        if (len >= sizeof number) {
            return wrong(key, value, "numbers between commas");
        }
        if (len > blanks) {
            memcpy(number, at + blanks, len - blanks);
            number[len - blanks] = '\0';
        }
        if (!dr_parse_f64(number, &out[*n])) {
            return wrong(key, value, "numbers between commas");
        }
        if (at[len] == '\0') {
            (*n)++;
            return DR_OK;
        }
        at += len + 1;
    }
}

static dr_status take_blocks(const char *key, const char *value, double *out)
{
    double list[DR_LORA_BLOCKS + 1];
    int n;
    DR_TRY(take_list(key, value, DR_LORA_BLOCKS + 1, list, &n));
    if (n != DR_LORA_BLOCKS) {
        DR_FAIL(DR_INVALID, "--network_args %s: found %d values, expected %d, one per block", key,
                n, DR_LORA_BLOCKS);
    }
    memcpy(out, list, DR_LORA_BLOCKS * sizeof *out);
    return DR_OK;
}

static dr_status take_block_ranks(const char *key, const char *value, int64_t *out)
{
    double list[DR_LORA_BLOCKS];
    DR_TRY(take_blocks(key, value, list));
    for (int i = 0; i < DR_LORA_BLOCKS; i++) {
        out[i] = (int64_t)list[i];
        if (list[i] < 0.0 || list[i] > (double)INT32_MAX || (double)out[i] != list[i]) {
            return wrong(key, value, "whole numbers");
        }
    }
    return DR_OK;
}

/* ---- patterns ------------------------------------------------------------------------------ */

static dr_status add_pattern(const char *key, parser *p, const char *text, size_t n,
                             dr_lora_patterns *out)
{
    regex_t compiled;
    const char *pattern = dr_arena_strndup(p->arena, text, n);
    const int code = regcomp(&compiled, pattern, REG_EXTENDED | REG_NOSUB);
    if (code != 0) {
        char why[128];
        (void)regerror(code, &compiled, why, sizeof why);
        DR_FAIL(DR_INVALID, "--network_args %s: '%s' is no regular expression: %s", key, pattern,
                why);
    }
    regfree(&compiled);
    out->at[out->n++] = pattern;
    return DR_OK;
}

/* One expression, or a list of quoted ones as Python writes it. */
static dr_status take_patterns(const char *key, parser *p, const char *value, dr_lora_patterns *out)
{
    *out = (dr_lora_patterns){.at = dr_arena_array(p->arena, strlen(value) + 1, sizeof *out->at)};
    if (value[0] != '[') {
        return add_pattern(key, p, value, strlen(value), out);
    }
    for (const char *at = value + 1 + strspn(value + 1, " ,"); *at != ']'; at += strspn(at, " ,")) {
        const char *raw = *at == 'r' ? at + 1 : at;
        const char *end = *raw == '\'' || *raw == '"' ? strchr(raw + 1, *raw) : NULL;
        if (end == NULL) {
            return wrong(key, value, "one expression, or ['a', 'b']");
        }
        DR_TRY(add_pattern(key, p, raw + 1, (size_t)(end - raw - 1), out));
        at = end + 1;
    }
    return DR_OK;
}

/* ---- weights of the rate by block ------------------------------------------------------------ */

static double preset_weight(int kind, int i, int n)
{
    const double pi = 3.14159265358979323846;
    const double x = (double)i / (double)(n - 1);
    const double back = (double)(n - 1 - i) / (double)(n - 1);
    const double weights[] = {sin(pi * back / 2.0), sin(pi * x / 2.0), x, back, 0.0};
    return weights[kind];
}

/* "cosine+0.2" or numbers; what is missing is 1. */
static dr_status take_weights(const char *key, const char *value, int n, double *out)
{
    static const char *const presets[] = {"cosine", "sine", "linear", "reverse_linear", "zeros"};
    const size_t len = strcspn(value, "+");
    int found;
    for (int kind = 0; kind < 5; kind++) {
        if (strlen(presets[kind]) != len || strncmp(value, presets[kind], len) != 0) {
            continue;
        }
        double base = 0.0;
        if (value[len] == '+' && !dr_parse_f64(value + len + 1, &base)) {
            return wrong(key, value, "a number behind '+'");
        }
        for (int i = 0; i < n; i++) {
            out[i] = preset_weight(kind, i, n) + base;
        }
        return DR_OK;
    }
    if (n > 1 && strchr(value, ',') == NULL) {
        return wrong(key, value,
                     "12 numbers between commas, or cosine, sine, linear, reverse_linear, zeros");
    }
    DR_TRY(take_list(key, value, n, out, &found));
    if (found < n) {
        dr_warn("--network_args %s: %d values of %d; the others are 1", key, found, n);
    }
    for (int i = found; i < n; i++) {
        out[i] = 1.0;
    }
    return DR_OK;
}

static dr_status finish_rates(parser *p)
{
    dr_lora_settings *s = p->s;
    const struct {
        const char *key, *value;
        int first, n;
    } parts[] = {{"down_lr_weight", p->down, 0, DR_LORA_MIDDLE},
                 {"mid_lr_weight", p->mid, DR_LORA_MIDDLE, 1},
                 {"up_lr_weight", p->up, DR_LORA_MIDDLE + 1, DR_LORA_MIDDLE}};
    for (int i = 0; i < 3; i++) {
        double *w = s->lr_weight + parts[i].first;
        for (int k = 0; k < parts[i].n; k++) {
            w[k] = 1.0;
        }
        if (parts[i].value == NULL) {
            continue;
        }
        s->rates_by_block = true;
        DR_TRY(take_weights(parts[i].key, parts[i].value, parts[i].n, w));
        for (int k = 0; k < parts[i].n; k++) {
            w[k] = w[k] > p->zero_threshold ? w[k] : 0.0;
        }
    }
    return DR_OK;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static dr_status take(parser *p, const char *key, const char *value)
{
    dr_lora_settings *s = p->s;
    static const char *const lycoris[] = {"algo",       "preset",  "factor", "decompose_both",
                                          "use_tucker", "dora_wd", "dropout"};
    struct {
        const char *key;
        const char **out;
    } texts[] = {
        {"down_lr_weight", &p->down}, {"mid_lr_weight", &p->mid}, {"up_lr_weight", &p->up}};
    struct {
        const char *key;
        double most, *out;
        bool *given;
    } numbers[] = {{"conv_alpha", 1e6, &s->conv_alpha, &p->conv_alpha},
                   {"module_dropout", 1.0, &s->module_dropout, NULL},
                   {"rank_dropout", 1.0, &p->rank_dropout, NULL},
                   {"block_lr_zero_threshold", 1e6, &p->zero_threshold, NULL},
                   {"loraplus_lr_ratio", 1e6, &p->plus, NULL},
                   {"loraplus_unet_lr_ratio", 1e6, &s->plus_unet, NULL},
                   {"loraplus_text_encoder_lr_ratio", 1e6, &s->plus_text_encoder, NULL}};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (strcmp(key, texts[i].key) == 0) {
            *texts[i].out = value;
            return DR_OK;
        }
    }
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        if (strcmp(key, numbers[i].key) == 0) {
            if (numbers[i].given != NULL) {
                *numbers[i].given = true;
            }
            return take_number(key, value, 0.0, numbers[i].most, numbers[i].out);
        }
    }
    for (size_t i = 0; i < sizeof lycoris / sizeof *lycoris; i++) {
        if (strcmp(key, lycoris[i]) == 0) {
            DR_FAIL(DR_UNSUPPORTED,
                    "--network_args %s belongs to LyCORIS; --network_module networks.lora has no "
                    "such setting",
                    key);
        }
    }
    DR_FAIL(DR_INVALID,
            "--network_args: there is no '%s'; known: conv_dim, conv_alpha, block_dims, "
            "block_alphas, conv_block_dims, conv_block_alphas, down_lr_weight, mid_lr_weight, "
            "up_lr_weight, block_lr_zero_threshold, loraplus_lr_ratio, loraplus_unet_lr_ratio, "
            "loraplus_text_encoder_lr_ratio, rank_dropout, module_dropout, "
            "exclude_patterns, include_patterns",
            key);
}

static dr_status take_arg(parser *p, const char *key, const char *value)
{
    dr_lora_settings *s = p->s;
    if (strcmp(key, "conv_dim") == 0) {
        return take_rank(key, value, &s->conv_dim);
    }
    if (strcmp(key, "exclude_patterns") == 0) {
        return take_patterns(key, p, value, &s->exclude);
    }
    if (strcmp(key, "include_patterns") == 0) {
        return take_patterns(key, p, value, &s->include);
    }
    struct {
        const char *key;
        bool *given;
        int64_t *ranks;
        double *alphas;
    } blocks[] = {{"block_dims", &p->block_dims, s->block_dim, NULL},
                  {"block_alphas", &p->block_alphas, NULL, s->block_alpha},
                  {"conv_block_dims", &p->conv_block_dims, s->conv_block_dim, NULL},
                  {"conv_block_alphas", &p->conv_block_alphas, NULL, s->conv_block_alpha}};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
        if (strcmp(key, blocks[i].key) == 0) {
            *blocks[i].given = true;
            return blocks[i].ranks != NULL ? take_block_ranks(key, value, blocks[i].ranks)
                                           : take_blocks(key, value, blocks[i].alphas);
        }
    }
    return take(p, key, value);
}

/* Ranks and alphas per block, where anything about blocks was said. */
static dr_status finish_blocks(parser *p)
{
    dr_lora_settings *s = p->s;
    s->by_block = p->block_dims || p->block_alphas || p->conv_block_dims || p->conv_block_alphas ||
                  s->rates_by_block;
    s->has_conv = s->conv_dim > 0 || p->conv_block_dims;
    if ((p->block_alphas || p->conv_block_dims) && !p->block_dims && !s->rates_by_block) {
        DR_FAIL(DR_INVALID, "--network_args block_alphas and conv_block_dims: sd-scripts ignores "
                            "them without block_dims or ..._lr_weight; give one of these, too");
    }
    if (p->conv_block_alphas && !p->conv_block_dims) {
        DR_FAIL(DR_INVALID, "--network_args conv_block_alphas: sd-scripts ignores it without "
                            "conv_block_dims; give both");
    }
    if (p->conv_alpha && !s->has_conv) {
        DR_FAIL(DR_INVALID, "--network_args conv_alpha needs conv_dim");
    }
    for (int i = 0; i < DR_LORA_BLOCKS; i++) {
        const bool learns = !s->rates_by_block || s->lr_weight[i] != 0.0;
        s->block_dim[i] = !learns ? 0 : p->block_dims ? s->block_dim[i] : s->dim;
        s->block_alpha[i] = p->block_alphas ? s->block_alpha[i] : s->alpha;
        s->conv_block_dim[i] = !learns              ? 0
                               : p->conv_block_dims ? s->conv_block_dim[i]
                                                    : s->conv_dim;
        s->conv_block_alpha[i] = p->conv_block_alphas ? s->conv_block_alpha[i] : s->conv_alpha;
    }
    return DR_OK;
}

dr_status dr_lora_settings_parse(const dr_strv *args, dr_arena *arena, dr_lora_settings *s)
{
    parser p = {.arena = arena, .s = s};
    s->conv_alpha = 1.0;
    for (size_t i = 0; i < args->n; i++) {
        const char *arg = args->at[i];
        const char *equals = strchr(arg, '=');
        if (equals == NULL) {
            DR_FAIL(DR_INVALID, "--network_args: found '%s', expected key=value", arg);
        }
        const char *key = dr_arena_strndup(arena, arg, (size_t)(equals - arg));
        DR_TRY(take_arg(&p, key, dr_arena_strdup(arena, equals + 1)));
    }
    s->dropout.ranks = (float)p.rank_dropout;
    s->dropout.by_sample = true;
    if (s->dropout.ranks >= 1.0F || s->dropout.elements >= 1.0F || s->module_dropout >= 1.0) {
        DR_FAIL(DR_INVALID, "--network_dropout and --network_args rank_dropout, module_dropout: 1 "
                            "leaves nothing to train; expected less");
    }
    if (p.plus != 0.0) {
        s->plus_unet = s->plus_unet != 0.0 ? s->plus_unet : p.plus;
        s->plus_text_encoder = s->plus_text_encoder != 0.0 ? s->plus_text_encoder : p.plus;
    }
    DR_TRY(finish_rates(&p));
    return finish_blocks(&p);
}
