#include "train/optimizer_settings.h"

#include <math.h>
#include <string.h>
#include <strings.h>

static const char *const kind_names[DR_OPTIM_COUNT] = {
#define KIND_NAME(name, text) text,
    DR_OPTIM_LIST(KIND_NAME)
#undef KIND_NAME
};

static const dr_optim_settings defaults[DR_OPTIM_COUNT] = {
    [DR_OPTIM_ADAMW] = {.beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .weight_decay = 0.01},
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
    FRACTION,     /* number in 0..1, 1 excluded */
    FRACTIONS,    /* two of them, into two fields that follow each other */
    FIXED         /* exists in the package; only `only` is taken */
} setting_type;

#define KIND(name) (1ULL << DR_OPTIM_##name)

typedef struct setting {
    uint64_t kinds;
    const char *key;
    setting_type type;
    size_t field; /* offset in dr_optim_settings */
    const char *only;
} setting;

#define FIELD(name) offsetof(dr_optim_settings, name)

static const setting settings[] = {
    {KIND(ADAMW), "weight_decay", NOT_NEGATIVE, FIELD(weight_decay), NULL},
    {KIND(ADAMW), "betas", FRACTIONS, FIELD(beta1), NULL},
    {KIND(ADAMW), "eps", NOT_NEGATIVE, FIELD(eps), NULL},
    {KIND(ADAMW), "amsgrad", FIXED, 0, "False"},
    {KIND(ADAMW), "foreach", FIXED, 0, "False"},
    {KIND(ADAMW), "maximize", FIXED, 0, "False"},
    {KIND(ADAMW), "capturable", FIXED, 0, "False"},
    {KIND(ADAMW), "differentiable", FIXED, 0, "False"},
    {KIND(ADAMW), "fused", FIXED, 0, "False"},
};
enum { N_SETTINGS = sizeof settings / sizeof *settings };

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
    const bool fraction = s->type == FRACTION || s->type == FRACTIONS;
    if (!fits || !dr_parse_f64(number, out) || !isfinite(*out) || *out < 0.0 ||
        (fraction && *out >= 1.0)) {
        DR_FAIL(DR_INVALID, "--optimizer_args %s: found '%.*s', expected a number %s", s->key,
                (int)n, text, fraction ? "in 0..1, 1 excluded" : ">= 0");
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
        return take_two(s, text, field);
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
    return DR_OK;
}
