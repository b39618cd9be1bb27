#include "backend/cpu/cpu_narrow.h"

#include <math.h>

enum { COLUMNS = 64 };

typedef struct embedding_job {
    const dr_embedding_args *a;
    int64_t s, c;
} embedding_job;

static dr_status check_ids(const int32_t *ids, int64_t n, int64_t vocabulary)
{
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= vocabulary) {
            DR_FAIL(DR_INVALID,
                    "token %lld of the batch is %d, expected 0 to %lld (tokenizer and text encoder "
                    "do not belong together)",
                    (long long)i, (int)ids[i], (long long)(vocabulary - 1));
        }
    }
    return DR_OK;
}

static void embedding_task(const void *job, int64_t row, int thread)
{
    (void)thread;
    const embedding_job *j = job;
    const int32_t id = ((const int32_t *)j->a->ids->data)[row];
    const dr_tensor *y = j->a->y;
    float token_buffer[COLUMNS];
    float position_buffer[COLUMNS];
    float sum[COLUMNS];
    for (int64_t c0 = 0; c0 < j->c; c0 += COLUMNS) {
        const int64_t n = dr_cpu_min(COLUMNS, j->c - c0);
        const float *token = dr_cpu_floats(j->a->tokens, id * j->c + c0, n, token_buffer);
        const float *position =
            dr_cpu_floats(j->a->positions, row % j->s * j->c + c0, n, position_buffer);
        for (int64_t c = 0; c < n; c++) {
            sum[c] = token[c] + position[c];
        }
        dr_cpu_narrow(dr_cpu_at(y->data, y->dtype, row * j->c + c0), y->dtype, sum, n);
    }
}

dr_status dr_cpu_embedding(dr_context *cx, const dr_embedding_args *a)
{
    DR_TRY(check_ids(a->ids->data, dr_numel(a->ids), a->tokens->dim[0]));
    const embedding_job j = {a, a->y->dim[1], a->y->dim[2]};
    dr_cpu_run(cx, dr_rows(a->y), embedding_task, &j);
    return DR_OK;
}

typedef struct embedding_backward_job {
    const dr_embedding_backward_args *a;
    int64_t rows, s, c;
} embedding_backward_job;

/* n numbers added to those of sums from `at` on. */
static void add_to(const dr_tensor *sums, int64_t at, const float *values, int64_t n)
{
    if (sums == NULL) {
        return;
    }
    float buffer[COLUMNS];
    void *place = dr_cpu_at(sums->data, sums->dtype, at);
    dr_cpu_widen(buffer, place, sums->dtype, n);
    for (int64_t c = 0; c < n; c++) {
        buffer[c] += values[c];
    }
    dr_cpu_narrow(place, sums->dtype, buffer, n);
}

/* Columns of both tables; rows in their order, so a token that occurs twice sums in that order. */
static void embedding_backward_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const embedding_backward_job *j = job;
    const int64_t c0 = i * COLUMNS;
    const int64_t n = dr_cpu_min(COLUMNS, j->c - c0);
    const int32_t *ids = j->a->ids->data;
    float buffer[COLUMNS];
    for (int64_t r = 0; r < j->rows; r++) {
        const float *dy = dr_cpu_floats(j->a->dy, r * j->c + c0, n, buffer);
        add_to(j->a->dtokens, ids[r] * j->c + c0, dy, n);
        add_to(j->a->dpositions, r % j->s * j->c + c0, dy, n);
    }
}

dr_status dr_cpu_embedding_backward(dr_context *cx, const dr_embedding_backward_args *a)
{
    const embedding_backward_job j = {a, dr_rows(a->dy), a->dy->dim[1], a->dy->dim[2]};
    if (a->dtokens != NULL) {
        DR_TRY(check_ids(a->ids->data, dr_numel(a->ids), a->dtokens->dim[0]));
    }
    dr_cpu_run(cx, dr_cpu_ceil_div(j.c, COLUMNS), embedding_backward_task, &j);
    return DR_OK;
}

dr_status dr_cpu_timestep_embedding(dr_context *cx, const dr_timestep_embedding_args *a)
{
    (void)cx;
    const int64_t half = a->y->dim[1] / 2;
    const float *t = a->t->data;
    for (int64_t n = 0; n < a->y->dim[0]; n++) {
        float *y = (float *)a->y->data + n * 2 * half;
        for (int64_t i = 0; i < half; i++) {
            const float exponent = -9.210340371976184f * (float)i / (float)half; /* -ln 10000 */
            const float angle = t[n] * expf(exponent);
            y[i] = cosf(angle);
            y[half + i] = sinf(angle);
        }
    }
    return DR_OK;
}
