#include "backend/cpu/cpu_math.h"

#include <math.h>

typedef struct span {
    int64_t at, n;
} span;

/* Chunk i of a flat loop over n elements. */
static span chunk_of(int64_t i, int64_t n)
{
    const int64_t at = i * DR_CPU_CHUNK;
    return (span){at, dr_cpu_min(DR_CPU_CHUNK, n - at)};
}

static void run_chunks(const dr_context *cx, int64_t n, dr_cpu_task task, const void *job)
{
    dr_cpu_run(cx, dr_cpu_ceil_div(n, DR_CPU_CHUNK), task, job);
}

/* ---- activation ---- */

DR_CPU_CLONES
static void activate(dr_act kind, const float *x, float *y, int64_t n)
{
    switch (kind) {
    case DR_ACT_SILU:
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            y[i] = dr_cpu_silu(x[i]);
        }
        break;
    case DR_ACT_GELU:
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            y[i] = dr_cpu_gelu(x[i]);
        }
        break;
    case DR_ACT_QUICK_GELU:
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            y[i] = x[i] * dr_cpu_sigmoid(1.702f * x[i]);
        }
        break;
    case DR_ACT_RELU:
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            y[i] = x[i] < 0.0f ? 0.0f : x[i];
        }
        break;
    case DR_ACT_TANH3: /* latents only: a few thousand elements */
        for (int64_t i = 0; i < n; i++) {
            y[i] = 3.0f * tanhf(x[i] / 3.0f);
        }
        break;
    }
}

typedef struct activation_job {
    dr_act kind;
    const float *dy, *x;
    float *y; /* or dx */
    bool add;
    int64_t n;
} activation_job;

static void activation_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const activation_job *j = job;
    const span s = chunk_of(i, j->n);
    activate(j->kind, j->x + s.at, j->y + s.at, s.n);
}

dr_status dr_cpu_activation(dr_context *cx, const dr_activation_args *a)
{
    const activation_job j = {
        .kind = a->kind, .x = a->x->data, .y = a->y->data, .n = dr_numel(a->x)};
    run_chunks(cx, j.n, activation_task, &j);
    return DR_OK;
}

DR_CPU_INLINE float quick_gelu_slope(float x)
{
    const float s = dr_cpu_sigmoid(1.702f * x);
    return s * (1.0f + 1.702f * x * (1.0f - s));
}

DR_CPU_INLINE float tanh3_slope(float x)
{
    const float t = tanhf(x / 3.0f);
    return 1.0f - t * t;
}

DR_CPU_CLONES
static void activate_backward(dr_act kind, const float *dy, const float *x, float *dx, bool add,
                              int64_t n)
{
    switch (kind) {
    case DR_ACT_SILU:
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            const float d = dy[i] * dr_cpu_silu_slope(x[i]);
            dx[i] = add ? dx[i] + d : d;
        }
        break;
    case DR_ACT_GELU:
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            const float d = dy[i] * dr_cpu_gelu_slope(x[i]);
            dx[i] = add ? dx[i] + d : d;
        }
        break;
    case DR_ACT_QUICK_GELU:
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            const float d = dy[i] * quick_gelu_slope(x[i]);
            dx[i] = add ? dx[i] + d : d;
        }
        break;
    case DR_ACT_RELU:
#pragma omp simd
        for (int64_t i = 0; i < n; i++) {
            const float d = x[i] > 0.0f ? dy[i] : 0.0f;
            dx[i] = add ? dx[i] + d : d;
        }
        break;
    case DR_ACT_TANH3:
        for (int64_t i = 0; i < n; i++) {
            const float d = dy[i] * tanh3_slope(x[i]);
            dx[i] = add ? dx[i] + d : d;
        }
        break;
    }
}

static void activation_backward_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const activation_job *j = job;
    const span s = chunk_of(i, j->n);
    activate_backward(j->kind, j->dy + s.at, j->x + s.at, j->y + s.at, j->add, s.n);
}

