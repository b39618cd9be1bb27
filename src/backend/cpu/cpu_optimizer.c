/*
 * Sum of squares and AdamW. Every rank computes them on the same numbers, so they must agree
 * between machines too: no fused multiply-add, and sums run in eight fixed lanes.
 */
#include "backend/cpu/cpu_internal.h"

#include <math.h>

enum { BLOCK = 65536, LANES = 8 };

typedef struct sumsq_job {
    const float *x;
    int64_t n;
    double *part; /* one per block */
} sumsq_job;

DR_CPU_CLONES
static double block_sumsq(const float *restrict x, int64_t n)
{
    double lane[LANES] = {0.0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int k = 0; k < LANES; k++) {
            lane[k] += (double)x[i + k] * (double)x[i + k];
        }
    }
    for (int k = 0; i < n; i++, k++) {
        lane[k] += (double)x[i] * (double)x[i];
    }
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) +
           ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

static void sumsq_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const sumsq_job *j = job;
    const int64_t at = i * BLOCK;
    j->part[i] = block_sumsq(j->x + at, dr_cpu_min(BLOCK, j->n - at));
}

size_t dr_cpu_sumsq_work(const dr_context *cx, const dr_sumsq_args *a)
{
    (void)cx;
    return (size_t)dr_cpu_ceil_div(dr_numel(a->x), BLOCK) * sizeof(double);
}

dr_status dr_cpu_sumsq(dr_context *cx, const dr_sumsq_args *a)
{
    const sumsq_job j = {a->x->data, dr_numel(a->x), cx->work};
    const int64_t blocks = dr_cpu_ceil_div(j.n, BLOCK);
    dr_cpu_run(cx, blocks, sumsq_task, &j);
    double sum = 0.0;
    for (int64_t i = 0; i < blocks; i++) {
        sum += j.part[i];
    }
    *(double *)a->out->data += sum;
    return DR_OK;
}

typedef struct adamw_job {
    const dr_adamw_args *a;
    int64_t n;
    float decay, beta2_rest, beta1_rest, step_size, root_correction;
} adamw_job;

DR_CPU_CLONES
static void update(const adamw_job *j, int64_t at, int64_t n)
{
    const float *restrict g = (const float *)j->a->g->data + at;
    float *restrict p = (float *)j->a->p->data + at;
    float *restrict m = (float *)j->a->m->data + at;
    float *restrict v = (float *)j->a->v->data + at;
    const float scale = j->a->grad_scale;
    const float beta1 = j->a->beta1;
    const float beta2 = j->a->beta2;
    const float eps = j->a->eps;
    for (int64_t i = 0; i < n; i++) {
        const float grad = g[i] * scale;
        m[i] = beta1 * m[i] + j->beta1_rest * grad;
        v[i] = beta2 * v[i] + j->beta2_rest * (grad * grad);
        const float denominator = sqrtf(v[i]) / j->root_correction + eps;
        p[i] = p[i] * j->decay - j->step_size * (m[i] / denominator);
    }
}

static void adamw_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const adamw_job *j = job;
    update(j, i * BLOCK, dr_cpu_min(BLOCK, j->n - i * BLOCK));
}

dr_status dr_cpu_adamw(dr_context *cx, const dr_adamw_args *a)
{
    const double step = (double)a->step;
    const double correction1 = 1.0 - pow((double)a->beta1, step);
    const double correction2 = 1.0 - pow((double)a->beta2, step);
    const adamw_job j = {.a = a,
                         .n = dr_numel(a->p),
                         .decay = (float)(1.0 - (double)a->lr * (double)a->weight_decay),
                         .beta1_rest = (float)(1.0 - (double)a->beta1),
                         .beta2_rest = (float)(1.0 - (double)a->beta2),
                         .step_size = (float)((double)a->lr / correction1),
                         .root_correction = (float)sqrt(correction2)};
    dr_cpu_run(cx, dr_cpu_ceil_div(j.n, BLOCK), adamw_task, &j);
    return DR_OK;
}
