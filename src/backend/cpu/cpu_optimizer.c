/*
 * Sum of squares and elementwise updates. Every rank computes them on the same numbers, so they
 * must agree between machines too: multiply and add fuse where fmaf says so and nowhere else, and
 * sums run in eight fixed lanes.
 */
#include "backend/cpu/cpu_narrow.h"

#include <math.h>

enum { BLOCK = DR_CPU_UPDATE, LANES = 8 };

typedef struct sumsq_job {
    const dr_tensor *x;
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
    enum { PIECE = 4096 }; /* floats on the stack; a multiple of LANES */
    const int64_t end = dr_cpu_min(j->n, (i + 1) * BLOCK);
    float buffer[PIECE];
    if (j->x->dtype == DR_F32) {
        j->part[i] = block_sumsq((const float *)j->x->data + i * BLOCK, end - i * BLOCK);
        return;
    }
    j->part[i] = 0.0;
    for (int64_t at = i * BLOCK; at < end; at += PIECE) {
        const int64_t n = dr_cpu_min(PIECE, end - at);
        j->part[i] += block_sumsq(dr_cpu_floats(j->x, at, n, buffer), n);
    }
}

size_t dr_cpu_sumsq_work(const dr_context *cx, const dr_sumsq_args *a)
{
    (void)cx;
    return (size_t)dr_cpu_ceil_div(dr_numel(a->x), BLOCK) * sizeof(double);
}

dr_status dr_cpu_sumsq(dr_context *cx, const dr_sumsq_args *a)
{
    const sumsq_job j = {a->x, dr_numel(a->x), cx->work};
    const int64_t blocks = dr_cpu_ceil_div(j.n, BLOCK);
    dr_cpu_run(cx, blocks, sumsq_task, &j);
    double sum = 0.0;
    for (int64_t i = 0; i < blocks; i++) {
        sum += j.part[i];
    }
    *(double *)a->out->data += sum;
    return DR_OK;
}

/* ---- lerp -------------------------------------------------------------------------------------
 */

typedef struct weight {
    float w;   /* multiplies to - from */
    bool from; /* what is added to: from, or to */
} weight;

static weight lerp_weight(double w)
{
    return fabs(w) < 0.5 ? (weight){(float)w, true} : (weight){(float)w - 1.0f, false};
}

DR_CPU_INLINE float lerp(float from, float to, weight w)
{
    return fmaf(w.w, to - from, w.from ? from : to);
}

DR_CPU_CLONES
static void lerp_block(float *restrict y, const float *restrict x, int64_t n, weight w)
{
    for (int64_t i = 0; i < n; i++) {
        y[i] = lerp(y[i], x[i], w);
    }
}

static void lerp_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const dr_lerp_args *a = job;
    const int64_t at = i * BLOCK;
    lerp_block((float *)a->y->data + at, (const float *)a->x->data + at,
               dr_cpu_min(BLOCK, dr_numel(a->y) - at), lerp_weight(a->weight));
}

dr_status dr_cpu_lerp(dr_context *cx, const dr_lerp_args *a)
{
    dr_cpu_run(cx, dr_cpu_ceil_div(dr_numel(a->y), BLOCK), lerp_task, a);
    return DR_OK;
}

/* ---- AdamW ------------------------------------------------------------------------------------
 */

typedef struct adamw_job {
    const dr_adamw_args *a;
    int64_t n;
    weight rate1;
    float decay, beta2, rate2, step_size, root2, eps, scale;
} adamw_job;

DR_CPU_CLONES
static void adamw_block(const adamw_job *j, int64_t at, int64_t n)
{
    const float *restrict g = (const float *)j->a->g->data + at;
    float *restrict p = (float *)j->a->p->data + at;
    float *restrict m = (float *)j->a->m->data + at;
    float *restrict v = (float *)j->a->v->data + at;
    const weight rate1 = j->rate1;
    for (int64_t i = 0; i < n; i++) {
        const float grad = g[i] * j->scale;
        m[i] = lerp(m[i], grad, rate1);
        v[i] = fmaf(j->rate2 * grad, grad, j->beta2 * v[i]);
        const float denominator = sqrtf(v[i]) / j->root2 + j->eps;
        p[i] = p[i] * j->decay + j->step_size * m[i] / denominator;
    }
}

static void adamw_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const adamw_job *j = job;
    adamw_block(j, i * BLOCK, dr_cpu_min(BLOCK, j->n - i * BLOCK));
}

dr_status dr_cpu_adamw(dr_context *cx, const dr_adamw_args *a)
{
    const double step = (double)a->step;
    const adamw_job j = {.a = a,
                         .n = dr_numel(a->p),
                         .rate1 = lerp_weight(1.0 - a->beta1),
                         .decay = (float)(1.0 - a->lr * a->weight_decay),
                         .beta2 = (float)a->beta2,
                         .rate2 = (float)(1.0 - a->beta2),
                         .step_size = (float)-(a->lr / (1.0 - pow(a->beta1, step))),
                         .root2 = (float)sqrt(1.0 - pow(a->beta2, step)),
                         .eps = (float)a->eps,
                         .scale = (float)a->grad_scale};
    dr_cpu_run(cx, dr_cpu_ceil_div(j.n, BLOCK), adamw_task, &j);
    return DR_OK;
}

