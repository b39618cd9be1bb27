/*
 * Layer normalisation: rows are independent in y and dx; dgamma and dbeta are sums over rows, taken
 * by tasks that own columns.
 */
#include "backend/cpu/cpu_internal.h"

#include <math.h>

enum { COLUMNS = 32, ROWS = 64 };

typedef struct norm_job {
    const float *x, *dy, *gamma, *beta;
    float *y, *stats; /* y or dx */
    float *dgamma, *dbeta;
    int64_t rows, c, block;
    float eps;
    bool add;
} norm_job;

DR_CPU_CLONES
static void normalise_row(const norm_job *j, int64_t row)
{
    const int64_t c = j->c;
    const float *restrict x = j->x + row * c;
    const float *restrict gamma = j->gamma;
    const float *restrict beta = j->beta;
    float *restrict y = j->y + row * c;
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t k = 0; k < c; k++) {
        sum += x[k];
    }
    const float mean = sum / (float)c;
    float squares = 0.0f;
#pragma omp simd reduction(+ : squares)
    for (int64_t k = 0; k < c; k++) {
        squares += (x[k] - mean) * (x[k] - mean);
    }
    const float rstd = 1.0f / sqrtf(squares / (float)c + j->eps);
    for (int64_t k = 0; k < c; k++) {
        y[k] = (x[k] - mean) * rstd * gamma[k] + beta[k];
    }
    j->stats[2 * row] = mean;
    j->stats[2 * row + 1] = rstd;
}

static void normalise_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const norm_job *j = job;
    const int64_t end = dr_cpu_min(j->rows, (i + 1) * j->block);
    for (int64_t r = i * j->block; r < end; r++) {
        normalise_row(j, r);
    }
}

dr_status dr_cpu_layernorm(dr_context *cx, const dr_layernorm_args *a)
{
    const norm_job j = {.x = a->x->data,
                        .gamma = a->gamma->data,
                        .beta = a->beta->data,
                        .y = a->y->data,
                        .stats = a->stats->data,
                        .rows = dr_rows(a->x),
                        .c = dr_cols(a->x),
                        .block = dr_cpu_row_block(dr_cols(a->x)),
                        .eps = a->eps};
    dr_cpu_run(cx, dr_cpu_ceil_div(j.rows, j.block), normalise_task, &j);
    return DR_OK;
}

DR_CPU_CLONES
static void dx_row(const norm_job *j, int64_t row)
{
    const int64_t c = j->c;
    const float *restrict x = j->x + row * c;
    const float *restrict dy = j->dy + row * c;
    const float *restrict gamma = j->gamma;
    float *restrict dx = j->y + row * c;
    const float mean = j->stats[2 * row];
    const float rstd = j->stats[2 * row + 1];
    const bool add = j->add;
    float m1 = 0.0f;
    float m2 = 0.0f;
#pragma omp simd reduction(+ : m1, m2)
    for (int64_t k = 0; k < c; k++) {
        const float g = dy[k] * gamma[k];
        m1 += g;
        m2 += g * ((x[k] - mean) * rstd);
    }
    m1 /= (float)c;
    m2 /= (float)c;
    for (int64_t k = 0; k < c; k++) {
        const float d = rstd * (dy[k] * gamma[k] - m1 - (x[k] - mean) * rstd * m2);
        dx[k] = add ? dx[k] + d : d;
    }
}

static void dx_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const norm_job *j = job;
    const int64_t end = dr_cpu_min(j->rows, (i + 1) * j->block);
    for (int64_t r = i * j->block; r < end; r++) {
        dx_row(j, r);
    }
}

DR_CPU_CLONES
static void sum_columns(const norm_job *j, int64_t c0, int64_t cols, double *restrict dgamma,
                        double *restrict dbeta)
{
    for (int64_t r0 = 0; r0 < j->rows; r0 += ROWS) {
        float part_gamma[COLUMNS] = {0.0f};
        float part_beta[COLUMNS] = {0.0f};
        const int64_t end = dr_cpu_min(j->rows, r0 + ROWS);
        for (int64_t r = r0; r < end; r++) {
            const float *restrict x = j->x + r * j->c + c0;
            const float *restrict dy = j->dy + r * j->c + c0;
            const float mean = j->stats[2 * r];
            const float rstd = j->stats[2 * r + 1];
            for (int64_t k = 0; k < cols; k++) {
                part_gamma[k] += dy[k] * ((x[k] - mean) * rstd);
                part_beta[k] += dy[k];
            }
        }
        for (int64_t k = 0; k < cols; k++) {
            dgamma[k] += (double)part_gamma[k];
            dbeta[k] += (double)part_beta[k];
        }
    }
}

static void parameters_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const norm_job *j = job;
    const int64_t c0 = i * COLUMNS;
    const int64_t cols = dr_cpu_min(COLUMNS, j->c - c0);
    double dgamma[COLUMNS] = {0.0};
    double dbeta[COLUMNS] = {0.0};
    sum_columns(j, c0, cols, dgamma, dbeta);
    for (int64_t k = 0; k < cols; k++) {
        j->dgamma[c0 + k] += (float)dgamma[k];
        j->dbeta[c0 + k] += (float)dbeta[k];
    }
}

dr_status dr_cpu_layernorm_backward(dr_context *cx, const dr_layernorm_backward_args *a)
{
    norm_job j = {.x = a->x->data,
                  .dy = a->dy->data,
                  .gamma = a->gamma->data,
                  .stats = a->stats->data,
                  .rows = dr_rows(a->x),
                  .c = dr_cols(a->x),
                  .block = dr_cpu_row_block(dr_cols(a->x)),
                  .add = a->mode == DR_ADD};
    if (a->dgamma != NULL) {
        j.dgamma = a->dgamma->data;
        j.dbeta = a->dbeta->data;
        dr_cpu_run(cx, dr_cpu_ceil_div(j.c, COLUMNS), parameters_task, &j);
    }
    if (a->dx != NULL) {
        j.y = a->dx->data;
        dr_cpu_run(cx, dr_cpu_ceil_div(j.rows, j.block), dx_task, &j);
    }
    return DR_OK;
}
