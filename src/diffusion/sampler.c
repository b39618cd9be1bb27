#include "diffusion/sampler.h"

#include "base/arena.h"
#include "diffusion/sampler_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- names --------------------------------------------------------------------------------- */

static const struct {
    const char *name, *title;
    bool has_alias; /* "k_" before the name */
} kinds[DR_SAMPLER_KINDS] = {
    [DR_SAMPLER_DDIM] = {"ddim", "DDIM", false},
    [DR_SAMPLER_PNDM] = {"pndm", "PLMS", false},
    [DR_SAMPLER_LMS] = {"lms", "LMS", true},
    [DR_SAMPLER_EULER] = {"euler", "Euler", true},
    [DR_SAMPLER_EULER_A] = {"euler_a", "Euler a", true},
    [DR_SAMPLER_HEUN] = {"heun", "Heun", false},
    [DR_SAMPLER_DPM_2] = {"dpm_2", "DPM2", true},
    [DR_SAMPLER_DPM_2_A] = {"dpm_2_a", "DPM2 a", true},
    [DR_SAMPLER_DPMSOLVER] = {"dpmsolver", "DPM-Solver 2M", false},
    [DR_SAMPLER_DPMSOLVER_PP] = {"dpmsolver++", "DPM++ 2M", false},
    [DR_SAMPLER_DPMSINGLE] = {"dpmsingle", "DPM++ 2S", false},
};

dr_status dr_sampler_kind_from_name(const char *name, dr_sampler_kind *out)
{
    const bool alias = strncmp(name, "k_", 2) == 0;
    for (int i = 0; i < DR_SAMPLER_KINDS; i++) {
        if (strcmp(alias ? name + 2 : name, kinds[i].name) == 0 && (!alias || kinds[i].has_alias)) {
            *out = (dr_sampler_kind)i;
            return DR_OK;
        }
    }
    DR_FAIL(DR_INVALID, "sampler \"%s\": expected one of %s", name, DR_SAMPLER_NAMES);
}

const char *dr_sampler_title(dr_sampler_kind kind)
{
    return kinds[kind].title;
}

/* ---- what the families share --------------------------------------------------------------- */

double dr_sampler_ac(const dr_sampler *s, int t)
{
    const double smallest = 1.0 / (1 << 24);
    const double ac = (double)s->schedule->alphas_cumprod[t];
    return ac > smallest ? ac : smallest;
}

static double sigma_of(const dr_sampler *s, int t)
{
    const float ac = (float)dr_sampler_ac(s, t);
    return (double)sqrtf((1.0f - ac) / ac);
}

float dr_sampler_sigma(const dr_sampler *s, double t)
{
    const int low = t >= DR_TRAIN_TIMESTEPS - 1 ? DR_TRAIN_TIMESTEPS - 2 : (int)t;
    const double a = sigma_of(s, low);
    const double b = sigma_of(s, low + 1);
    return (float)(a + (b - a) * (t - low));
}

double dr_sampler_timestep(const dr_sampler *s, double sigma)
{
    const double value = log(sigma > 1e-10 ? sigma : 1e-10);
    int low = 0;
    while (low < DR_TRAIN_TIMESTEPS - 2 && (double)logf((float)sigma_of(s, low + 1)) <= value) {
        low++;
    }
    const double a = (double)logf((float)sigma_of(s, low));
    const double b = (double)logf((float)sigma_of(s, low + 1));
    const double w = fmin(fmax((a - value) / (a - b), 0.0), 1.0);
    return (1.0 - w) * low + w * (low + 1);
}

void dr_sampler_karras(dr_sampler *s, double largest, double smallest)
{
    const double rho = 7.0;
    const double first = pow(largest, 1.0 / rho);
    const double last = pow(smallest, 1.0 / rho);
    for (int i = 0; i < s->o.n_steps; i++) {
        const double ramp = dr_linspace(1.0, s->o.n_steps, i);
        s->sigma[i] = (float)pow(first + ramp * (last - first), rho);
    }
}

double dr_linspace(double last, int n, int j)
{
    return j == 0 ? 0.0 : j == n - 1 ? last : (double)j * (last / (double)(n - 1));
}

float *dr_sampler_push(dr_sampler *s)
{
    float *oldest = s->history[DR_SAMPLER_HISTORY - 1];
    memmove(s->history + 1, s->history, (DR_SAMPLER_HISTORY - 1) * sizeof *s->history);
    s->history[0] = oldest;
    s->n_history += s->n_history < DR_SAMPLER_HISTORY ? 1 : 0;
    return oldest;
}

