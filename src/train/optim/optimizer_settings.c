#include "train/optim/optimizer_settings.h"

#include "base/log.h"

#include <math.h>
#include <string.h>
#include <strings.h>

static const char *const kind_names[DR_OPTIM_COUNT] = {
#define KIND_NAME(name, text) text,
    DR_OPTIM_LIST(KIND_NAME)
#undef KIND_NAME
};

#define ADAM .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8
#define D    .d0 = 1e-6, .d_coef = 1.0, .growth_rate = HUGE_VAL

/* of torch.optim, bitsandbytes, lion_pytorch, dadaptation, prodigyopt, transformers, schedulefree
 */
static const dr_optim_settings defaults[DR_OPTIM_COUNT] = {
    [DR_OPTIM_ADAMW] = {ADAM, .weight_decay = 0.01},
    [DR_OPTIM_ADAMW8BIT] = {ADAM, .weight_decay = 0.01},
    [DR_OPTIM_PAGED_ADAMW] = {ADAM, .weight_decay = 0.01},
    [DR_OPTIM_PAGED_ADAMW8BIT] = {ADAM, .weight_decay = 0.01},
    [DR_OPTIM_PAGED_ADAMW32BIT] = {ADAM, .weight_decay = 0.01},
    [DR_OPTIM_LION] = {.beta1 = 0.9, .beta2 = 0.99},
    [DR_OPTIM_LION8BIT] = {.beta1 = 0.9, .beta2 = 0.99},
    [DR_OPTIM_PAGED_LION8BIT] = {.beta1 = 0.9, .beta2 = 0.99},
    [DR_OPTIM_SGD_NESTEROV] = {.momentum = 0.9, .nesterov = 1.0},
    [DR_OPTIM_SGD_NESTEROV8BIT] = {.momentum = 0.9, .nesterov = 1.0},
    [DR_OPTIM_DADAPTATION] = {ADAM, D},
    [DR_OPTIM_DADAPT_ADAM_PREPRINT] = {ADAM, D},
    [DR_OPTIM_DADAPT_ADAM] = {ADAM, D},
    [DR_OPTIM_DADAPT_LION] = {.beta1 = 0.9, .beta2 = 0.99, D},
    [DR_OPTIM_PRODIGY] = {ADAM, D, .beta3 = DR_OPTIM_NONE, .decouple = 1.0},
    [DR_OPTIM_ADAFACTOR] = {.beta1 = DR_OPTIM_NONE,
                            .eps = 1e-30,
                            .eps2 = 1e-3,
                            .relative_step = 1.0,
                            .scale_parameter = 1.0,
                            .clip_threshold = 1.0,
                            .decay_rate = -0.8},
    [DR_OPTIM_RADAM_SCHEDULE_FREE] = {ADAM, .weight_lr_power = 2.0, .silent_sgd_phase = 1.0},
    [DR_OPTIM_ADAMW_SCHEDULE_FREE] = {ADAM, .weight_lr_power = 2.0},
    [DR_OPTIM_SGD_SCHEDULE_FREE] = {.momentum = 0.9, .weight_lr_power = 2.0},
};

const char *dr_optim_kind_name(dr_optim_kind kind)
{
    return kind_names[kind];
}

dr_status dr_optim_kind_from_name(const char *name, dr_optim_kind *out)
{
    int nearest = 0;
    for (int i = 0; i < DR_OPTIM_COUNT; i++) {
        if (strcasecmp(name, kind_names[i]) == 0) {
            *out = (dr_optim_kind)i;
            return DR_OK;
        }
        if (dr_edit_distance(name, kind_names[i]) < dr_edit_distance(name, kind_names[nearest])) {
            nearest = i;
        }
    }
    DR_FAIL(DR_UNSUPPORTED, "--optimizer_type: there is no '%s'; did you mean %s?", name,
            kind_names[nearest]);
}

/* ---- the settings by name ---------------------------------------------------------------------
 */

typedef enum setting_type {
    NOT_NEGATIVE, /* number >= 0 */
    POSITIVE,     /* number > 0 */
    NUMBER,       /* any number */
    FRACTION,     /* number in 0..1, 1 excluded */
    FRACTIONS,    /* two of them, into two fields that follow each other */
    NUMBERS,      /* two numbers >= 0, likewise */
    TRUTH,        /* True or False */
    OR_NONE,      /* a fraction, or None */
    FIXED         /* exists in the package; only `only` is taken */
} setting_type;

#define KIND(name) (1ULL << DR_OPTIM_##name)
#define BNB_ADAM                                                                                   \
    (KIND(ADAMW8BIT) | KIND(PAGED_ADAMW) | KIND(PAGED_ADAMW8BIT) | KIND(PAGED_ADAMW32BIT))
