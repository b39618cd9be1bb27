/*
 * Optimizers with 8-bit states, a block of 256 elements at a time.
 */
#include "backend/cpu/cpu_internal.h"

#include <math.h>

enum { BLOCK = DR_BLOCKWISE_BLOCK, BLOCKS_PER_TASK = 64 };

typedef struct blockwise_job {
    const dr_blockwise_args *a;
    int64_t n;
    float map[2][BLOCK];    /* of state1 (signed), state2 (unsigned) */
    float middle[2][BLOCK]; /* middle[k] between values k and k + 1 */
    float decay, beta1, rest1, beta2, rest2, step_size, eps, lr, scale, l2;
    bool first;
} blockwise_job;

DR_CPU_CLONES
static void read_codes(const uint8_t *codes, const float *map, float absmax, int64_t n, float *x)
{
    for (int64_t i = 0; i < n; i++) {
        x[i] = map[codes[i]] * absmax;
    }
}

/* Number of middles below x, by halving: the index of the nearest value. */
DR_CPU_INLINE int nearest(const float *middle, float x)
{
    int low = 0;
    for (int half = BLOCK / 2; half > 0; half /= 2) {
        low += x > middle[low + half - 1] ? half : 0;
    }
    return low;
}

DR_CPU_CLONES
static float write_codes(const float *x, const float *map, const float *middle, int64_t n,
                         bool is_signed, uint8_t *codes)
{
    float largest = 0.0f;
    for (int64_t i = 0; i < n; i++) {
        largest = fmaxf(largest, fabsf(x[i]));
    }
    for (int64_t i = 0; i < n; i++) {
        const float scaled = largest > 0.0f ? x[i] / largest : 0.0f;
        int c = nearest(middle, scaled);
        if (is_signed && (map[c] < 0.0f) != (scaled < 0.0f)) { /* a code of the other sign */
            c += scaled > 0.0f ? 1 : -1;
        }
        codes[i] = (uint8_t)c;
    }
    return largest;
}

DR_CPU_CLONES
static void adam_block(const blockwise_job *j, float *restrict p, const float *restrict g,
                       float *restrict m, float *restrict v, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const float grad = g[i] * j->scale;
        const bool finite = isfinite(grad);
        const float new_m = j->beta1 * m[i] + j->rest1 * grad;
        const float new_v = j->beta2 * v[i] + j->rest2 * grad * grad;
        const float moved = p[i] + j->step_size * (new_m / (sqrtf(new_v) + j->eps));
        m[i] = finite ? new_m : 0.0f;
        v[i] = finite ? new_v : 0.0f;
        p[i] = finite ? moved * j->decay : p[i];
    }
}

DR_CPU_CLONES
static void lion_block(const blockwise_job *j, float *restrict p, const float *restrict g,
                       float *restrict m, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const float grad = g[i] * j->scale;
        const float u = j->beta1 * m[i] + j->rest1 * grad;
        p[i] = j->decay * p[i] - j->lr * (float)((u > 0.0f) - (u < 0.0f));
        m[i] = j->beta2 * m[i] + j->rest2 * grad;
    }
}

DR_CPU_CLONES
static void momentum_block(const blockwise_job *j, float *restrict p, const float *restrict g,
                           float *restrict m, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const float grad = g[i] * j->scale + j->l2 * p[i];
        m[i] = j->first ? grad : j->beta1 * m[i] + grad;
        p[i] = p[i] - j->lr * m[i];
    }
}

/* The state's values of the block at `at`: themselves, or decoded into x. */
static float *open_state(const blockwise_job *j, int k, const dr_tensor *state,
                         const dr_tensor *absmax, int64_t at, int64_t n, float *x)
{
    if (absmax == NULL) {
        return (float *)state->data + at;
    }
    read_codes((const uint8_t *)state->data + at, j->map[k],
               ((const float *)absmax->data)[at / BLOCK], n, x);
    return x;
}

static void close_state(const blockwise_job *j, int k, dr_tensor *state, dr_tensor *absmax,
                        int64_t at, int64_t n, const float *x)
{
    if (absmax != NULL) {
        ((float *)absmax->data)[at / BLOCK] =
            write_codes(x, j->map[k], j->middle[k], n, k == 0, (uint8_t *)state->data + at);
    }
}

static void update_block(const blockwise_job *j, int64_t at, int64_t n)
{
    const dr_blockwise_args *a = j->a;
    float x1[BLOCK];
    float x2[BLOCK];
    float *p = (float *)a->p->data + at;
    const float *g = (const float *)a->g->data + at;
    float *m = open_state(j, 0, a->state1, a->absmax1, at, n, x1);
    if (a->kind == DR_BLOCKWISE_ADAM) {
        float *v = open_state(j, 1, a->state2, a->absmax2, at, n, x2);
        adam_block(j, p, g, m, v, n);
        close_state(j, 1, a->state2, a->absmax2, at, n, v);
    } else if (a->kind == DR_BLOCKWISE_LION) {
        lion_block(j, p, g, m, n);
    } else {
        momentum_block(j, p, g, m, n);
    }
    close_state(j, 0, a->state1, a->absmax1, at, n, m);
}

static void blockwise_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const blockwise_job *j = job;
    const int64_t end = dr_cpu_min((i + 1) * BLOCKS_PER_TASK * BLOCK, j->n);
    for (int64_t at = i * BLOCKS_PER_TASK * BLOCK; at < end; at += BLOCK) {
        update_block(j, at, dr_cpu_min(BLOCK, end - at));
    }
}

dr_status dr_cpu_blockwise(dr_context *cx, const dr_blockwise_args *a)
{
    const double c1 = 1.0 - pow(a->beta1, (double)a->step);
    const double c2 = sqrt(1.0 - pow(a->beta2, (double)a->step));
    blockwise_job j = {.a = a,
                       .n = dr_numel(a->p),
                       .decay = (float)(1.0 - a->lr * a->weight_decay),
                       .beta1 = (float)a->beta1,
                       .rest1 = (float)(1.0 - a->beta1),
                       .beta2 = (float)a->beta2,
                       .rest2 = (float)(1.0 - a->beta2),
                       .step_size = (float)(-a->lr * c2 / c1),
                       .eps = (float)(a->eps * c2),
                       .lr = (float)a->lr,
                       .scale = (float)a->grad_scale,
                       .l2 = (float)a->weight_decay,
                       .first = a->step == 1};
    for (int k = 0; k < 2; k++) {
        dr_blockwise_code(k == 0, j.map[k]);
        for (int i = 0; i < BLOCK - 1; i++) {
            j.middle[k][i] = (j.map[k][i] + j.map[k][i + 1]) * 0.5f;
        }
    }
    dr_cpu_run(cx, dr_cpu_ceil_div(j.n, (int64_t)BLOCKS_PER_TASK * BLOCK), blockwise_task, &j);
    return DR_OK;
}
