/*
 * DDIM (eta 0) and PNDM, which walk over training timesteps: diffusers' DDIMScheduler and
 * PNDMScheduler, "leading" spacing.
 */
#include "diffusion/sampler_internal.h"

#include <math.h>
#include <string.h>

static int stride_of(const dr_sampler *s)
{
    return DR_TRAIN_TIMESTEPS / s->o.n_steps;
}

/* Timestep j of n_steps, from 0, the smallest first. */
static int leading(const dr_sampler *s, int j)
{
    return stride_of(s) * j + (s->o.as_sd_scripts ? 0 : 1);
}

/* A schedule that ends in pure noise is walked from its very end ("trailing" spacing). */
static bool ends_in_noise(const dr_sampler *s)
{
    return s->schedule->alphas_cumprod[DR_TRAIN_TIMESTEPS - 1] <= 0.0f;
}

static void init_ddim(dr_sampler *s)
{
    const int n = s->o.n_steps;
    for (int i = 0; i < n; i++) {
        const double trailing = DR_TRAIN_TIMESTEPS - i * ((double)DR_TRAIN_TIMESTEPS / n);
        s->timestep[i] =
            ends_in_noise(s) ? (float)(rint(trailing) - 1.0) : (float)leading(s, n - 1 - i);
    }
    s->n_calls = n;
}

/* The last of the timesteps but one is done twice: the first step is one of Heun's. */
static void init_plms(dr_sampler *s)
{
    const int n = s->o.n_steps;
    for (int i = 0; i < n; i++) {
        s->timestep[s->n_calls++] = (float)leading(s, n - 1 - i);
        if (i == 1) {
            s->timestep[s->n_calls++] = (float)leading(s, n - 1 - i);
        }
    }
}

/* Twelve calls of Runge-Kutta steps over the four largest timesteps, then linear multistep. */
static void init_prk(dr_sampler *s)
{
    const int n = s->o.n_steps;
    const int half = stride_of(s) / 2;
    for (int step = 0; step < 3; step++) {
        const int t = leading(s, n - 1 - step);
        const int middle = leading(s, n - 2 - step) + half;
        const int next = leading(s, n - 2 - step);
        const int times[4] = {t, middle, middle, next};
        for (int k = 0; k < 4; k++) {
            s->timestep[s->n_calls++] = (float)times[k];
        }
    }
    for (int j = n - 4; j >= 0; j--) {
        s->timestep[s->n_calls++] = (float)leading(s, j);
    }
}

void dr_timestep_sampler_init(dr_sampler *s)
{
    if (s->o.kind == DR_SAMPLER_DDIM) {
        init_ddim(s);
    } else if (s->o.as_sd_scripts) {
        init_prk(s);
    } else {
        init_plms(s);
    }
}

/* alphas_cumprod before the first timestep: set_alpha_to_one of ddim as sd-scripts has it */
static double first_ac(const dr_sampler *s)
{
    return s->o.kind == DR_SAMPLER_DDIM && s->o.as_sd_scripts ? 1.0 : dr_sampler_ac(s, 0);
}

static float clamp_one(float v)
{
    return v < -1.0f ? -1.0f : v > 1.0f ? 1.0f : v;
}

void dr_ddim_step(dr_sampler *s, int i, const float *out, float *x)
{
    const int t = (int)s->timestep[i];
    const int before = t - stride_of(s);
    const bool v = s->o.prediction == DR_PREDICT_V;
    const double ac = v ? (double)s->schedule->alphas_cumprod[t] : dr_sampler_ac(s, t);
    const double ac_next = before >= 0 ? dr_sampler_ac(s, before) : first_ac(s);
    const float a = (float)sqrt(ac);
    const float b = (float)sqrt(1.0 - ac);
    const float next_a = (float)sqrt(ac_next);
    const float next_b = (float)sqrt(1.0 - ac_next);
    for (size_t k = 0; k < s->n; k++) {
        float x0 = v ? a * x[k] - b * out[k] : (x[k] - b * out[k]) / a;
        const float eps = v ? a * out[k] + b * x[k] : out[k];
        x0 = s->o.as_sd_scripts ? clamp_one(x0) : x0;
        x[k] = next_a * x0 + next_b * eps;
    }
}

