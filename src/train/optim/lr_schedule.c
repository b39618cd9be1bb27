#include "train/optim/lr_schedule.h"

#include "base/str.h"

#include <math.h>
#include <string.h>

static const char *const kind_names[DR_LR_COUNT] = {
#define KIND_NAME(name, text) text,
    DR_LR_SCHEDULE_LIST(KIND_NAME)
#undef KIND_NAME
};

static const double lr_end = 1e-7; /* diffusers' get_polynomial_decay_schedule_with_warmup */
static const double pi = 3.14159265358979323846;

bool dr_lr_kind_from_name(const char *name, dr_lr_kind *out)
{
    for (int i = 0; i < DR_LR_COUNT; i++) {
        if (strcmp(name, kind_names[i]) == 0) {
            *out = (dr_lr_kind)i;
            return true;
        }
    }
    return false;
}

/* "0.1:20" at *at, or a last "0.01": value and end (-1: none); *at moves behind its comma. */
static bool take_rule(const char **at, double *value, int64_t *end)
{
    char text[64];
    const size_t n = strcspn(*at, ",");
    if (n == 0 || n >= sizeof text) {
        return false;
    }
    memcpy(text, *at, n);
    text[n] = '\0';
    *at += n + ((*at)[n] == ',' ? 1 : 0);
    char *colon = strchr(text, ':');
    *end = -1;
    if (colon != NULL) {
        *colon = '\0';
    }
    return dr_parse_f64(text, value) && isfinite(*value) && *value >= 0.0 &&
           (colon == NULL || (dr_parse_i64(colon + 1, end) && *end >= 0));
}

static dr_status check_rules(const char *rules)
{
    const char *at = rules != NULL ? rules : "";
    double value;
    int64_t end = 0;
    int64_t before = -1;
    bool good = *at != '\0';
    while (good && *at != '\0') {
        good = take_rule(&at, &value, &end) && (end > before || (end == -1 && *at == '\0'));
        before = end;
    }
    if (!good || end != -1) {
        DR_FAIL(DR_INVALID,
                "--lr_scheduler piecewise_constant: found step_rules '%s', expected "
                "factor:step pairs with steps that rise and a last factor, as in "
                "--lr_scheduler_args step_rules=1:10,0.1:20,0.01",
                rules != NULL ? rules : "");
    }
    return DR_OK;
}

static double rule_at(const char *rules, int64_t step)
{
    double value = 1.0;
    int64_t end = 0;
    for (const char *at = rules; *at != '\0';) {
        DR_CHECK(take_rule(&at, &value, &end), "rules that were not checked");
        if (end == -1 || step < end) {
            break;
        }
    }
    return value;
}

dr_status dr_lr_schedule_check(const dr_lr_schedule *s)
{
    if (s->kind == DR_LR_CONSTANT && s->warmup_steps > 0) {
        DR_FAIL(DR_INVALID, "--lr_scheduler constant has no warm-up, but --lr_warmup_steps is "
                            "given: use constant_with_warmup");
    }
    if (s->kind == DR_LR_POLYNOMIAL && !(s->base_lr > lr_end)) {
        DR_FAIL(DR_INVALID,
                "--lr_scheduler polynomial ends at 1e-7: --learning_rate must be "
                "larger, found %g",
                s->base_lr);
    }
    if (s->kind == DR_LR_WARMUP_STABLE_DECAY && s->warmup_steps + s->decay_steps > s->total_steps) {
        DR_FAIL(DR_INVALID,
                "--lr_scheduler warmup_stable_decay: %lld steps of warm-up and %lld of decay are "
                "more than the run's %lld",
                (long long)s->warmup_steps, (long long)s->decay_steps, (long long)s->total_steps);
    }
    return s->kind == DR_LR_PIECEWISE_CONSTANT ? check_rules(s->rules) : DR_OK;
}

static double clamp_low(double v)
{
    return v > 0.0 ? v : 0.0;
}

/* Half a cosine per cycle's half, from 1 to 0 with one cycle, stretched onto [min_ratio, 1]. */
static double cosine_to_min(const dr_lr_schedule *s, double p)
{
    const double f = 0.5 * (1.0 + cos(pi * (double)s->cycles * p));
    return clamp_low(f * (1.0 - s->min_ratio) + s->min_ratio);
}

static double stable_then_decay(const dr_lr_schedule *s, int64_t step)
{
    const int64_t decay_from = s->total_steps - s->decay_steps;
    if (step < s->warmup_steps) {
        const double p = (double)step / (double)(s->warmup_steps > 1 ? s->warmup_steps : 1);
        return p * (1.0 - s->min_ratio) + s->min_ratio;
    }
    if (step < decay_from) {
        return 1.0;
    }
    if (step >= s->total_steps) {
        return s->min_ratio;
    }
    return cosine_to_min(s, (double)(step - decay_from) /
                                (double)(s->decay_steps > 1 ? s->decay_steps : 1));
}

static double inverse_root(const dr_lr_schedule *s, double k)
{
    const double own = s->warmup_steps > 0 ? (double)s->warmup_steps : 10000.0;
    const double tau = s->timescale > 0 ? (double)s->timescale : own;
    return 1.0 / sqrt((k + tau - (double)s->warmup_steps) / tau);
}

double dr_lr_factor(const dr_lr_schedule *s, int64_t global_step)
{
    const int64_t step = global_step - s->first_step;
    double k = (double)step;
    double t = (double)s->total_steps;
    double w = (double)s->warmup_steps;
    if (s->kind == DR_LR_CONSTANT || s->kind == DR_LR_ADAFACTOR) {
        return 1.0;
    }
    if (s->kind == DR_LR_PIECEWISE_CONSTANT) {
        return rule_at(s->rules, step);
    }
    if (s->kind == DR_LR_WARMUP_STABLE_DECAY) {
        return stable_then_decay(s, step);
    }
    if (step < s->warmup_steps) {
        return k / (w > 1.0 ? w : 1.0);
    }
    double span = t - w > 1.0 ? t - w : 1.0;
    double p = (k - w) / span;
    switch (s->kind) {
    case DR_LR_LINEAR:
        return clamp_low((t - k) / span);
    case DR_LR_COSINE:
        return clamp_low(0.5 * (1.0 + cos(pi * p)));
    case DR_LR_COSINE_WITH_RESTARTS:
        return p >= 1.0 ? 0.0 : clamp_low(0.5 * (1.0 + cos(pi * fmod((double)s->cycles * p, 1.0))));
    case DR_LR_POLYNOMIAL:
        if (k > t) {
            return lr_end / s->base_lr;
        }
        return ((s->base_lr - lr_end) * pow(1.0 - p, s->power) + lr_end) / s->base_lr;
    case DR_LR_INVERSE_SQRT:
        return inverse_root(s, k);
    case DR_LR_COSINE_WITH_MIN_LR:
        return cosine_to_min(s, p);
    default:
        return 1.0;
    }
}
