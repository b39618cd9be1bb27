#include "train/lr_schedule.h"

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
    return DR_OK;
}

static double clamp_low(double v)
{
    return v > 0.0 ? v : 0.0;
}

double dr_lr_factor(const dr_lr_schedule *s, int64_t step)
{
    double k = (double)step;
    double t = (double)s->total_steps;
    double w = (double)s->warmup_steps;
    if (s->kind == DR_LR_CONSTANT) {
        return 1.0;
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
    default:
        return 1.0;
    }
}