/* ---- pndm ---------------------------------------------------------------------------------- */

/* Formula (9) of the PNDM paper: from x at t to the timestep `to` along out, into x. */
static void move(const dr_sampler *s, const float *from, int t, int to, const float *out, float *x)
{
    const double ac = dr_sampler_ac(s, t);
    const double next = to >= 0 ? dr_sampler_ac(s, to) : first_ac(s);
    const float of_sample = (float)sqrt(next / ac);
    const float of_output =
        (float)((next - ac) / (ac * sqrt(1.0 - next) + sqrt(ac * (1.0 - ac) * next)));
    const float a = (float)sqrt(ac);
    const float b = (float)sqrt(1.0 - ac);
    for (size_t k = 0; k < s->n; k++) {
        const float eps = s->o.prediction == DR_PREDICT_V ? a * out[k] + b * from[k] : out[k];
        x[k] = of_sample * from[k] - of_output * eps;
    }
}

/* Call k of four of a Runge-Kutta step; history[0] of its first call is kept for later steps, the
 * weighted sum of all four gathers in history[3], which no step before the third one uses. */
static void runge_kutta(dr_sampler *s, int i, const float *out, float *x)
{
    static const float weights[4] = {1.0f / 6.0f, 1.0f / 3.0f, 1.0f / 3.0f, 1.0f / 6.0f};
    const int k = i % 4;
    const int t = (int)s->timestep[i - k];
    const int now = (int)s->timestep[i];
    const int to = k % 2 == 0 ? now - stride_of(s) / 2 : now;
    if (k == 0) {
        memcpy(dr_sampler_push(s), out, s->n * sizeof *out);
        memcpy(s->kept, x, s->n * sizeof *x);
        memset(s->history[3], 0, s->n * sizeof *out);
    }
    float *sum = s->history[3];
    for (size_t e = 0; e < s->n; e++) {
        sum[e] += weights[k] * out[e];
    }
    move(s, s->kept, t, to, k == 3 ? sum : out, x);
}

/* The next output by the last ones (Adams and Bashforth), into sum. */
static void multistep(const dr_sampler *s, float *sum)
{
    static const float weights[5][4] = {
        {0.0f, 0.0f, 0.0f, 0.0f},
        {1.0f, 0.0f, 0.0f, 0.0f},
        {3.0f / 2.0f, -1.0f / 2.0f, 0.0f, 0.0f},
        {23.0f / 12.0f, -16.0f / 12.0f, 5.0f / 12.0f, 0.0f},
        {55.0f / 24.0f, -59.0f / 24.0f, 37.0f / 24.0f, -9.0f / 24.0f}};
    for (size_t e = 0; e < s->n; e++) {
        float total = 0.0f;
        for (int k = 0; k < s->n_history; k++) {
            total += weights[s->n_history][k] * s->history[k][e];
        }
        sum[e] = total;
    }
}

void dr_pndm_step(dr_sampler *s, int i, const float *out, float *x)
{
    const int stride = stride_of(s);
    const int t = (int)s->timestep[i];
    if (s->o.as_sd_scripts && i < 12) {
        runge_kutta(s, i, out, x);
        return;
    }
    if (!s->o.as_sd_scripts && i == 1) { /* the first step again, with the mean of both ends */
        const float *first = s->history[0];
        float *mean = s->history[3];
        for (size_t e = 0; e < s->n; e++) {
            mean[e] = (out[e] + first[e]) / 2.0f;
        }
        move(s, s->kept, t + stride, t, mean, x);
        return;
    }
    memcpy(dr_sampler_push(s), out, s->n * sizeof *out);
    if (i == 0) {
        memcpy(s->kept, x, s->n * sizeof *x);
        move(s, x, t, t - stride, out, x);
        return;
    }
    multistep(s, s->kept);
    move(s, x, t, t - stride, s->kept, x);
}
