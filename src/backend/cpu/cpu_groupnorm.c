/*
 * Group normalisation over (N,S,C), SiLU fused. A sample is cut into blocks of rows that stay in
 * L2; block statistics (mean, sum of squared deviations) are merged in double, in block order
 * (Chan, Golub, LeVeque 1979), so that x is read from memory once for the statistics and once for
 * y.
 *
 *   z = (x - mean) rstd gamma + beta,  y = silu(z) or z
 *   dz = dy silu'(z),  m1 = mean(gamma dz),  m2 = mean(gamma dz xhat)   over group and pixels
 *   dx = rstd (gamma dz - m1 - xhat m2),  dgamma = sum dz xhat,  dbeta = sum dz
 */
#include "backend/cpu/cpu_math.h"

#include <math.h>

enum {
    MAX_BLOCK_ROWS = 256 /* floats are summed over at most so many rows before going to double */
};

typedef struct norm_job {
    const float *x, *dy, *gamma, *beta;
    float *y, *stats; /* y or dx */
    int64_t samples, s, c, groups, per_group;
    int64_t block, n_blocks; /* rows of a block, blocks of a sample */
    float eps;
    bool silu, add;
    double *partial; /* forward: (N, n_blocks, groups, 2): mean, sum of squared deviations      */
    float *columns;  /* backward: (N, n_blocks, 2, C): sums of dz and dz xhat; block 0 = totals */
    float *means;    /* backward: (N, groups, 2): m1, m2                                        */
    float *scratch;  /* per thread: scratch_floats                                              */
    int64_t scratch_floats;
} norm_job;

static norm_job plan(const dr_tensor *x, int groups)
{
    norm_job j = {.samples = x->dim[0], .c = dr_cols(x), .groups = groups};
    j.s = dr_rows(x) / j.samples;
    j.per_group = j.c / groups;
    j.block = dr_cpu_min(j.s, dr_cpu_min(MAX_BLOCK_ROWS, dr_cpu_ceil_div(DR_CPU_CHUNK, j.c)));
    j.n_blocks = dr_cpu_ceil_div(j.s, j.block);
    j.scratch_floats = 4 * dr_cpu_lines(j.c);
    return j;
}

/* Rows of task i (sample and block). */
typedef struct block_rows {
    int64_t sample, first, rows; /* first: row of the whole tensor */
} block_rows;

static block_rows rows_of(const norm_job *j, int64_t i)
{
    const int64_t sample = i / j->n_blocks;
    const int64_t at = i % j->n_blocks * j->block;
    return (block_rows){sample, sample * j->s + at, dr_cpu_min(j->block, j->s - at)};
}

DR_CPU_CLONES
static void add_row(float *restrict sum, const float *restrict x, int64_t c)
{
    for (int64_t k = 0; k < c; k++) {
        sum[k] += x[k];
    }
}

DR_CPU_CLONES
static void add_squares(float *restrict sum, const float *restrict x, const float *restrict mean,
                        int64_t c)
{
    for (int64_t k = 0; k < c; k++) {
        const float d = x[k] - mean[k];
        sum[k] += d * d;
    }
}

static void stats_task(const void *job, int64_t i, int thread)
{
    const norm_job *j = job;
    const block_rows b = rows_of(j, i);
    float *sum = j->scratch + thread * j->scratch_floats;
    float *mean = sum + dr_cpu_lines(j->c);
    const double count = (double)(b.rows * j->per_group);
    memset(sum, 0, (size_t)j->c * sizeof *sum);
    for (int64_t r = 0; r < b.rows; r++) {
        add_row(sum, j->x + (b.first + r) * j->c, j->c);
    }
    double *out = j->partial + i * j->groups * 2;
    for (int64_t g = 0; g < j->groups; g++) {
        double total = 0.0;
        for (int64_t k = 0; k < j->per_group; k++) {
            total += (double)sum[g * j->per_group + k];
        }
        const float m = (float)(total / count);
        out[2 * g] = (double)m;
        for (int64_t k = 0; k < j->per_group; k++) {
            mean[g * j->per_group + k] = m;
        }
    }
    memset(sum, 0, (size_t)j->c * sizeof *sum);
    for (int64_t r = 0; r < b.rows; r++) {
        add_squares(sum, j->x + (b.first + r) * j->c, mean, j->c);
    }
    for (int64_t g = 0; g < j->groups; g++) {
        double total = 0.0;
        for (int64_t k = 0; k < j->per_group; k++) {
            total += (double)sum[g * j->per_group + k];
        }
        out[2 * g + 1] = total;
    }
}

/* stats[n, g] = mean and rstd, from the partial ones of all blocks in order. */
static void merge_stats(const norm_job *j)
{
    for (int64_t i = 0; i < j->samples * j->groups; i++) {
        const int64_t sample = i / j->groups;
        double n = 0.0;
        double mean = 0.0;
        double squares = 0.0;
        for (int64_t b = 0; b < j->n_blocks; b++) {
            const double *part =
                j->partial + ((sample * j->n_blocks + b) * j->groups + i % j->groups) * 2;
            const int64_t rows = dr_cpu_min(j->block, j->s - b * j->block);
            const double count = (double)(rows * j->per_group);
            const double delta = part[0] - mean;
            n += count;
            mean += delta * count / n;
            squares += part[1] + delta * delta * count * (n - count) / n;
        }
        j->stats[2 * i] = (float)mean;
        j->stats[2 * i + 1] = (float)(1.0 / sqrt(squares / n + (double)j->eps));
    }
}