dr_status dr_cpu_activation_backward(dr_context *cx, const dr_activation_backward_args *a)
{
    const activation_job j = {.kind = a->kind,
                              .dy = a->dy->data,
                              .x = a->x->data,
                              .y = a->dx->data,
                              .add = a->mode == DR_ADD,
                              .n = dr_numel(a->x)};
    run_chunks(cx, j.n, activation_backward_task, &j);
    return DR_OK;
}

/* ---- geglu ---- */

typedef struct geglu_job {
    const float *x, *dy;
    float *y; /* or dx */
    int64_t rows, f, block;
} geglu_job;

DR_CPU_CLONES
static void geglu_row(const float *restrict x, float *restrict y, int64_t f)
{
#pragma omp simd
    for (int64_t i = 0; i < f; i++) {
        y[i] = x[i] * dr_cpu_gelu(x[f + i]);
    }
}

DR_CPU_CLONES
static void geglu_row_backward(const float *restrict dy, const float *restrict x,
                               float *restrict dx, int64_t f)
{
#pragma omp simd
    for (int64_t i = 0; i < f; i++) {
        const float gate = x[f + i];
        const float cdf = dr_cpu_normal_cdf(gate);
        const float slope = cdf + gate * 0.39894228f * dr_cpu_expf(-0.5f * gate * gate);
        dx[i] = dy[i] * gate * cdf;
        dx[f + i] = dy[i] * x[i] * slope;
    }
}

static void geglu_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const geglu_job *j = job;
    const int64_t end = dr_cpu_min(j->rows, (i + 1) * j->block);
    for (int64_t r = i * j->block; r < end; r++) {
        if (j->dy == NULL) {
            geglu_row(j->x + r * 2 * j->f, j->y + r * j->f, j->f);
        } else {
            geglu_row_backward(j->dy + r * j->f, j->x + r * 2 * j->f, j->y + r * 2 * j->f, j->f);
        }
    }
}

dr_status dr_cpu_geglu(dr_context *cx, const dr_geglu_args *a)
{
    const geglu_job j = {.x = a->x->data,
                         .y = a->y->data,
                         .rows = dr_rows(a->y),
                         .f = dr_cols(a->y),
                         .block = dr_cpu_row_block(dr_cols(a->x))};
    dr_cpu_run(cx, dr_cpu_ceil_div(j.rows, j.block), geglu_task, &j);
    return DR_OK;
}

dr_status dr_cpu_geglu_backward(dr_context *cx, const dr_geglu_backward_args *a)
{
    const geglu_job j = {.x = a->x->data,
                         .dy = a->dy->data,
                         .y = a->dx->data,
                         .rows = dr_rows(a->dy),
                         .f = dr_cols(a->dy),
                         .block = dr_cpu_row_block(dr_cols(a->x))};
    dr_cpu_run(cx, dr_cpu_ceil_div(j.rows, j.block), geglu_task, &j);
    return DR_OK;
}

/* ---- sums ---- */

typedef struct add_job {
    float alpha, beta;
    const float *x, *z;
    float *y;
    int64_t n;
} add_job;

DR_CPU_CLONES
static void add_scaled(const add_job *j, span s)
{
    const float *x = j->x + s.at;
    const float *z = j->z != NULL ? j->z + s.at : NULL;
    float *y = j->y + s.at;
    if (z == NULL) {
#pragma omp simd
        for (int64_t i = 0; i < s.n; i++) {
            y[i] = j->alpha * x[i];
        }
    } else {
#pragma omp simd
        for (int64_t i = 0; i < s.n; i++) {
            y[i] = j->alpha * x[i] + j->beta * z[i];
        }
    }
}

static void add_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const add_job *j = job;
    add_scaled(j, chunk_of(i, j->n));
}

dr_status dr_cpu_add(dr_context *cx, const dr_add_args *a)
{
    const add_job j = {.alpha = a->alpha,
                       .beta = a->beta,
                       .x = a->x->data,
                       .z = a->z != NULL ? a->z->data : NULL,
                       .y = a->y->data,
                       .n = dr_numel(a->x)};
    run_chunks(cx, j.n, add_task, &j);
    return DR_OK;
}

