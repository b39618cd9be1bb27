#include "backend/cpu/cpu_internal.h"

#include <math.h>

/* These run over latents, tens of thousands of elements, where a task is one sample; mix also over
 * the many samples of one element that products of elements are. */

static int64_t mix_samples_per_task(const dr_mix_args *m)
{
    const int64_t count = dr_numel(m->x) / m->x->dim[0];
    return count < DR_CPU_CHUNK ? DR_CPU_CHUNK / (count > 0 ? count : 1) : 1;
}

static void mix_sample(const dr_mix_args *m, int64_t n, int64_t count)
{
    const float a = ((const float *)m->a->data)[n];
    const float b = ((const float *)m->b->data)[n];
    const float *x = (const float *)m->x->data + n * count;
    const float *z = (const float *)m->z->data + n * count;
    float *y = (float *)m->y->data + n * count;
#pragma omp simd
    for (int64_t i = 0; i < count; i++) {
        y[i] = a * x[i] + b * z[i];
    }
}

static void mix_elements(const dr_mix_args *m, int64_t first, int64_t end)
{
    const float *a = m->a->data;
    const float *b = m->b->data;
    const float *x = m->x->data;
    const float *z = m->z->data;
    float *y = m->y->data;
#pragma omp simd
    for (int64_t n = first; n < end; n++) {
        y[n] = a[n] * x[n] + b[n] * z[n];
    }
}

static void mix_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const dr_mix_args *m = job;
    const int64_t count = dr_numel(m->x) / m->x->dim[0];
    const int64_t per_task = mix_samples_per_task(m);
    const int64_t end = dr_cpu_min((i + 1) * per_task, m->x->dim[0]);
    if (count == 1) {
        mix_elements(m, i * per_task, end);
        return;
    }
    for (int64_t n = i * per_task; n < end; n++) {
        mix_sample(m, n, count);
    }
}

dr_status dr_cpu_mix(dr_context *cx, const dr_mix_args *a)
{
    dr_cpu_run(cx, dr_cpu_ceil_div(a->x->dim[0], mix_samples_per_task(a)), mix_task, a);
    return DR_OK;
}

static double loss_of(dr_loss_kind kind, double d, double c)
{
    switch (kind) {
    case DR_LOSS_L1:
        return fabs(d);
    case DR_LOSS_HUBER:
        return 2.0 * c * (sqrt(d * d + c * c) - c);
    case DR_LOSS_SMOOTH_L1:
        return 2.0 * (sqrt(d * d + c * c) - c);
    default:
        return d * d;
    }
}

/* Half of its derivative by d. */
static float half_slope_of(dr_loss_kind kind, float d, float c)
{
    if (kind == DR_LOSS_L2) {
        return d;
    }
    if (kind == DR_LOSS_L1) {
        return 0.5f * (float)((d > 0.0f) - (d < 0.0f));
    }
    const float root = sqrtf(d * d + c * c);
    return root > 0.0f ? (kind == DR_LOSS_HUBER ? c : 1.0f) * d / root : 0.0f;
}

static void mse_task(const void *job, int64_t n, int thread)
{
    (void)thread;
    const dr_mse_args *m = job;
    const int64_t count = dr_numel(m->pred) / m->pred->dim[0];
    const float *p = (const float *)m->pred->data + n * count;
    const float *t = (const float *)m->target->data + n * count;
    const int64_t channels = dr_cols(m->pred);
    const float *mask =
        m->mask != NULL ? (const float *)m->mask->data + n * (count / channels) : NULL;
    const double c = m->threshold != NULL ? (double)((const float *)m->threshold->data)[n] : 0.0;
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) {
        const float d = p[i] - t[i];
        const double of_pixel = mask != NULL ? (double)mask[i / channels] : 1.0;
        sum += of_pixel * loss_of(m->kind, (double)d, c);
    }
    ((float *)m->loss->data)[n] = (float)(sum / (double)count);
    if (m->dpred == NULL) {
        return;
    }
    const float scale = ((const float *)m->weight->data)[n] * 2.0f / (float)count;
    float *dpred = (float *)m->dpred->data + n * count;
    for (int64_t i = 0; i < count; i++) {
        const float of_pixel = mask != NULL ? mask[i / channels] : 1.0f;
        dpred[i] = scale * of_pixel * half_slope_of(m->kind, p[i] - t[i], (float)c);
    }
}

dr_status dr_cpu_mse(dr_context *cx, const dr_mse_args *a)
{
    dr_cpu_run(cx, a->pred->dim[0], mse_task, a);
    return DR_OK;
}

static void posterior_task(const void *job, int64_t n, int thread)
{
    (void)thread;
    const dr_posterior_sample_args *a = job;
    const int64_t c = dr_cols(a->z);
    const int64_t rows = dr_rows(a->z) / a->z->dim[0];
    for (int64_t r = n * rows; r < (n + 1) * rows; r++) {
        const float *mean = (const float *)a->moments->data + r * 2 * c;
        const float *logvar = mean + c;
        float *z = (float *)a->z->data + r * c;
        for (int64_t i = 0; i < c; i++) {
            z[i] = mean[i];
            if (a->noise != NULL) {
                const float clamped = fminf(fmaxf(logvar[i], -30.0f), 20.0f);
                z[i] += expf(0.5f * clamped) * ((const float *)a->noise->data)[r * c + i];
            }
        }
    }
}

dr_status dr_cpu_posterior_sample(dr_context *cx, const dr_posterior_sample_args *a)
{
    dr_cpu_run(cx, a->z->dim[0], posterior_task, a);
    return DR_OK;
}
