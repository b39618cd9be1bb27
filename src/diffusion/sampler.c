#include "diffusion/sampler.h"

#include <math.h>
#include <string.h>

dr_status dr_sampler_kind_from_name(const char *name, dr_sampler_kind *out)
{
    if (strcmp(name, "ddim") == 0) {
        *out = DR_SAMPLER_DDIM;
        return DR_OK;
    }
    if (strcmp(name, "euler") == 0) {
        *out = DR_SAMPLER_EULER;
        return DR_OK;
    }
    DR_FAIL(DR_INVALID, "sampler \"%s\": expected ddim or euler", name);
}

/* ---- DDIM ---------------------------------------------------------------------------------- */

static int ddim_stride(const dr_sampler *s)
{
    return DR_TRAIN_TIMESTEPS / s->n_steps;
}

static void ddim_init(dr_sampler *s)
{
    enum { STEPS_OFFSET = 1 };
    for (int i = 0; i < s->n_steps; i++) {
        s->timestep[i] = (float)(ddim_stride(s) * (s->n_steps - 1 - i) + STEPS_OFFSET);
    }
    s->init_noise_sigma = 1.0f;
}

static void ddim_step(const dr_sampler *s, int i, const float *out, float *x, size_t n)
{
    const int t = (int)s->timestep[i];
    const int before = t - ddim_stride(s);
    const dr_mix_factors now = dr_schedule_noisy(s->schedule, t);
    const dr_mix_factors next = dr_schedule_noisy(s->schedule, before >= 0 ? before : 0);
    for (size_t k = 0; k < n; k++) {
        float x0;
        float eps;
        if (s->prediction == DR_PREDICT_EPSILON) {
            x0 = (x[k] - now.b * out[k]) / now.a;
            eps = out[k];
        } else {
            x0 = now.a * x[k] - now.b * out[k];
            eps = now.a * out[k] + now.b * x[k];
        }
        x[k] = next.a * x0 + next.b * eps;
    }
}

/* ---- Euler --------------------------------------------------------------------------------- */

/* numpy.interp over the training timesteps' sigmas, which are f32 */
static float sigma_at(const dr_schedule *schedule, double t)
{
    const int low = t >= DR_TRAIN_TIMESTEPS - 1 ? DR_TRAIN_TIMESTEPS - 2 : (int)t;
    const double a = (double)dr_schedule_sigma(schedule, low);
    const double b = (double)dr_schedule_sigma(schedule, low + 1);
    return (float)(a + (b - a) * (t - low));
}

/* One step is at timestep 0, not 999: numpy.linspace(0, 999, 1) is its start, and diffusers keeps
 * that. */
static void euler_init(dr_sampler *s)
{
    const int last = s->n_steps - 1;
    float largest = 0.0f;
    for (int i = 0; i <= last; i++) {
        const int j = last - i;
        const double t = j == 0 ? 0.0
                         : j == last
                             ? DR_TRAIN_TIMESTEPS - 1
                             : (double)j * ((double)(DR_TRAIN_TIMESTEPS - 1) / (double)last);
        s->timestep[i] = (float)t;
        s->sigma[i] = sigma_at(s->schedule, (double)s->timestep[i]);
        largest = s->sigma[i] > largest ? s->sigma[i] : largest;
    }
    s->sigma[s->n_steps] = 0.0f;
    s->init_noise_sigma = largest;
}

static void euler_step(const dr_sampler *s, int i, const float *out, float *x, size_t n)
{
    const float sigma = s->sigma[i];
    const float dt = s->sigma[i + 1] - sigma;
    const float norm = sigma * sigma + 1.0f;
    const float c_out = -sigma / sqrtf(norm);
    for (size_t k = 0; k < n; k++) {
        const float x0 = s->prediction == DR_PREDICT_EPSILON ? x[k] - sigma * out[k]
                                                             : out[k] * c_out + x[k] / norm;
        x[k] += (x[k] - x0) / sigma * dt;
    }
}

/* ---- both ---------------------------------------------------------------------------------- */

dr_status dr_sampler_init(dr_sampler *s, dr_sampler_kind kind, dr_prediction prediction,
                          int n_steps, const dr_schedule *schedule)
{
    /* DDIM's offset of one would reach timestep 1000 with 1000 steps */
    const int most = kind == DR_SAMPLER_DDIM ? DR_TRAIN_TIMESTEPS - 1 : DR_TRAIN_TIMESTEPS;
    if (n_steps < 1 || n_steps > most) {
        DR_FAIL(DR_INVALID, "sampling steps: %d, expected 1 to %d", n_steps, most);
    }
    *s = (dr_sampler){
        .kind = kind, .prediction = prediction, .schedule = schedule, .n_steps = n_steps};
    if (kind == DR_SAMPLER_DDIM) {
        ddim_init(s);
    } else {
        euler_init(s);
    }
    return DR_OK;
}

void dr_sampler_scale_input(const dr_sampler *s, int i, const float *x, float *out, size_t n)
{
    DR_CHECK(i >= 0 && i < s->n_steps, "step %d of %d", i, s->n_steps);
    const float divisor =
        s->kind == DR_SAMPLER_EULER ? sqrtf(s->sigma[i] * s->sigma[i] + 1.0f) : 1.0f;
    for (size_t k = 0; k < n; k++) {
        out[k] = x[k] / divisor;
    }
}

void dr_sampler_step(const dr_sampler *s, int i, const float *model_output, float *x, size_t n)
{
    DR_CHECK(i >= 0 && i < s->n_steps, "step %d of %d", i, s->n_steps);
    if (s->kind == DR_SAMPLER_DDIM) {
        ddim_step(s, i, model_output, x, n);
    } else {
        euler_step(s, i, model_output, x, n);
    }
}

void dr_guide(const float *uncond, const float *cond, float scale, float *out, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        out[k] = uncond[k] + scale * (cond[k] - uncond[k]);
    }
}