typedef struct rows_job {
    float *x;
    const float *t;
    int64_t rows, per_sample, cols, block;
} rows_job;

static void add_rows_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const rows_job *j = job;
    const int64_t end = dr_cpu_min(j->rows, (i + 1) * j->block);
    for (int64_t r = i * j->block; r < end;) {
        const int64_t sample = r / j->per_sample;
        const int64_t n = dr_cpu_min(end, (sample + 1) * j->per_sample) - r;
        dr_cpu_bias_rows(j->x + r * j->cols, j->cols, n, j->cols, j->t + sample * j->cols, true);
        r += n;
    }
}

dr_status dr_cpu_add_rows(dr_context *cx, const dr_add_rows_args *a)
{
    const rows_job j = {.x = a->x->data,
                        .t = a->t->data,
                        .rows = dr_rows(a->x),
                        .per_sample = dr_rows(a->x) / a->x->dim[0],
                        .cols = dr_cols(a->x),
                        .block = dr_cpu_row_block(dr_cols(a->x))};
    dr_cpu_run(cx, dr_cpu_ceil_div(j.rows, j.block), add_rows_task, &j);
    return DR_OK;
}

typedef struct product_job {
    const float *x, *t;
    float *y;
    int64_t rows, per_sample, cols, block;
} product_job;

/* n rows that share t. */
DR_CPU_CLONES
static void multiply_rows(const product_job *j, int64_t row, int64_t n)
{
    const float *x = j->x + row * j->cols;
    const float *t = j->t + row / j->per_sample * j->cols;
    float *y = j->y + row * j->cols;
    if (j->cols == 1) {
        for (int64_t i = 0; i < n; i++) {
            y[i] = x[i] * t[0];
        }
        return;
    }
    for (int64_t r = 0; r < n; r++, x += j->cols, y += j->cols) {
#pragma omp simd
        for (int64_t c = 0; c < j->cols; c++) {
            y[c] = x[c] * t[c];
        }
    }
}

static void multiply_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const product_job *j = job;
    const int64_t end = dr_cpu_min(j->rows, (i + 1) * j->block);
    for (int64_t r = i * j->block; r < end;) {
        const int64_t n = dr_cpu_min(end, (r / j->per_sample + 1) * j->per_sample) - r;
        multiply_rows(j, r, n);
        r += n;
    }
}

dr_status dr_cpu_multiply(dr_context *cx, const dr_multiply_args *a)
{
    const product_job j = {.x = a->x->data,
                           .t = a->t->data,
                           .y = a->y->data,
                           .rows = dr_rows(a->x),
                           .per_sample = dr_rows(a->x) / a->x->dim[0],
                           .cols = dr_cols(a->x),
                           .block = dr_cpu_row_block(dr_cols(a->x))};
    dr_cpu_run(cx, dr_cpu_ceil_div(j.rows, j.block), multiply_task, &j);
    return DR_OK;
}

static void dropout_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const dr_dropout_args *a = job;
    const span s = chunk_of(i, dr_numel(a->x));
    const int64_t part = dr_numel(a->x) / a->outer;
    const float *x = a->x->data;
    float *y = a->y->data;
    bool keeps[4];
    int64_t block = -1;
    for (int64_t k = s.at; k < s.at + s.n; k++) {
        const int64_t number = k / part * a->inner + k % a->inner;
        if (number / 4 != block) {
            block = number / 4;
            dr_dropout_keeps(a, (uint32_t)block, keeps);
        }
        y[k] = keeps[number % 4] ? a->scale * x[k] : 0.0F;
    }
}

dr_status dr_cpu_dropout(dr_context *cx, const dr_dropout_args *a)
{
    run_chunks(cx, dr_numel(a->x), dropout_task, a);
    return DR_OK;
}
