#include "ops/attention.h"
#include "backend/ref/ref_internal.h"

#include <string.h>

/* Sizes of one call; row i of head h of sample n starts at ((n S + i) heads + h) D. */
typedef struct attention {
    int64_t n, heads, sq, sk, d;
    bool causal;
    dr_real scale;
} attention;

static attention describe(const dr_tensor *q, const dr_tensor *k, int heads, bool causal)
{
    attention s = {.n = q->dim[0],
                   .heads = heads,
                   .sq = q->dim[1],
                   .sk = k->dim[1],
                   .d = q->dim[2] / heads,
                   .causal = causal};
    s.scale = (dr_real)(1.0 / sqrt((double)s.d));
    return s;
}

static dr_real *row_of(const attention *s, dr_real *t, int64_t len, int64_t n, int64_t i, int64_t h)
{
    return t + ((n * len + i) * s->heads + h) * s->d;
}

/* a . b in LANES partial sums, so that the loop can use vector registers. */
static dr_real dot(const dr_real *a, const dr_real *b, int64_t n)
{
    enum { LANES = 8 };
    dr_real sum[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int l = 0; l < LANES; l++) {
            sum[l] += a[i + l] * b[i + l];
        }
    }
    dr_real rest = 0;
    for (; i < n; i++) {
        rest += a[i] * b[i];
    }
    return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7])) + rest;
}

static void add_scaled(dr_real *y, dr_real alpha, const dr_real *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        y[i] += alpha * x[i];
    }
}

/* Per thread: one row of probabilities and one row of output, both in double. */
static size_t row_doubles(const attention *s)
{
    return (size_t)(s->sk + s->d);
}

size_t DR_REF(attention_work_bytes)(const dr_context *cx, const dr_attention_args *a)
{
    const attention s = describe(a->q, a->k, a->heads, a->causal);
    return sizeof(double) * row_doubles(&s) * (size_t)cx->threads;
}

/* One output row: o = sum_j p_j v_j, p = softmax(scale q.k_j); returns log sum exp of the scores.
 */
static double attend(const attention *s, const dr_attention_args *a, int64_t row, double *p,
                     double *sum_v)
{
    const int64_t i = row % s->sq;
    const int64_t h = row / s->sq % s->heads;
    const int64_t n = row / (s->sq * s->heads);
    const int64_t keys = s->causal ? i + 1 : s->sk;
    const dr_real *q = row_of(s, dr_ref_data(a->q), s->sq, n, i, h);
    double max = -INFINITY;
    for (int64_t j = 0; j < keys; j++) {
        p[j] = (double)(s->scale * dot(q, row_of(s, dr_ref_data(a->k), s->sk, n, j, h), s->d));
        max = p[j] > max ? p[j] : max;
    }
    double sum = 0.0;
    memset(sum_v, 0, sizeof(double) * (size_t)s->d);
    for (int64_t j = 0; j < keys; j++) {
        const double e = exp(p[j] - max);
        const dr_real *v = row_of(s, dr_ref_data(a->v), s->sk, n, j, h);
        sum += e;
        for (int64_t d = 0; d < s->d; d++) {
            sum_v[d] += e * (double)v[d];
        }
    }
    dr_real *o = row_of(s, dr_ref_data(a->o), s->sq, n, i, h);
    for (int64_t d = 0; d < s->d; d++) {
        o[d] = (dr_real)(sum_v[d] / sum);
    }
    return max + log(sum);
}

dr_status DR_REF(attention)(dr_context *cx, const dr_attention_args *a)
{
    const attention s = describe(a->q, a->k, a->heads, a->causal);
    dr_real *lse = dr_ref_data(a->lse);
    const int64_t rows = s.n * s.heads * s.sq;
    const int64_t per_thread = (rows + cx->threads - 1) / cx->threads;
#pragma omp parallel for num_threads(cx->threads) schedule(static)
    for (int t = 0; t < cx->threads; t++) {
        double *work = (double *)cx->work + row_doubles(&s) * (size_t)t;
        const int64_t end = (t + 1) * per_thread < rows ? (t + 1) * per_thread : rows;
        for (int64_t row = t * per_thread; row < end; row++) {
            const double row_lse = attend(&s, a, row, work, work + s.sk);
            if (lse != NULL) {
                lse[row] = (dr_real)row_lse;
            }
        }
    }
    return DR_OK;
}

/*
 * One query row: delta = do.o; p_j = exp(scale q.k_j - lse); ds_j = p_j (do.v_j - delta) scale;
 * dq = sum_j ds_j k_j; dk_j += ds_j q; dv_j += p_j do.
 */
static void backward_row(const attention *s, const dr_attention_backward_args *a, int64_t n,
                         int64_t h, int64_t i)
{
    const dr_real *q = row_of(s, dr_ref_data(a->q), s->sq, n, i, h);
    const dr_real *dout = row_of(s, dr_ref_data(a->dout), s->sq, n, i, h);
    const dr_real delta = dot(dout, row_of(s, dr_ref_data(a->o), s->sq, n, i, h), s->d);
    const dr_real lse = dr_ref_data(a->lse)[(n * s->heads + h) * s->sq + i];
    dr_real *dq = row_of(s, dr_ref_data(a->dq), s->sq, n, i, h);
    memset(dq, 0, sizeof(dr_real) * (size_t)s->d);
    const int64_t keys = s->causal ? i + 1 : s->sk;
    for (int64_t j = 0; j < keys; j++) {
        const dr_real *k = row_of(s, dr_ref_data(a->k), s->sk, n, j, h);
        const dr_real *v = row_of(s, dr_ref_data(a->v), s->sk, n, j, h);
        const dr_real p = DR_MATH(exp)(s->scale * dot(q, k, s->d) - lse);
        const dr_real ds = p * (dot(dout, v, s->d) - delta) * s->scale;
        add_scaled(dq, ds, k, s->d);
        add_scaled(row_of(s, dr_ref_data(a->dk), s->sk, n, j, h), ds, q, s->d);
        add_scaled(row_of(s, dr_ref_data(a->dv), s->sk, n, j, h), p, dout, s->d);
    }
}

dr_status DR_REF(attention_backward)(dr_context *cx, const dr_attention_backward_args *a)
{
    const attention s = describe(a->q, a->k, a->heads, a->causal);
    memset(dr_ref_data(a->dk), 0, dr_nbytes(a->dk));
    memset(dr_ref_data(a->dv), 0, dr_nbytes(a->dv));
#pragma omp parallel for num_threads(cx->threads) schedule(static)
    for (int64_t t = 0; t < s.n * s.heads; t++) {
        for (int64_t i = 0; i < s.sq; i++) {
            backward_row(&s, a, t / s.heads, t % s.heads, i);
        }
    }
    return DR_OK;
}
