/* Sums over rows: biases, time embeddings. One task owns its columns. */
#include "backend/cpu/cpu_internal.h"

enum { COLUMNS = 32, ROWS = 64 };

typedef struct columns_job {
    const float *x;
    float *out;
    int64_t rows, cols, n_blocks; /* of one sample */
    bool add;
} columns_job;

DR_CPU_CLONES
static void sum_columns(const float *restrict x, int64_t rows, int64_t ld, int64_t cols,
                        double *restrict sum)
{
    for (int64_t r0 = 0; r0 < rows; r0 += ROWS) {
        float part[COLUMNS] = {0.0f};
        const int64_t end = dr_cpu_min(rows, r0 + ROWS);
        for (int64_t r = r0; r < end; r++) {
            for (int64_t c = 0; c < cols; c++) {
                part[c] += x[r * ld + c];
            }
        }
        for (int64_t c = 0; c < cols; c++) {
            sum[c] += (double)part[c];
        }
    }
}

static void columns_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const columns_job *j = job;
    const int64_t sample = i / j->n_blocks;
    const int64_t c0 = i % j->n_blocks * COLUMNS;
    const int64_t cols = dr_cpu_min(COLUMNS, j->cols - c0);
    double sum[COLUMNS] = {0.0};
    sum_columns(j->x + sample * j->rows * j->cols + c0, j->rows, j->cols, cols, sum);
    float *out = j->out + sample * j->cols + c0;
    for (int64_t c = 0; c < cols; c++) {
        out[c] = j->add ? out[c] + (float)sum[c] : (float)sum[c];
    }
}

void dr_cpu_column_sums(const dr_context *cx, const float *x, int64_t rows, int64_t cols,
                        float *out)
{
    const columns_job j = {x, out, rows, cols, dr_cpu_ceil_div(cols, COLUMNS), true};
    dr_cpu_run(cx, j.n_blocks, columns_task, &j);
}

dr_status dr_cpu_sum_rows(dr_context *cx, const dr_sum_rows_args *a)
{
    const int64_t samples = a->dt->dim[0];
    const int64_t cols = dr_cols(a->dy);
    const columns_job j = {a->dy->data,
                           a->dt->data,
                           dr_rows(a->dy) / samples,
                           cols,
                           dr_cpu_ceil_div(cols, COLUMNS),
                           a->mode == DR_ADD};
    dr_cpu_run(cx, samples * j.n_blocks, columns_task, &j);
    return DR_OK;
}
