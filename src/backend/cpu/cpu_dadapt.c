/*
 * Updates that leave sums: Prodigy, D-Adaptation, Lion. Each block of elements has its own sums in
 * eight fixed lanes, added in the blocks' order: no thread count changes a bit.
 */
#include "backend/cpu/cpu_internal.h"

#include <math.h>

enum { BLOCK = DR_CPU_UPDATE, LANES = 8, SUMS = 3 };

size_t dr_cpu_update_sums_work(int64_t n)
{
    return (size_t)dr_cpu_ceil_div(n, BLOCK) * SUMS * sizeof(double);
}

static void add_sums(const double *part, int64_t blocks, dr_tensor *sums)
{
    double *out = sums->data;
    for (int k = 0; k < SUMS; k++) {
        double sum = 0.0;
        for (int64_t i = 0; i < blocks; i++) {
            sum += part[i * SUMS + k];
        }
        out[k] += sum;
    }
}

static double lanes_sum(const double lane[LANES])
{
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) +
           ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

/* ---- Lion -------------------------------------------------------------------------------------
 */

typedef struct lion_job {
    const dr_lion_args *a;
    double *part; /* of each block */
} lion_job;

DR_CPU_INLINE float sign_of(float x)
{
    return (float)((x > 0.0f) - (x < 0.0f));
}

DR_CPU_CLONES
static void lion_block(const dr_lion_args *a, int64_t at, int64_t n)
{
    const float *restrict g = (const float *)a->g->data + at;
    float *restrict p = (float *)a->p->data + at;
    float *restrict m = (float *)a->m->data + at;
    const float scale = (float)a->grad_scale;
    const float decay = (float)(1.0 - a->lr * a->weight_decay);
    const float beta1 = (float)a->beta1;
    const float rest1 = (float)(1.0 - a->beta1);
    const float beta2 = (float)a->beta2;
    const float rate = (float)a->rate;
    const float lr = (float)-a->lr;
    for (int64_t i = 0; i < n; i++) {
        const float grad = g[i] * scale;
        const float u = sign_of(fmaf(rest1, grad, beta1 * m[i]));
        p[i] = fmaf(lr, u, p[i] * decay);
        m[i] = fmaf(rate, grad, beta2 * m[i]);
    }
}

/* s and its sums, before lion_block changes m. */
DR_CPU_CLONES
static void lion_sums(const dr_lion_args *a, int64_t at, int64_t n, double part[SUMS])
{
    const float *restrict g = (const float *)a->g->data + at;
    const float *restrict m = (const float *)a->m->data + at;
    float *restrict s = (float *)a->s->data + at;
    const float scale = (float)a->grad_scale;
    const float beta1 = (float)a->beta1;
    const float rest1 = (float)(1.0 - a->beta1);
    const float keep = (float)a->s_keep;
    const float rate = (float)a->s_rate;
    double dot[LANES] = {0.0};
    double sum[LANES] = {0.0};
    for (int64_t i = 0; i < n; i++) {
        const float u = sign_of(fmaf(rest1, g[i] * scale, beta1 * m[i]));
        dot[i % LANES] += (double)u * (double)s[i];
        s[i] = fmaf(rate, u, keep * s[i]);
        sum[i % LANES] += fabs((double)s[i]);
    }
    part[0] = lanes_sum(dot);
    part[1] = lanes_sum(sum);
    part[2] = 0.0;
}

static void lion_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const lion_job *j = job;
    const int64_t n = dr_cpu_min(BLOCK, dr_numel(j->a->p) - i * BLOCK);
    if (j->a->s != NULL) {
        lion_sums(j->a, i * BLOCK, n, j->part + i * SUMS);
    }
    lion_block(j->a, i * BLOCK, n);
}

dr_status dr_cpu_lion(dr_context *cx, const dr_lion_args *a)
{
    const lion_job j = {a, cx->work};
    const int64_t blocks = dr_cpu_ceil_div(dr_numel(a->p), BLOCK);
    dr_cpu_run(cx, blocks, lion_task, &j);
    if (a->s != NULL) {
        add_sums(j.part, blocks, a->sums);
    }
    return DR_OK;
}

