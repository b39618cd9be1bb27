/*
 * Backward of attention: scores are computed again, block by block.
 *
 *   p = exp(s - lse),  delta = sum(do o) per query,  dv = p^T do,  dp = do v^T,
 *   ds = p (dp - delta) / sqrt(D),  dq = ds k,  dk = ds^T q
 *
 * A task owns the keys of one (sample, head), or a part of them when heads are few; it sets its dk
 * and dv. With one part it sets dq too; with several each writes its own dq into scratch memory and
 * they are summed in their order afterwards.
 */
#include "backend/cpu/cpu_math.h"

#include <math.h>

enum { QUERIES = 128, KEYS = 256, TARGET_TASKS = 8 };

typedef struct backward_job {
    const dr_attention_backward_args *a;
    int64_t sq, sk, c, d;
    int64_t parts, part_keys; /* of the keys */
    float scale;
    float *delta;    /* (N,heads,Sq)                              */
    float *dq_parts; /* (parts,N,Sq,C) when parts > 1             */
    float *work;
    int64_t work_floats; /* of one thread: s and dp */
} backward_job;

static backward_job plan(const dr_attention_backward_args *a)
{
    backward_job j = {.a = a, .sq = a->q->dim[1], .sk = a->k->dim[1], .c = a->q->dim[2]};
    const int64_t pairs = a->q->dim[0] * a->heads;
    const int64_t most = dr_cpu_ceil_div(j.sk, KEYS);
    j.d = j.c / a->heads;
    j.parts = dr_cpu_min(most, dr_cpu_ceil_div(TARGET_TASKS, pairs));
    j.part_keys = dr_cpu_ceil_div(most, j.parts) * KEYS;
    j.parts = dr_cpu_ceil_div(j.sk, j.part_keys);
    j.scale = 1.0f / sqrtf((float)j.d);
    j.work_floats = 2 * QUERIES * KEYS;
    return j;
}

DR_CPU_CLONES
static float dot(const float *restrict x, const float *restrict y, int64_t n)
{
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
        sum += x[i] * y[i];
    }
    return sum;
}

/* Task: one query of one sample, all heads. */
static void delta_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const backward_job *j = job;
    const int64_t sample = i / j->sq;
    const float *dout = (const float *)j->a->dout->data + i * j->c;
    const float *o = (const float *)j->a->o->data + i * j->c;
    for (int64_t h = 0; h < j->a->heads; h++) {
        j->delta[(sample * j->a->heads + h) * j->sq + i % j->sq] =
            dot(dout + h * j->d, o + h * j->d, j->d);
    }
}

/* s becomes p, dp becomes ds; keys behind `visible` become zero. */
DR_CPU_CLONES
static void slope_row(float *restrict s, float *restrict dp, int64_t visible, int64_t keys,
                      float lse, float delta, float scale)
{
#pragma omp simd
    for (int64_t i = 0; i < visible; i++) {
        const float p = dr_cpu_expf(s[i] - lse);
        s[i] = p;
        dp[i] = p * (dp[i] - delta) * scale;
    }
    for (int64_t i = visible; i < keys; i++) {
        s[i] = 0.0f;
        dp[i] = 0.0f;
    }
}

typedef struct block {
    int64_t sample, head, part;
    int64_t q0, rows, k0, keys;
    bool first_query, first_key; /* of this task: results are set, later ones add */
} block;