/* ---- SGD with momentum ------------------------------------------------------------------------
 */

DR_CPU_CLONES
static void momentum_block(const dr_momentum_args *a, int64_t at, int64_t n)
{
    const float *restrict g = (const float *)a->g->data + at;
    float *restrict p = (float *)a->p->data + at;
    float *restrict m = (float *)a->m->data + at;
    const float scale = (float)a->grad_scale;
    const float decay = (float)a->weight_decay;
    const float keep = (float)a->momentum;
    const float rate = (float)(1.0 - a->dampening);
    const float lr = (float)-a->lr;
    const bool first = a->first;
    const bool nesterov = a->nesterov;
    for (int64_t i = 0; i < n; i++) {
        const float grad = fmaf(decay, p[i], g[i] * scale);
        m[i] = first ? grad : fmaf(rate, grad, keep * m[i]);
        p[i] = fmaf(lr, nesterov ? fmaf(keep, m[i], grad) : m[i], p[i]);
    }
}

static void momentum_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const dr_momentum_args *a = job;
    momentum_block(a, i * BLOCK, dr_cpu_min(BLOCK, dr_numel(a->p) - i * BLOCK));
}

dr_status dr_cpu_momentum(dr_context *cx, const dr_momentum_args *a)
{
    dr_cpu_run(cx, dr_cpu_ceil_div(dr_numel(a->p), BLOCK), momentum_task, a);
    return DR_OK;
}

/* ---- the step of Prodigy and D-Adaptation -----------------------------------------------------
 */

DR_CPU_CLONES
static void adam_apply_block(const dr_adam_apply_args *a, int64_t at, int64_t n)
{
    float *restrict p = (float *)a->p->data + at;
    const float *restrict m = (const float *)a->m->data + at;
    const float *restrict v = (const float *)a->v->data + at;
    const float decay = (float)-a->decay;
    const float rate = (float)-a->rate;
    const float eps = (float)a->eps;
    for (int64_t i = 0; i < n; i++) {
        p[i] = fmaf(decay, p[i], p[i]) + rate * m[i] / (sqrtf(v[i]) + eps);
    }
}

static void adam_apply_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const dr_adam_apply_args *a = job;
    adam_apply_block(a, i * BLOCK, dr_cpu_min(BLOCK, dr_numel(a->p) - i * BLOCK));
}

dr_status dr_cpu_adam_apply(dr_context *cx, const dr_adam_apply_args *a)
{
    dr_cpu_run(cx, dr_cpu_ceil_div(dr_numel(a->p), BLOCK), adam_apply_task, a);
    return DR_OK;
}

/* ---- schedule-free ----------------------------------------------------------------------------
 */

DR_CPU_CLONES
static void second_moment_block(const dr_schedule_free_args *a, int64_t at, int64_t n)
{
    const float *restrict g = (const float *)a->g->data + at;
    float *restrict v = (float *)a->v->data + at;
    const float scale = (float)a->grad_scale;
    const float keep = (float)a->beta2;
    const float rate = (float)(1.0 - a->beta2);
    for (int64_t i = 0; i < n; i++) {
        const float grad = g[i] * scale;
        v[i] = fmaf(rate * grad, grad, keep * v[i]);
    }
}

DR_CPU_CLONES
static void schedule_free_block(const dr_schedule_free_args *a, int64_t at, int64_t n)
{
    const float *restrict g = (const float *)a->g->data + at;
    float *restrict y = (float *)a->y->data + at;
    float *restrict z = (float *)a->z->data + at;
    const float *restrict v = a->normalized ? (const float *)a->v->data + at : g;
    const float scale = (float)a->grad_scale;
    const float correction = (float)a->correction;
    const float eps = (float)a->eps;
    const float decay = (float)a->weight_decay;
    const float y_rate = (float)a->y_rate;
    const float lr = (float)-a->lr;
    const bool normalized = a->normalized;
    const weight average = lerp_weight(a->average);
    for (int64_t i = 0; i < n; i++) {
        float u = g[i] * scale;
        if (normalized) {
            u = u / (sqrtf(v[i] / correction) + eps);
        }
        u = fmaf(decay, y[i], u);
        y[i] = fmaf(y_rate, u, lerp(y[i], z[i], average));
        z[i] = fmaf(lr, u, z[i]);
    }
}

static void schedule_free_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const dr_schedule_free_args *a = job;
    const int64_t n = dr_cpu_min(BLOCK, dr_numel(a->y) - i * BLOCK);
    if (a->v != NULL) {
        second_moment_block(a, i * BLOCK, n);
    }
    schedule_free_block(a, i * BLOCK, n);
}

dr_status dr_cpu_schedule_free(dr_context *cx, const dr_schedule_free_args *a)
{
    dr_cpu_run(cx, dr_cpu_ceil_div(dr_numel(a->y), BLOCK), schedule_free_task, a);
    return DR_OK;
}
