#include "diffusion/schedule.h"

#include <math.h>
#include <string.h>

static const char *const prediction_names[] = {
    [DR_PREDICT_EPSILON] = "epsilon", [DR_PREDICT_V] = "v_prediction"};

const char *dr_prediction_name(dr_prediction p)
{
    return prediction_names[p];
}

dr_status dr_prediction_from_name(const char *name, dr_prediction *out)
{
    for (int i = 0; i < 2; i++) {
        if (strcmp(name, prediction_names[i]) == 0) {
            *out = (dr_prediction)i;
            return DR_OK;
        }
    }
    DR_FAIL(DR_UNSUPPORTED,
            "scheduler: prediction_type is \"%s\", expected \"epsilon\" or \"v_prediction\"", name);
}

static void accumulate(dr_schedule *s)
{
    double product = 1.0;
    for (int i = 0; i < DR_TRAIN_TIMESTEPS; i++) {
        product *= (double)(1.0f - s->beta[i]);
        s->alphas_cumprod[i] = (float)product;
    }
}

/*
 * torch.linspace runs from both ends towards the middle with a fused multiply-add; torch.cumprod
 * of f32 on a CPU accumulates in double and rounds each prefix.
 */
void dr_schedule_init(dr_schedule *s)
{
    const int n = DR_TRAIN_TIMESTEPS;
    const float start = (float)sqrt(0.00085);
    const float end = (float)sqrt(0.012);
    const float step = (end - start) / (float)(n - 1);
    for (int i = 0; i < n; i++) {
        const float root =
            i < n / 2 ? fmaf(step, (float)i, start) : fmaf(-step, (float)(n - 1 - i), end);
        s->beta[i] = root * root;
    }
    accumulate(s);
}

void dr_schedule_zero_terminal_snr(dr_schedule *s)
{
    const float first = sqrtf(s->alphas_cumprod[0]);
    const float last = sqrtf(s->alphas_cumprod[DR_TRAIN_TIMESTEPS - 1]);
    const float stretch = first / (first - last);
    float before = 1.0f;
    for (int i = 0; i < DR_TRAIN_TIMESTEPS; i++) {
        const float root = (sqrtf(s->alphas_cumprod[i]) - last) * stretch;
        const float ac = root * root;
        s->beta[i] = 1.0f - ac / before;
        before = ac;
    }
    accumulate(s);
}

static float ac_at(const dr_schedule *s, int t)
{
    DR_CHECK(t >= 0 && t < DR_TRAIN_TIMESTEPS, "timestep %d", t);
    return s->alphas_cumprod[t];
}

float dr_schedule_sqrt_ac(const dr_schedule *s, int t)
{
    return sqrtf(ac_at(s, t));
}

float dr_schedule_sqrt_one_minus_ac(const dr_schedule *s, int t)
{
    return sqrtf(1.0f - ac_at(s, t));
}

float dr_schedule_snr(const dr_schedule *s, int t)
{
    const float ratio = dr_schedule_sqrt_ac(s, t) / dr_schedule_sqrt_one_minus_ac(s, t);
    return ratio * ratio;
}

float dr_schedule_sigma(const dr_schedule *s, int t)
{
    const float ac = ac_at(s, t);
    return sqrtf((1.0f - ac) / ac);
}

dr_mix_factors dr_schedule_noisy(const dr_schedule *s, int t)
{
    return (dr_mix_factors){.a = dr_schedule_sqrt_ac(s, t),
                            .b = dr_schedule_sqrt_one_minus_ac(s, t)};
}

dr_mix_factors dr_schedule_target(const dr_schedule *s, dr_prediction p, int t)
{
    if (p == DR_PREDICT_EPSILON) {
        return (dr_mix_factors){.a = 0.0f, .b = 1.0f};
    }
    return (dr_mix_factors){.a = -dr_schedule_sqrt_one_minus_ac(s, t),
                            .b = dr_schedule_sqrt_ac(s, t)};
}