/* Spreads (N,groups,2) values of a sample over channels. */
static void spread(const norm_job *j, const float *pairs, int64_t sample, float *first,
                   float *second)
{
    for (int64_t c = 0; c < j->c; c++) {
        const float *pair = pairs + (sample * j->groups + c / j->per_group) * 2;
        first[c] = pair[0];
        second[c] = pair[1];
    }
}

DR_CPU_CLONES
static void normalise_row(const float *restrict x, const float *restrict mean,
                          const float *restrict rstd, const norm_job *j, float *restrict y)
{
    const float *restrict gamma = j->gamma;
    const float *restrict beta = j->beta;
    const int64_t c = j->c;
    if (j->silu) {
#pragma omp simd
        for (int64_t k = 0; k < c; k++) {
            y[k] = dr_cpu_silu((x[k] - mean[k]) * rstd[k] * gamma[k] + beta[k]);
        }
    } else {
#pragma omp simd
        for (int64_t k = 0; k < c; k++) {
            y[k] = (x[k] - mean[k]) * rstd[k] * gamma[k] + beta[k];
        }
    }
}

static void normalise_task(const void *job, int64_t i, int thread)
{
    const norm_job *j = job;
    const block_rows b = rows_of(j, i);
    float *mean = j->scratch + thread * j->scratch_floats;
    float *rstd = mean + dr_cpu_lines(j->c);
    spread(j, j->stats, b.sample, mean, rstd);
    for (int64_t r = b.first; r < b.first + b.rows; r++) {
        normalise_row(j->x + r * j->c, mean, rstd, j, j->y + r * j->c);
    }
}

size_t dr_cpu_groupnorm_work(const dr_context *cx, const dr_groupnorm_args *a)
{
    const norm_job j = plan(a->x, a->groups);
    return (size_t)dr_cpu_lines(j.samples * j.n_blocks * j.groups * 2) * sizeof(double) +
           (size_t)(j.scratch_floats * cx->threads) * sizeof(float);
}

dr_status dr_cpu_groupnorm(dr_context *cx, const dr_groupnorm_args *a)
{
    norm_job j = plan(a->x, a->groups);
    j.x = a->x->data;
    j.gamma = a->gamma->data;
    j.beta = a->beta->data;
    j.y = a->y->data;
    j.stats = a->stats->data;
    j.eps = a->eps;
    j.silu = a->silu;
    j.partial = cx->work;
    j.scratch = (float *)(j.partial + dr_cpu_lines(j.samples * j.n_blocks * j.groups * 2));
    dr_cpu_run(cx, j.samples * j.n_blocks, stats_task, &j);
    merge_stats(&j);
    dr_cpu_run(cx, j.samples * j.n_blocks, normalise_task, &j);
    return DR_OK;
}

/* ---- backward ---- */

/* The arrays of one row; mean, rstd, m1, m2 are spread over channels. */
typedef struct row_arrays {
    const float *x, *dy, *gamma, *beta, *mean, *rstd, *m1, *m2;
    float *dx;
    int64_t c;
} row_arrays;

/* dz of one element; z is recomputed from x. */
DR_CPU_INLINE float slope(float dy, float xhat, float gamma, float beta, bool silu)
{
    return silu ? dy * dr_cpu_silu_slope(xhat * gamma + beta) : dy;
}

DR_CPU_INLINE void sum_elements(const row_arrays *r, float *restrict sum_dz,
                                float *restrict sum_dzx, bool silu)
{
    const int64_t c = r->c;
#pragma omp simd
    for (int64_t k = 0; k < c; k++) {
        const float xhat = (r->x[k] - r->mean[k]) * r->rstd[k];
        const float dz = slope(r->dy[k], xhat, r->gamma[k], r->beta[k], silu);
        sum_dz[k] += dz;
        sum_dzx[k] += dz * xhat;
    }
}

DR_CPU_CLONES
static void sum_row(row_arrays r, float *sum_dz, float *sum_dzx, bool silu)
{
    if (silu) {
        sum_elements(&r, sum_dz, sum_dzx, true);
    } else {
        sum_elements(&r, sum_dz, sum_dzx, false);
    }
}

DR_CPU_INLINE void dx_elements(const row_arrays *r, bool silu, bool add)
{
    const int64_t c = r->c;
    float *dx = r->dx;
#pragma omp simd
    for (int64_t k = 0; k < c; k++) {
        const float xhat = (r->x[k] - r->mean[k]) * r->rstd[k];
        const float dz = slope(r->dy[k], xhat, r->gamma[k], r->beta[k], silu);
        const float d = r->rstd[k] * (r->gamma[k] * dz - r->m1[k] - xhat * r->m2[k]);
        dx[k] = add ? dx[k] + d : d;
    }
}

