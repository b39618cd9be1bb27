/*
 * The samplers of k-diffusion as diffusers has them, "linspace" spacing: x = latents + sigma noise,
 * derivative d = (x - x0) / sigma. Methods of second order make a step of two calls, the last one
 * (to sigma 0) of one.
 */
#include "diffusion/sampler_internal.h"

#include <math.h>
#include <string.h>

static bool second_order(dr_sampler_kind kind)
{
    return kind == DR_SAMPLER_HEUN || kind == DR_SAMPLER_DPM_2 || kind == DR_SAMPLER_DPM_2_A;
}

static bool ancestral(dr_sampler_kind kind)
{
    return kind == DR_SAMPLER_EULER_A || kind == DR_SAMPLER_DPM_2_A;
}

/* One step is at timestep 0, not 999: numpy.linspace(0, 999, 1) is its start, and diffusers keeps
 * that. */
static void init_steps(dr_sampler *s, float *times)
{
    const int n = s->o.n_steps;
    for (int i = 0; i < n; i++) {
        times[i] = (float)dr_linspace(DR_TRAIN_TIMESTEPS - 1, n, n - 1 - i);
        s->sigma[i] = dr_sampler_sigma(s, (double)times[i]);
    }
    s->sigma[n] = 0.0f;
    if (s->o.karras) {
        const bool whole = s->o.kind == DR_SAMPLER_DPM_2 || s->o.kind == DR_SAMPLER_DPM_2_A;
        dr_sampler_karras(s, (double)s->sigma[0], (double)s->sigma[n - 1]);
        for (int i = 0; i < n; i++) {
            const double t = dr_sampler_timestep(s, (double)s->sigma[i]);
            times[i] = (float)(whole ? rint(t) : t);
        }
    }
}

static void init_targets(dr_sampler *s)
{
    for (int i = 0; i < s->o.n_steps; i++) {
        const double from = (double)s->sigma[i];
        const double to = (double)s->sigma[i + 1];
        const double up =
            ancestral(s->o.kind) ? sqrt(to * to * (from * from - to * to) / (from * from)) : 0.0;
        s->up[i] = (float)up;
        s->down[i] = (float)sqrt(to * to - up * up);
        s->middle[i] = (float)sqrt(from * (double)s->down[i]);
    }
}

void dr_sigma_sampler_init(dr_sampler *s)
{
    float times[DR_TRAIN_TIMESTEPS];
    init_steps(s, times);
    init_targets(s);
    for (int i = 0; i < s->o.n_steps; i++) {
        s->timestep[s->n_calls] = times[i];
        s->input_sigma[s->n_calls++] = s->sigma[i];
        s->init_noise_sigma =
            i == 0 || s->sigma[i] > s->init_noise_sigma ? s->sigma[i] : s->init_noise_sigma;
        if (second_order(s->o.kind) && i < s->o.n_steps - 1) {
            const bool heun = s->o.kind == DR_SAMPLER_HEUN;
            s->timestep[s->n_calls] =
                heun ? times[i + 1] : (float)dr_sampler_timestep(s, (double)s->middle[i]);
            s->input_sigma[s->n_calls++] = heun ? s->sigma[i + 1] : s->middle[i];
        }
    }
}

/* The derivative at x, where the noise has this sigma. */
static void derive(const dr_sampler *s, float sigma, const float *out, const float *x, float *d)
{
    const float norm = sigma * sigma + 1.0f;
    const float c_out = -sigma / sqrtf(norm);
    const bool clip = s->o.as_sd_scripts && s->o.kind == DR_SAMPLER_HEUN;
    for (size_t k = 0; k < s->n; k++) {
        float x0 = s->o.prediction == DR_PREDICT_EPSILON ? x[k] - sigma * out[k]
                                                         : out[k] * c_out + x[k] / norm;
        if (clip) {
            x0 = x0 < -1.0f ? -1.0f : x0 > 1.0f ? 1.0f : x0;
        }
        d[k] = (x[k] - x0) / sigma;
    }
}

/* x = from + dt d + up noise; noise NULL: none */
static void advance(const dr_sampler *s, const float *from, const float *d, float dt, float up,
                    const float *noise, float *x)
{
    for (size_t k = 0; k < s->n; k++) {
        x[k] = from[k] + d[k] * dt + (noise != NULL ? noise[k] * up : 0.0f);
    }
}

/*
 * The integral from sigma[i] to sigma[i+1] of the polynomial that is 1 at sigma[i - j] and 0 at the
 * other `order` newest sigmas. Its degree is 3 at most: two points of Gauss and Legendre are exact.
 */
static double lms_coefficient(const dr_sampler *s, int order, int i, int j)
{
    const double center = ((double)s->sigma[i] + (double)s->sigma[i + 1]) / 2.0;
    const double half = ((double)s->sigma[i + 1] - (double)s->sigma[i]) / 2.0;
    double sum = 0.0;
    for (int side = -1; side <= 1; side += 2) {
        const double at = center + side * half / sqrt(3.0);
        double product = 1.0;
        for (int k = 0; k < order; k++) {
            if (k != j) {
                const double other = (double)s->sigma[i - k];
                product *= (at - other) / ((double)s->sigma[i - j] - other);
            }
        }
        sum += product * half;
    }
    return sum;
}

static void lms_step(dr_sampler *s, int i, const float *out, float *x)
{
    derive(s, s->sigma[i], out, x, dr_sampler_push(s));
    const int order = s->n_history;
    for (int j = 0; j < order; j++) {
        const float c = (float)lms_coefficient(s, order, i, j);
        advance(s, x, s->history[j], c, 0.0f, NULL, x);
    }
}

/* The two calls of step k. */
static void second_order_step(dr_sampler *s, int i, const float *out, const float *noise, float *x)
{
    const int k = i / 2;
    const float sigma = s->sigma[k];
    const bool heun = s->o.kind == DR_SAMPLER_HEUN;
    float *d = s->history[0];
    if (i % 2 == 0) {
        memcpy(s->kept, x, s->n * sizeof *x);
        derive(s, sigma, out, x, d);
        advance(s, x, d, (heun ? s->sigma[k + 1] : s->middle[k]) - sigma, 0.0f, NULL, x);
        return;
    }
    derive(s, s->input_sigma[i], out, x, s->history[1]);
    for (size_t e = 0; e < s->n; e++) {
        d[e] = heun ? (d[e] + s->history[1][e]) / 2.0f : s->history[1][e];
    }
    advance(s, s->kept, d, s->down[k] - sigma, s->up[k], noise, x);
}

void dr_sigma_sampler_step(dr_sampler *s, int i, const float *out, const float *noise, float *x)
{
    if (s->o.kind == DR_SAMPLER_LMS) {
        lms_step(s, i, out, x);
    } else if (second_order(s->o.kind)) {
        second_order_step(s, i, out, noise, x);
    } else {
        derive(s, s->sigma[i], out, x, s->history[0]);
        advance(s, x, s->history[0], s->down[i] - s->sigma[i], s->up[i], noise, x);
    }
}