#define BNB_LION  (KIND(LION8BIT) | KIND(PAGED_LION8BIT))
#define BNB       (BNB_ADAM | BNB_LION | KIND(SGD_NESTEROV8BIT))
#define SGD       (KIND(SGD_NESTEROV) | KIND(SGD_NESTEROV8BIT))
#define PREPRINT  (KIND(DADAPTATION) | KIND(DADAPT_ADAM_PREPRINT))
#define DADAPT    (PREPRINT | KIND(DADAPT_ADAM))
#define ESTIMATES (DADAPT | KIND(DADAPT_LION) | KIND(PRODIGY))
#define FREE      (KIND(RADAM_SCHEDULE_FREE) | KIND(ADAMW_SCHEDULE_FREE) | KIND(SGD_SCHEDULE_FREE))
#define FREE_ADAM (KIND(RADAM_SCHEDULE_FREE) | KIND(ADAMW_SCHEDULE_FREE))
#define LIONS     (KIND(LION) | BNB_LION | KIND(DADAPT_LION))
#define ADAMS     (KIND(ADAMW) | BNB_ADAM | DADAPT | KIND(PRODIGY) | FREE_ADAM)
#define ALL       ((1ULL << DR_OPTIM_COUNT) - 1)

typedef struct setting {
    uint64_t kinds;
    const char *key;
    setting_type type;
    size_t field; /* offset in dr_optim_settings */
    const char *only;
} setting;

#define FIELD(name) offsetof(dr_optim_settings, name)

static const setting settings[] = {
    {ALL, "weight_decay", NOT_NEGATIVE, FIELD(weight_decay), NULL},
    {ADAMS | LIONS, "betas", FRACTIONS, FIELD(beta1), NULL},
    {ADAMS, "eps", NOT_NEGATIVE, FIELD(eps), NULL},
    {SGD | KIND(SGD_SCHEDULE_FREE), "momentum", FRACTION, FIELD(momentum), NULL},
    {SGD, "dampening", NOT_NEGATIVE, FIELD(dampening), NULL},
    {ESTIMATES, "d0", POSITIVE, FIELD(d0), NULL},
    {DADAPT | KIND(PRODIGY), "growth_rate", POSITIVE, FIELD(growth_rate), NULL},
    {DADAPT | KIND(PRODIGY), "decouple", TRUTH, FIELD(decouple), NULL},
    {KIND(DADAPT_ADAM) | KIND(PRODIGY), "use_bias_correction", TRUTH, FIELD(use_bias_correction),
     NULL},
    {KIND(PRODIGY), "d_coef", POSITIVE, FIELD(d_coef), NULL},
    {KIND(PRODIGY), "beta3", OR_NONE, FIELD(beta3), NULL},
    {KIND(PRODIGY), "safeguard_warmup", TRUTH, FIELD(safeguard_warmup), NULL},
    {KIND(ADAFACTOR), "eps", NUMBERS, FIELD(eps), NULL},
    {KIND(ADAFACTOR), "relative_step", TRUTH, FIELD(relative_step), NULL},
    {KIND(ADAFACTOR), "scale_parameter", TRUTH, FIELD(scale_parameter), NULL},
    {KIND(ADAFACTOR), "warmup_init", TRUTH, FIELD(warmup_init), NULL},
    {KIND(ADAFACTOR), "clip_threshold", POSITIVE, FIELD(clip_threshold), NULL},
    {KIND(ADAFACTOR), "decay_rate", NUMBER, FIELD(decay_rate), NULL},
    {KIND(ADAFACTOR), "beta1", OR_NONE, FIELD(beta1), NULL},
    {FREE & ~KIND(RADAM_SCHEDULE_FREE), "warmup_steps", NOT_NEGATIVE, FIELD(warmup_steps), NULL},
    {FREE, "r", NOT_NEGATIVE, FIELD(r), NULL},
    {FREE, "weight_lr_power", NOT_NEGATIVE, FIELD(weight_lr_power), NULL},
    {KIND(RADAM_SCHEDULE_FREE), "silent_sgd_phase", TRUTH, FIELD(silent_sgd_phase), NULL},
    {KIND(ADAMW) | BNB_ADAM, "amsgrad", FIXED, 0, "False"},
    {KIND(ADAMW) | KIND(SGD_NESTEROV) | FREE, "foreach", FIXED, 0, "False"},
    {KIND(ADAMW) | KIND(SGD_NESTEROV), "maximize", FIXED, 0, "False"},
    {KIND(ADAMW) | KIND(SGD_NESTEROV), "differentiable", FIXED, 0, "False"},
    {KIND(ADAMW) | KIND(SGD_NESTEROV), "fused", FIXED, 0, "False"},
    {KIND(ADAMW), "capturable", FIXED, 0, "False"},
    {SGD, "nesterov", FIXED, 0, "True"},
    {KIND(LION), "use_triton", FIXED, 0, "False"},
    {KIND(LION), "decoupled_weight_decay", FIXED, 0, "False"},
    {BNB, "percentile_clipping", FIXED, 0, "100"},
    {BNB, "block_wise", FIXED, 0, "True"},
    {BNB, "min_8bit_size", FIXED, 0, "4096"},
    {BNB, "optim_bits", FIXED, 0, "8"},
    {ESTIMATES, "log_every", FIXED, 0, "0"},
    {ESTIMATES, "fsdp_in_use", FIXED, 0, "False"},
    {KIND(PRODIGY), "slice_p", FIXED, 0, "1"},
};
enum { N_SETTINGS = sizeof settings / sizeof *settings };

