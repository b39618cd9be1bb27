/*
 * Attention in blocks of queries and keys; probabilities exist only block by block.
 *
 * forward, one task per (sample, head, block of queries): running maximum m and sum l of each row,
 *   s = q k^T / sqrt(D);  m' = max(m, max s);  p = exp(s - m');  l = l e^(m-m') + sum p;
 *   o = o e^(m-m') + p v;  at the end o / l and lse = m + log l.
 */
#include "backend/cpu/cpu_math.h"

#include <math.h>

enum { QUERIES = 128, KEYS = 256 };

typedef struct forward_job {
    const dr_attention_args *a;
    int64_t sq, sk, c, d, n_blocks;
    float scale;
    float *work;
    int64_t work_floats; /* of one thread */
} forward_job;

static forward_job plan(const dr_attention_args *a)
{
    forward_job j = {.a = a, .sq = a->q->dim[1], .sk = a->k->dim[1], .c = a->q->dim[2]};
    j.d = j.c / a->heads;
    j.n_blocks = dr_cpu_ceil_div(j.sq, QUERIES);
    j.scale = 1.0f / sqrtf((float)j.d);
    j.work_floats = QUERIES * KEYS + dr_cpu_lines(QUERIES * j.d) + 2 * QUERIES;
    return j;
}

DR_CPU_CLONES
static float row_max(const float *restrict s, int64_t n, float m)
{
#pragma omp simd reduction(max : m)
    for (int64_t i = 0; i < n; i++) {
        m = s[i] > m ? s[i] : m;
    }
    return m;
}

DR_CPU_CLONES
static float exp_row(float *restrict s, int64_t n, float m)
{
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        const float p = dr_cpu_expf(s[i] - m);
        s[i] = p;
        sum += p;
    }
    return sum;
}

DR_CPU_CLONES
static void scale_row(float *dst, const float *src, int64_t n, float factor)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        dst[i] = src[i] * factor;
    }
}

/* What one task keeps about its rows: scores of the current keys, running sums. */
typedef struct row_state {
    float *s;         /* (QUERIES,KEYS)                          */
    float *acc;       /* (QUERIES,D): o before the division by l */
    float *max, *sum; /* (QUERIES): m, l                         */
    int64_t row0, rows;
} row_state;

/* One block of scores turned into probabilities; rows of o that change their maximum are scaled. */
static void soften(const forward_job *j, const row_state *t, int64_t key0, int64_t keys)
{
    for (int64_t r = 0; r < t->rows; r++) {
        float *row = t->s + r * KEYS;
        const int64_t visible = /* may be <= 0 */
            j->a->causal ? dr_cpu_min(keys, t->row0 + r + 1 - key0) : keys;
        if (visible < keys) {
            const int64_t from = visible < 0 ? 0 : visible;
            memset(row + from, 0, (size_t)(keys - from) * sizeof *row);
        }
        if (visible <= 0) {
            continue;
        }
        const float m = row_max(row, visible, t->max[r]);
        if (m != t->max[r] && key0 > 0) {
            const float factor = dr_cpu_expf(t->max[r] - m);
            float *acc = t->acc + r * j->d;
            t->sum[r] *= factor;
            scale_row(acc, acc, j->d, factor);
        }
        t->max[r] = m;
        t->sum[r] += exp_row(row, visible, m);
    }
}

/* s = q k^T / sqrt(D), softened; acc += s v, for the keys key0.. */
static void add_keys(const forward_job *j, const row_state *t, const float *q, int64_t at_k,
                     int64_t key0, int64_t keys)
{
    const int64_t at = at_k + key0 * j->c;
    const dr_cpu_matmul score = {.tb = true,
                                 .m = t->rows,
                                 .n = keys,
                                 .k = j->d,
                                 .alpha = j->scale,
                                 .a = q,
                                 .b = (const float *)j->a->k->data + at,
                                 .c = t->s,
                                 .lda = j->c,
                                 .ldb = j->c,
                                 .ldc = KEYS};
    dr_cpu_gemm(&score);
    soften(j, t, key0, keys);
    const dr_cpu_matmul value = {.m = t->rows,
                                 .n = j->d,
                                 .k = keys,
                                 .alpha = 1.0f,
                                 .beta = key0 > 0 ? 1.0f : 0.0f,
                                 .a = t->s,
                                 .b = (const float *)j->a->v->data + at,
                                 .c = t->acc,
                                 .lda = KEYS,
                                 .ldb = j->c,
                                 .ldc = j->d};
    dr_cpu_gemm(&value);
}

static void forward_task(const void *job, int64_t i, int thread)
{
    const forward_job *j = job;
    const dr_attention_args *a = j->a;
    const int64_t sample = i / (a->heads * j->n_blocks);
    const int64_t head = i / j->n_blocks % a->heads;
    const int64_t q0 = i % j->n_blocks * QUERIES;
    const int64_t at_q = (sample * j->sq + q0) * j->c + head * j->d;
    const int64_t at_k = sample * j->sk * j->c + head * j->d;
    row_state t = {.s = j->work + thread * j->work_floats,
                   .row0 = q0,
                   .rows = dr_cpu_min(QUERIES, j->sq - q0)};
    t.acc = t.s + QUERIES * KEYS;
    t.max = t.acc + dr_cpu_lines(QUERIES * j->d);
    t.sum = t.max + QUERIES;
    for (int64_t r = 0; r < t.rows; r++) {
        t.max[r] = -INFINITY;
        t.sum[r] = 0.0f;
    }
    const int64_t last = a->causal ? q0 + t.rows : j->sk;
    for (int64_t k0 = 0; k0 < last; k0 += KEYS) {
        add_keys(j, &t, (const float *)a->q->data + at_q, at_k, k0, dr_cpu_min(KEYS, last - k0));
    }
    float *lse =
        a->lse != NULL ? (float *)a->lse->data + (sample * a->heads + head) * j->sq + q0 : NULL;
    for (int64_t r = 0; r < t.rows; r++) {
        scale_row((float *)a->o->data + at_q + r * j->c, t.acc + r * j->d, j->d, 1.0f / t.sum[r]);
        if (lse != NULL) {
            lse[r] = t.max[r] + logf(t.sum[r]);
        }
    }
}

size_t dr_cpu_attention_work(const dr_context *cx, const dr_attention_args *a)
{
    return (size_t)(plan(a).work_floats * cx->threads) * sizeof(float);
}

dr_status dr_cpu_attention(dr_context *cx, const dr_attention_args *a)
{
    forward_job j = plan(a);
    j.work = cx->work;
    dr_cpu_run(cx, a->q->dim[0] * a->heads * j.n_blocks, forward_task, &j);
    return DR_OK;
}