/* ---- Prodigy and D-Adaptation -----------------------------------------------------------------
 */

typedef struct dadapt_job {
    const dr_dadapt_args *a;
    double *part;
} dadapt_job;

DR_CPU_INLINE void dadapt_loop(const dr_dadapt_args *a, dr_dadapt_kind kind, int64_t at, int64_t n,
                               double part[SUMS])
{
    const float *restrict g = (const float *)a->g->data + at;
    const float *restrict p = (const float *)a->p->data + at;
    const float *restrict p0 = kind == DR_DADAPT_PRODIGY ? (const float *)a->p0->data + at : p;
    float *restrict m = (float *)a->m->data + at;
    float *restrict v = (float *)a->v->data + at;
    float *restrict s = (float *)a->s->data + at;
    const float scale = (float)a->grad_scale;
    const float l2 = (float)a->l2;
    const float eps = (float)a->eps;
    const float m_keep = (float)a->m_keep, m_rate = (float)a->m_rate;
    const float v_keep = (float)a->v_keep, v_rate = (float)a->v_rate;
    const float s_keep = (float)a->s_keep, s_rate = (float)a->s_rate;
    double lane[SUMS][LANES] = {{0.0}};
    for (int64_t i = 0; i < n; i++) {
        const float grad = fmaf(l2, p[i], g[i] * scale);
        if (kind == DR_DADAPT_PRODIGY) {
            lane[0][i % LANES] += (double)grad * (double)(p0[i] - p[i]);
        } else if (kind == DR_DADAPT_ADAM) {
            lane[0][i % LANES] += (double)grad * (double)(s[i] / (sqrtf(v[i]) + eps));
        }
        m[i] = fmaf(m_rate, grad, m_keep * m[i]);
        v[i] = fmaf(v_rate * grad, grad, v_keep * v[i]);
        s[i] = fmaf(s_rate, grad, s_keep * s[i]);
        lane[1][i % LANES] += fabs((double)s[i]);
        if (kind == DR_DADAPT_PREPRINT) {
            const float denominator = sqrtf(v[i]) + eps;
            lane[0][i % LANES] += (double)(grad * grad / denominator);
            lane[2][i % LANES] += (double)(s[i] * s[i] / denominator);
        }
    }
    for (int k = 0; k < SUMS; k++) {
        part[k] = lanes_sum(lane[k]);
    }
}

DR_CPU_CLONES
static void prodigy_block(const dr_dadapt_args *a, int64_t at, int64_t n, double part[SUMS])
{
    dadapt_loop(a, DR_DADAPT_PRODIGY, at, n, part);
}

DR_CPU_CLONES
static void adam_block(const dr_dadapt_args *a, int64_t at, int64_t n, double part[SUMS])
{
    dadapt_loop(a, DR_DADAPT_ADAM, at, n, part);
}

DR_CPU_CLONES
static void preprint_block(const dr_dadapt_args *a, int64_t at, int64_t n, double part[SUMS])
{
    dadapt_loop(a, DR_DADAPT_PREPRINT, at, n, part);
}

static void dadapt_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const dadapt_job *j = job;
    const int64_t at = i * BLOCK;
    const int64_t n = dr_cpu_min(BLOCK, dr_numel(j->a->p) - at);
    double *part = j->part + i * SUMS;
    switch (j->a->kind) {
    case DR_DADAPT_PRODIGY:
        prodigy_block(j->a, at, n, part);
        return;
    case DR_DADAPT_ADAM:
        adam_block(j->a, at, n, part);
        return;
    case DR_DADAPT_PREPRINT:
        preprint_block(j->a, at, n, part);
        return;
    }
}

dr_status dr_cpu_dadapt(dr_context *cx, const dr_dadapt_args *a)
{
    const dadapt_job j = {a, cx->work};
    const int64_t blocks = dr_cpu_ceil_div(dr_numel(a->p), BLOCK);
    dr_cpu_run(cx, blocks, dadapt_task, &j);
    add_sums(j.part, blocks, a->sums);
    return DR_OK;
}