bool dr_optim_estimates_rate(dr_optim_kind kind)
{
    return (ESTIMATES >> (unsigned)kind & 1U) != 0;
}

bool dr_optim_is_schedule_free(dr_optim_kind kind)
{
    return (FREE >> (unsigned)kind & 1U) != 0;
}

static bool belongs(const setting *s, dr_optim_kind kind)
{
    return (s->kinds >> (unsigned)kind & 1U) != 0;
}

/* "weight_decay, betas, eps" */
static void list_settings(dr_optim_kind kind, dr_str *out)
{
    for (int i = 0; i < N_SETTINGS; i++) {
        if (belongs(&settings[i], kind) && settings[i].type != FIXED) {
            dr_str_printf(out, "%s%s", out->len > 0 ? ", " : "", settings[i].key);
        }
    }
}

static dr_status take_number(const setting *s, const char *text, size_t n, double *out)
{
    char number[64];
    const bool fits = n < sizeof number;
    if (fits) {
        memcpy(number, text, n);
        number[n] = '\0';
    }
    static const char *const expected[] = {[NOT_NEGATIVE] = ">= 0",
                                           [POSITIVE] = "> 0",
                                           [NUMBER] = "that is finite",
                                           [FRACTION] = "in 0..1, 1 excluded",
                                           [FRACTIONS] = "in 0..1, 1 excluded",
                                           [NUMBERS] = ">= 0",
                                           [OR_NONE] = "in 0..1, 1 excluded, or None"};
    const bool fraction = s->type == FRACTION || s->type == FRACTIONS || s->type == OR_NONE;
    const bool infinite = s->field == FIELD(growth_rate) && fits && strcmp(number, "inf") == 0;
    if (infinite) {
        *out = HUGE_VAL;
        return DR_OK;
    }
    if (!fits || !dr_parse_f64(number, out) || !isfinite(*out) ||
        (s->type != NUMBER && *out < 0.0) || (s->type == POSITIVE && *out == 0.0) ||
        (fraction && *out >= 1.0)) {
        DR_FAIL(DR_INVALID, "--optimizer_args %s: found '%.*s', expected a number %s", s->key,
                (int)n, text, expected[s->type]);
    }
    return DR_OK;
}

/* "0.9,0.999", in brackets or not. */
static dr_status take_two(const setting *s, const char *text, double *out)
{
    const size_t n = strlen(text);
    const bool brackets = n >= 2 && (text[0] == '(' || text[0] == '[');
    const char *begin = brackets ? text + 1 : text;
    const char *end = brackets ? text + n - 1 : text + n;
    const char *comma = strchr(begin, ',');
    if (comma == NULL || comma > end) {
        DR_FAIL(DR_INVALID,
                "--optimizer_args %s: found '%s', expected two numbers such as 0.9,0.999", s->key,
                text);
    }
    DR_TRY(take_number(s, begin, (size_t)(comma - begin), out));
    return take_number(s, comma + 1, (size_t)(end - comma - 1), out + 1);
}

static dr_status take_truth(const setting *s, const char *text, double *out)
{
    if (strcmp(text, "True") != 0 && strcmp(text, "False") != 0) {
        DR_FAIL(DR_INVALID, "--optimizer_args %s: found '%s', expected True or False", s->key,
                text);
    }
    *out = text[0] == 'T' ? 1.0 : 0.0;
    return DR_OK;
}

static dr_status take_fixed(const setting *s, dr_optim_kind kind, const char *text)
{
    if (strcmp(text, s->only) == 0) {
        return DR_OK;
    }
    dr_str available = {0};
    list_settings(kind, &available);
    (void)dr_error_set(DR_UNSUPPORTED, __FILE__, __LINE__,
                       "--optimizer_args %s: found '%s', only %s is available; what %s can be "
                       "told: %s",
                       s->key, text, s->only, kind_names[kind], dr_str_get(&available));
    dr_str_free(&available);
    return DR_UNSUPPORTED;
}

