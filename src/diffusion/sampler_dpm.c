/*
 * DPM-Solver and DPM-Solver++ of second order, "midpoint": diffusers' DPMSolverMultistepScheduler
 * and DPMSolverSinglestepScheduler, "linspace" spacing. x = alpha latents + sigma noise with
 * alpha^2 + sigma^2 = 1; lambda = log(alpha / sigma).
 *
 * DPM-Solver (not ++) works on the predicted noise and cannot go to sigma 0: it ends at the
 * smallest sigma of the schedule, as diffusers' error message demands ("sigma_min"); its own
 * default would refuse what sd-scripts asks for.
 */
#include "diffusion/sampler_internal.h"

#include <math.h>
#include <string.h>

void dr_dpm_solver_init(dr_sampler *s)
{
    const int n = s->o.n_steps;
    for (int i = 0; i < n; i++) {
        s->timestep[i] = (float)rint(dr_linspace(DR_TRAIN_TIMESTEPS - 1, n + 1, n - i));
        s->sigma[i] = dr_sampler_sigma(s, (double)s->timestep[i]);
    }
    if (s->o.karras) {
        dr_sampler_karras(s, (double)dr_sampler_sigma(s, DR_TRAIN_TIMESTEPS - 1),
                          (double)dr_sampler_sigma(s, 0.0));
        for (int i = 0; i < n; i++) {
            s->timestep[i] = (float)rint(dr_sampler_timestep(s, (double)s->sigma[i]));
        }
    }
    s->sigma[n] = s->o.kind == DR_SAMPLER_DPMSOLVER ? dr_sampler_sigma(s, 0.0) : 0.0f;
    s->n_calls = n;
}

typedef struct point {
    double alpha, sigma, lambda;
} point;

static point point_of(const dr_sampler *s, int i)
{
    const double sigma = (double)s->sigma[i];
    const double alpha = 1.0 / sqrt(sigma * sigma + 1.0);
    return (point){.alpha = alpha, .sigma = sigma * alpha, .lambda = -log(sigma)};
}

/* What the method works on: the predicted noise, or the predicted latents (++). */
static void convert(const dr_sampler *s, int i, const float *out, const float *x, float *m)
{
    const point p = point_of(s, i);
    const float a = (float)p.alpha;
    const float b = (float)p.sigma;
    const bool v = s->o.prediction == DR_PREDICT_V;
    for (size_t k = 0; k < s->n; k++) {
        if (s->o.kind == DR_SAMPLER_DPMSOLVER) {
            m[k] = v ? a * out[k] + b * x[k] : out[k];
        } else {
            m[k] = v ? a * x[k] - b * out[k] : (x[k] - b * out[k]) / a;
        }
    }
}

/* From `from` at point i to point `to`: x = a from - b (d0 + d1 / 2), d1 NULL: 0. */
static void solve(const dr_sampler *s, int i, int to, const float *from, const float *d0,
                  const float *d1, float *x)
{
    const point now = point_of(s, i);
    const point next = point_of(s, to);
    const double h = next.lambda - now.lambda;
    const bool noise = s->o.kind == DR_SAMPLER_DPMSOLVER;
    const float a = (float)(noise ? next.alpha / now.alpha : next.sigma / now.sigma);
    const float b = (float)(noise ? next.sigma * expm1(h) : next.alpha * expm1(-h));
    for (size_t k = 0; k < s->n; k++) {
        x[k] = a * from[k] - b * (d0[k] + (d1 != NULL ? 0.5f * d1[k] : 0.0f));
    }
}

/* Whether step i looks at the output before it. The last step of few does not; one that goes to
 * sigma 0 never does. */
static bool looks_back(const dr_sampler *s, int i)
{
    const int n = s->o.n_steps;
    const bool last = i == n - 1;
    if (s->o.kind == DR_SAMPLER_DPMSINGLE) {
        return i % 2 == 1 && !last;
    }
    return i > 0 && !(last && (s->o.kind == DR_SAMPLER_DPMSOLVER_PP || n < 15));
}

/* (newest - one before) / r, over the oldest place of the history. */
static float *slope(dr_sampler *s, double r)
{
    float *d = s->history[DR_SAMPLER_HISTORY - 1];
    for (size_t k = 0; k < s->n; k++) {
        d[k] = (float)(1.0 / r) * (s->history[0][k] - s->history[1][k]);
    }
    return d;
}

void dr_dpm_solver_step(dr_sampler *s, int i, const float *out, float *x)
{
    const bool single = s->o.kind == DR_SAMPLER_DPMSINGLE;
    convert(s, i, out, x, dr_sampler_push(s));
    if (!looks_back(s, i)) {
        memcpy(s->kept, x, s->n * sizeof *x);
        solve(s, i, i + 1, x, s->history[0], NULL, x);
        return;
    }
    const double now = point_of(s, i).lambda;
    const double before = point_of(s, i - 1).lambda;
    const double next = point_of(s, i + 1).lambda;
    if (single) { /* the whole of both steps again, from where the first one began */
        const float *d = slope(s, (now - before) / (next - before));
        solve(s, i - 1, i + 1, s->kept, s->history[1], d, x);
    } else {
        const float *d = slope(s, (now - before) / (next - now));
        solve(s, i, i + 1, x, s->history[0], d, x);
    }
}