static void backward_block(const backward_job *j, const block *b, float *s, float *dp)
{
    const dr_attention_backward_args *a = j->a;
    const int64_t at_q = (b->sample * j->sq + b->q0) * j->c + b->head * j->d;
    const int64_t at_k = (b->sample * j->sk + b->k0) * j->c + b->head * j->d;
    const int64_t at_row = (b->sample * a->heads + b->head) * j->sq + b->q0;
    const float *q = (const float *)a->q->data + at_q;
    const float *k = (const float *)a->k->data + at_k;
    const float *v = (const float *)a->v->data + at_k;
    const float *dout = (const float *)a->dout->data + at_q;
    const float *lse = (const float *)a->lse->data + at_row;
    float *dq = (j->parts > 1 ? j->dq_parts + b->part * a->q->dim[0] * j->sq * j->c
                              : (float *)a->dq->data) +
                at_q;
    dr_cpu_matmul g = {.tb = true,
                       .m = b->rows,
                       .n = b->keys,
                       .k = j->d,
                       .alpha = j->scale,
                       .a = q,
                       .b = k,
                       .c = s,
                       .lda = j->c,
                       .ldb = j->c,
                       .ldc = KEYS};
    dr_cpu_gemm(&g);
    g.alpha = 1.0f;
    g.a = dout;
    g.b = v;
    g.c = dp;
    dr_cpu_gemm(&g);
    for (int64_t r = 0; r < b->rows; r++) {
        int64_t visible = a->causal ? dr_cpu_min(b->keys, b->q0 + r + 1 - b->k0) : b->keys;
        visible = visible < 0 ? 0 : visible;
        slope_row(s + r * KEYS, dp + r * KEYS, visible, b->keys, lse[r], j->delta[at_row + r],
                  j->scale);
    }
    g = (dr_cpu_matmul){.ta = true,
                        .m = b->keys,
                        .n = j->d,
                        .k = b->rows,
                        .alpha = 1.0f,
                        .beta = b->first_query ? 0.0f : 1.0f,
                        .a = s,
                        .b = dout,
                        .c = (float *)a->dv->data + at_k,
                        .lda = KEYS,
                        .ldb = j->c,
                        .ldc = j->c};
    dr_cpu_gemm(&g);
    g.a = dp;
    g.b = q;
    g.c = (float *)a->dk->data + at_k;
    dr_cpu_gemm(&g);
    g = (dr_cpu_matmul){.m = b->rows,
                        .n = j->d,
                        .k = b->keys,
                        .alpha = 1.0f,
                        .beta = b->first_key ? 0.0f : 1.0f,
                        .a = dp,
                        .b = k,
                        .c = dq,
                        .lda = KEYS,
                        .ldb = j->c,
                        .ldc = j->c};
    dr_cpu_gemm(&g);
}

static void backward_task(const void *job, int64_t i, int thread)
{
    const backward_job *j = job;
    float *s = j->work + thread * j->work_floats;
    block b = {.sample = i / (j->parts * j->a->heads),
               .head = i / j->parts % j->a->heads,
               .part = i % j->parts};
    const int64_t key_begin = b.part * j->part_keys;
    const int64_t key_end = dr_cpu_min(j->sk, key_begin + j->part_keys);
    for (b.k0 = key_begin; b.k0 < key_end; b.k0 += KEYS) {
        b.keys = dr_cpu_min(KEYS, key_end - b.k0);
        b.first_key = b.k0 == key_begin;
        b.first_query = true;
        for (b.q0 = 0; b.q0 < j->sq; b.q0 += QUERIES) {
            b.rows = dr_cpu_min(QUERIES, j->sq - b.q0);
            if (j->a->causal && b.q0 + b.rows <= b.k0 && !b.first_key) {
                continue; /* no query of the block sees its keys */
            }
            backward_block(j, &b, s, s + QUERIES * KEYS);
            b.first_query = false;
        }
    }
}

/* Task: the rows of one query, all heads: dq = sum of its parts. */
DR_CPU_CLONES
static void merge_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const backward_job *j = job;
    const int64_t size = j->a->q->dim[0] * j->sq * j->c;
    float *dq = (float *)j->a->dq->data + i * j->c;
    for (int64_t c = 0; c < j->c; c++) {
        float sum = 0.0f;
        for (int64_t p = 0; p < j->parts; p++) {
            sum += j->dq_parts[p * size + i * j->c + c];
        }
        dq[c] = sum;
    }
}

static int64_t delta_floats(const backward_job *j)
{
    return dr_cpu_lines(j->a->q->dim[0] * j->a->heads * j->sq);
}

static int64_t parts_floats(const backward_job *j)
{
    return j->parts > 1 ? dr_cpu_lines(j->parts * j->a->q->dim[0] * j->sq * j->c) : 0;
}

size_t dr_cpu_attention_backward_work(const dr_context *cx, const dr_attention_backward_args *a)
{
    const backward_job j = plan(a);
    return (size_t)(delta_floats(&j) + parts_floats(&j) + j.work_floats * cx->threads) *
           sizeof(float);
}

dr_status dr_cpu_attention_backward(dr_context *cx, const dr_attention_backward_args *a)
{
    backward_job j = plan(a);
    j.delta = cx->work;
    j.dq_parts = j.delta + delta_floats(&j);
    j.work = j.dq_parts + parts_floats(&j);
    const int64_t queries = a->q->dim[0] * j.sq;
    dr_cpu_run(cx, queries, delta_task, &j);
    dr_cpu_run(cx, a->q->dim[0] * a->heads * j.parts, backward_task, &j);
    if (j.parts > 1) {
        dr_cpu_run(cx, queries, merge_task, &j);
    }
    return DR_OK;
}
