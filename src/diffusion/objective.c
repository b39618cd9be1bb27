#include "diffusion/objective.h"

#include <math.h>

void dr_objective_timesteps(const dr_objective *o, int *first, int *count)
{
    const int max = o->max_timestep > 0 ? o->max_timestep : DR_TRAIN_TIMESTEPS;
    if (o->min_timestep < max) {
        *first = o->min_timestep;
        *count = max - o->min_timestep;
    } else {
        *first = max;
        *count = 1;
    }
}

float dr_objective_weight(const dr_objective *o, const dr_schedule *plain, int t)
{
    const bool v = o->prediction == DR_PREDICT_V;
    const float snr = dr_schedule_snr(plain, t);
    const float capped = fminf(snr, 1000.0f);
    float weight = 1.0f;
    if (o->min_snr_gamma > 0.0) {
        weight = fminf(snr, (float)o->min_snr_gamma) / (v ? snr + 1.0f : snr);
    }
    if (o->scale_v_pred_like_noise_pred) {
        weight *= capped / (capped + 1.0f);
    }
    if (o->v_pred_like_loss > 0.0) {
        weight *= 1.0f + (float)o->v_pred_like_loss / (capped / (capped + 1.0f));
    }
    if (o->debiased_estimation) {
        weight *= v ? 1.0f / (capped + 1.0f) : 1.0f / sqrtf(capped);
    }
    return weight;
}

float dr_objective_huber_c(const dr_objective *o, const dr_schedule *used, int t)
{
    if (o->huber_schedule == DR_HUBER_CONSTANT) {
        return (float)(o->huber_c * o->huber_scale);
    }
    if (o->huber_schedule == DR_HUBER_EXPONENTIAL) {
        return (float)(exp(log(o->huber_c) * t / DR_TRAIN_TIMESTEPS) * o->huber_scale);
    }
    const double sigma = (double)dr_schedule_sigma(used, t);
    return (float)((1.0 - o->huber_c) / ((1.0 + sigma) * (1.0 + sigma)) + o->huber_c);
}

void dr_objective_offset_noise(const dr_objective *o, float uniform, const float *latents,
                               const float *draw, int64_t pixels, int64_t channels, float *noise)
{
    const double base =
        o->noise_offset_random ? (double)uniform * o->noise_offset : o->noise_offset;
    for (int64_t c = 0; c < channels; c++) {
        double sum = 0.0;
        for (int64_t i = 0; i < pixels; i++) {
            sum += (double)latents[i * channels + c];
        }
        double strength = base;
        if (o->adaptive_noise_scale != 0.0) {
            strength += o->adaptive_noise_scale * fabs(sum / (double)pixels);
            strength = strength > 0.0 ? strength : 0.0;
        }
        const float offset = (float)strength * draw[c];
        for (int64_t i = 0; i < pixels; i++) {
            noise[i * channels + c] += offset;
        }
    }
}

int64_t dr_objective_level_size(int64_t size, double r, int level)
{
    const int64_t reduced = (int64_t)((double)size / pow(r, level));
    return reduced > 1 ? reduced : 1;
}

typedef struct between { /* a place between two lines of a level */
    int64_t low, high;
    float weight; /* of high */
} between;

/* align_corners False: centres of pixels are matched, the border is repeated. */
static between place(int64_t i, int64_t from, int64_t to)
{
    const float scale = (float)from / (float)to;
    const float at = fmaxf(scale * ((float)i + 0.5f) - 0.5f, 0.0f);
    const int64_t low = (int64_t)at < from - 1 ? (int64_t)at : from - 1;
    return (between){low, low + 1 < from ? low + 1 : low, at - (float)low};
}

void dr_objective_add_level(const dr_objective *o, int level, const float *draw, int64_t lh,
                            int64_t lw, int64_t h, int64_t w, int64_t channels, float *noise)
{
    const float weight = (float)pow(o->multires_discount, level);
    for (int64_t y = 0; y < h; y++) {
        const between v = place(y, lh, h);
        for (int64_t x = 0; x < w; x++) {
            const between u = place(x, lw, w);
            for (int64_t c = 0; c < channels; c++) {
                const float *top = draw + v.low * lw * channels + c;
                const float *bottom = draw + v.high * lw * channels + c;
                const float a =
                    (1.0f - u.weight) * top[u.low * channels] + u.weight * top[u.high * channels];
                const float b = (1.0f - u.weight) * bottom[u.low * channels] +
                                u.weight * bottom[u.high * channels];
                noise[(y * w + x) * channels + c] +=
                    weight * ((1.0f - v.weight) * a + v.weight * b);
            }
        }
    }
}

void dr_objective_unit_deviation(float *noise, int64_t n)
{
    double mean = 0.0;
    double squares = 0.0;
    for (int64_t i = 0; i < n; i++) {
        mean += (double)noise[i] / (double)n;
    }
    for (int64_t i = 0; i < n; i++) {
        squares += ((double)noise[i] - mean) * ((double)noise[i] - mean);
    }
    const float deviation = (float)sqrt(squares / (double)(n - 1));
    for (int64_t i = 0; i < n; i++) {
        noise[i] /= deviation;
    }
}