DR_CPU_CLONES
static void dx_row(row_arrays r, bool silu, bool add)
{
    if (silu && add) {
        dx_elements(&r, true, true);
    } else if (silu) {
        dx_elements(&r, true, false);
    } else if (add) {
        dx_elements(&r, false, true);
    } else {
        dx_elements(&r, false, false);
    }
}

/* spread_values: mean, rstd, m1, m2, each a line of C. */
static row_arrays arrays_of(const norm_job *j, int64_t row, const float *spread_values)
{
    const int64_t line = dr_cpu_lines(j->c);
    return (row_arrays){.x = j->x + row * j->c,
                        .dy = j->dy + row * j->c,
                        .gamma = j->gamma,
                        .beta = j->beta,
                        .mean = spread_values,
                        .rstd = spread_values + line,
                        .m1 = spread_values + 2 * line,
                        .m2 = spread_values + 3 * line,
                        .dx = j->y != NULL ? j->y + row * j->c : NULL,
                        .c = j->c};
}

static void sums_task(const void *job, int64_t i, int thread)
{
    const norm_job *j = job;
    const block_rows b = rows_of(j, i);
    float *mean = j->scratch + thread * j->scratch_floats;
    float *rstd = mean + dr_cpu_lines(j->c);
    float *sum_dz = j->columns + i * 2 * j->c;
    spread(j, j->stats, b.sample, mean, rstd);
    memset(sum_dz, 0, 2 * (size_t)j->c * sizeof *sum_dz);
    for (int64_t r = b.first; r < b.first + b.rows; r++) {
        sum_row(arrays_of(j, r, mean), sum_dz, sum_dz + j->c, j->silu);
    }
}

/* Task: one group of one sample. Totals of its columns go to the sample's block 0. */
static void merge_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const norm_job *j = job;
    const int64_t sample = i / j->groups;
    const int64_t c0 = i % j->groups * j->per_group;
    double m1 = 0.0;
    double m2 = 0.0;
    for (int64_t c = c0; c < c0 + j->per_group; c++) {
        float *first = j->columns + sample * j->n_blocks * 2 * j->c + c;
        double dz = 0.0;
        double dzx = 0.0;
        for (int64_t b = 0; b < j->n_blocks; b++) {
            dz += (double)first[b * 2 * j->c];
            dzx += (double)first[b * 2 * j->c + j->c];
        }
        m1 += dz * (double)j->gamma[c];
        m2 += dzx * (double)j->gamma[c];
        first[0] = (float)dz;
        first[j->c] = (float)dzx;
    }
    const double count = (double)(j->s * j->per_group);
    j->means[2 * i] = (float)(m1 / count);
    j->means[2 * i + 1] = (float)(m2 / count);
}

static void dx_task(const void *job, int64_t i, int thread)
{
    const norm_job *j = job;
    const block_rows b = rows_of(j, i);
    const int64_t line = dr_cpu_lines(j->c);
    float *values = j->scratch + thread * j->scratch_floats;
    spread(j, j->stats, b.sample, values, values + line);
    spread(j, j->means, b.sample, values + 2 * line, values + 3 * line);
    for (int64_t r = b.first; r < b.first + b.rows; r++) {
        dx_row(arrays_of(j, r, values), j->silu, j->add);
    }
}

size_t dr_cpu_groupnorm_backward_work(const dr_context *cx, const dr_groupnorm_backward_args *a)
{
    const norm_job j = plan(a->x, a->groups);
    const int64_t floats = dr_cpu_lines(j.samples * j.n_blocks * 2 * j.c) +
                           dr_cpu_lines(j.samples * j.groups * 2) + j.scratch_floats * cx->threads;
    return (size_t)floats * sizeof(float);
}

dr_status dr_cpu_groupnorm_backward(dr_context *cx, const dr_groupnorm_backward_args *a)
{
    norm_job j = plan(a->x, a->groups);
    j.x = a->x->data;
    j.dy = a->dy->data;
    j.gamma = a->gamma->data;
    j.beta = a->beta->data;
    j.stats = a->stats->data;
    j.silu = a->silu;
    j.columns = cx->work;
    j.means = j.columns + dr_cpu_lines(j.samples * j.n_blocks * 2 * j.c);
    j.scratch = j.means + dr_cpu_lines(j.samples * j.groups * 2);
    dr_cpu_run(cx, j.samples * j.n_blocks, sums_task, &j);
    dr_cpu_run(cx, j.samples * j.groups, merge_task, &j);
    if (a->dx != NULL) {
        j.y = a->dx->data;
        j.add = a->mode == DR_ADD;
        dr_cpu_run(cx, j.samples * j.n_blocks, dx_task, &j);
    }
    if (a->dgamma != NULL) {
        float *dgamma = a->dgamma->data;
        float *dbeta = a->dbeta->data;
        for (int64_t n = 0; n < j.samples; n++) {
            const float *total = j.columns + n * j.n_blocks * 2 * j.c;
            for (int64_t c = 0; c < j.c; c++) {
                dbeta[c] += total[c];
                dgamma[c] += total[j.c + c];
            }
        }
    }
    return DR_OK;
}