/* ---- life ---------------------------------------------------------------------------------- */

static bool on_timesteps(dr_sampler_kind kind)
{
    return kind == DR_SAMPLER_DDIM || kind == DR_SAMPLER_PNDM;
}

static bool on_log_ratio(dr_sampler_kind kind)
{
    return kind == DR_SAMPLER_DPMSOLVER || kind == DR_SAMPLER_DPMSOLVER_PP ||
           kind == DR_SAMPLER_DPMSINGLE;
}

static dr_status check_options(const dr_sampler_options *o)
{
    int least = 1;
    int most = DR_TRAIN_TIMESTEPS;
    if (on_timesteps(o->kind) && !o->as_sd_scripts) {
        most--; /* the offset of one would reach timestep 1000 */
    } else if (on_log_ratio(o->kind)) {
        most--; /* one more would give a timestep twice */
    } else if (o->kind == DR_SAMPLER_PNDM) {
        least = 4; /* the Runge-Kutta steps */
    }
    if (o->n_steps < least || o->n_steps > most) {
        DR_FAIL(DR_INVALID, "sampling steps: %d, expected %d to %d with %s", o->n_steps, least,
                most, kinds[o->kind].name);
    }
    if (o->karras && (on_timesteps(o->kind) || o->kind == DR_SAMPLER_EULER_A)) {
        DR_FAIL(DR_INVALID,
                "Karras sigmas with the sampler %s: expected lms, euler, heun, dpm_2, dpm_2_a, "
                "dpmsolver, dpmsolver++ or dpmsingle",
                kinds[o->kind].name);
    }
    return DR_OK;
}

dr_status dr_sampler_init(dr_sampler *s, const dr_sampler_options *o, const dr_schedule *schedule)
{
    DR_TRY(check_options(o));
    *s = (dr_sampler){.o = *o, .schedule = schedule, .init_noise_sigma = 1.0f};
    if (on_timesteps(o->kind)) {
        dr_timestep_sampler_init(s);
    } else if (on_log_ratio(o->kind)) {
        dr_dpm_solver_init(s);
    } else {
        dr_sigma_sampler_init(s);
    }
    return DR_OK;
}

void dr_sampler_deinit(dr_sampler *s)
{
    free(s->memory);
    s->memory = NULL;
    s->n = 0;
}

dr_status dr_sampler_begin(dr_sampler *s, size_t n)
{
    if (n != s->n) {
        dr_sampler_deinit(s);
        DR_TRY(dr_try_calloc((DR_SAMPLER_HISTORY + 1) * n, sizeof(float), (void **)&s->memory));
        s->n = n;
    }
    for (int i = 0; i < DR_SAMPLER_HISTORY; i++) {
        s->history[i] = s->memory + (size_t)i * n;
    }
    s->kept = s->memory + DR_SAMPLER_HISTORY * n;
    s->n_history = 0;
    return DR_OK;
}

/* ---- one call ------------------------------------------------------------------------------ */

static void check_call(const dr_sampler *s, int i)
{
    DR_CHECK(i >= 0 && i < s->n_calls, "call %d of %d", i, s->n_calls);
    DR_CHECK(s->memory != NULL, "dr_sampler_begin has not been called");
}

void dr_sampler_scale_input(const dr_sampler *s, int i, const float *x, float *out)
{
    check_call(s, i);
    const float divisor = sqrtf(s->input_sigma[i] * s->input_sigma[i] + 1.0f);
    for (size_t k = 0; k < s->n; k++) {
        out[k] = x[k] / divisor;
    }
}

bool dr_sampler_wants_noise(const dr_sampler *s, int i)
{
    if (s->o.kind == DR_SAMPLER_EULER_A) {
        return s->up[i] > 0.0f;
    }
    return s->o.kind == DR_SAMPLER_DPM_2_A && i % 2 == 1;
}

void dr_sampler_step(dr_sampler *s, int i, const float *model_output, const float *noise, float *x)
{
    check_call(s, i);
    if (s->o.kind == DR_SAMPLER_DDIM) {
        dr_ddim_step(s, i, model_output, x);
    } else if (s->o.kind == DR_SAMPLER_PNDM) {
        dr_pndm_step(s, i, model_output, x);
    } else if (on_log_ratio(s->o.kind)) {
        dr_dpm_solver_step(s, i, model_output, x);
    } else {
        dr_sigma_sampler_step(s, i, model_output, noise, x);
    }
}

void dr_guide(const float *uncond, const float *cond, float scale, float *out, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        out[k] = uncond[k] + scale * (cond[k] - uncond[k]);
    }
}