static dr_status take(const setting *s, const char *text, dr_optim_settings *out)
{
    double *field = (double *)(void *)((char *)out + s->field);
    switch (s->type) {
    case FRACTIONS:
    case NUMBERS:
        return take_two(s, text, field);
    case TRUTH:
        return take_truth(s, text, field);
    case OR_NONE:
        if (strcmp(text, "None") == 0) {
            *field = DR_OPTIM_NONE;
            return DR_OK;
        }
        return take_number(s, text, strlen(text), field);
    case FIXED:
        return take_fixed(s, out->kind, text);
    default:
        return take_number(s, text, strlen(text), field);
    }
}

static dr_status unknown_setting(dr_optim_kind kind, const char *key)
{
    const char *nearest = NULL;
    for (int i = 0; i < N_SETTINGS; i++) {
        if (belongs(&settings[i], kind) && settings[i].type != FIXED &&
            (nearest == NULL ||
             dr_edit_distance(key, settings[i].key) < dr_edit_distance(key, nearest))) {
            nearest = settings[i].key;
        }
    }
    dr_str available = {0};
    list_settings(kind, &available);
    (void)dr_error_set(DR_INVALID, __FILE__, __LINE__,
                       "--optimizer_args: %s has no setting '%s'; did you mean %s? It has: %s",
                       kind_names[kind], key, nearest, dr_str_get(&available));
    dr_str_free(&available);
    return DR_INVALID;
}

/* What the packages' constructors refuse, and what sd-scripts changes. */
static dr_status check_together(dr_optim_settings *s)
{
    if (s->kind == DR_OPTIM_SGD_NESTEROV && (s->dampening != 0.0 || s->momentum == 0.0)) {
        DR_FAIL(DR_INVALID,
                "--optimizer_args: Nesterov momentum needs momentum > 0 and dampening 0");
    }
    if (s->kind == DR_OPTIM_SGD_SCHEDULE_FREE && s->momentum == 0.0) {
        DR_FAIL(DR_INVALID, "--optimizer_args momentum: SGDScheduleFree needs one above 0");
    }
    if (dr_optim_is_schedule_free(s->kind) && s->kind != DR_OPTIM_SGD_SCHEDULE_FREE &&
        s->beta1 == 0.0) {
        DR_FAIL(DR_INVALID, "--optimizer_args betas: %s needs a first one above 0",
                kind_names[s->kind]);
    }
    if (s->warmup_init != 0.0) {
        s->relative_step = 1.0; /* as sd-scripts does */
    }
    return DR_OK;
}

dr_status dr_optim_settings_parse(dr_optim_kind kind, const dr_strv *args, dr_optim_settings *out)
{
    *out = defaults[kind];
    out->kind = kind;
    for (size_t i = 0; i < args->n; i++) {
        const char *equals = strchr(args->at[i], '=');
        char key[64];
        const size_t n = equals != NULL ? (size_t)(equals - args->at[i]) : 0;
        if (n == 0 || n >= sizeof key) {
            DR_FAIL(DR_INVALID, "--optimizer_args: found '%s', expected key=value", args->at[i]);
        }
        memcpy(key, args->at[i], n);
        key[n] = '\0';
        int k = 0;
        while (k < N_SETTINGS &&
               !(belongs(&settings[k], kind) && strcmp(settings[k].key, key) == 0)) {
            k++;
        }
        DR_TRY(k < N_SETTINGS ? take(&settings[k], equals + 1, out) : unknown_setting(kind, key));
    }
    return check_together(out);
}

/* ---- advice -----------------------------------------------------------------------------------
 */

void dr_optim_settings_advise(const dr_optim_settings *s, double lr, double max_grad_norm)
{
    const char *name = kind_names[s->kind];
    if (dr_str_starts(name, "Paged")) {
        dr_info("%s: states are kept in this device's memory and never paged; otherwise it is the "
                "optimizer of the same name without Paged",
                name);
    }
    if (dr_optim_estimates_rate(s->kind) && lr <= 0.1) {
        dr_warn("--learning_rate %g: %s finds its rate itself and multiplies it by this; 1.0 is "
                "recommended",
                lr, name);
    }
    if (s->kind == DR_OPTIM_ADAFACTOR && s->relative_step != 0.0) {
        dr_info("AdaFactor sets its rate itself (relative_step=True): --learning_rate, "
                "--learning_rate_te and --lr_scheduler are not used");
    }
    if (s->kind == DR_OPTIM_ADAFACTOR && s->relative_step == 0.0 && max_grad_norm != 0.0) {
        dr_warn("--max_grad_norm %g: AdaFactor clips by itself; 0 is recommended", max_grad_norm);
    }
    if (s->kind == DR_OPTIM_SGD_NESTEROV8BIT) {
        dr_info("SGDNesterov8bit: plain momentum, as bitsandbytes' SGD8bit computes it whatever "
                "nesterov says");
    }
}
