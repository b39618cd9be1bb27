#include "backend/cpu/cpu_internal.h"

#include <string.h>

typedef struct columns_job {
    const dr_tensor *a, *b, *y; /* the two parts and the whole */
    int64_t rows, ca, cb, block;
    bool add_a, add_b;
} columns_job;

static void concat_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const columns_job *j = job;
    const int64_t end = dr_cpu_min(j->rows, (i + 1) * j->block);
    const float *a = j->a->data;
    const float *b = j->b->data;
    for (int64_t r = i * j->block; r < end; r++) {
        float *y = (float *)j->y->data + r * (j->ca + j->cb);
        memcpy(y, a + r * j->ca, (size_t)j->ca * sizeof *y);
        memcpy(y + j->ca, b + r * j->cb, (size_t)j->cb * sizeof *y);
    }
}

dr_status dr_cpu_concat(dr_context *cx, const dr_concat_args *a)
{
    const columns_job j = {.a = a->a,
                           .b = a->b,
                           .y = a->y,
                           .rows = dr_rows(a->y),
                           .ca = dr_cols(a->a),
                           .cb = dr_cols(a->b),
                           .block = dr_cpu_row_block(dr_cols(a->y))};
    dr_cpu_run(cx, dr_cpu_ceil_div(j.rows, j.block), concat_task, &j);
    return DR_OK;
}

DR_CPU_CLONES
static void write_row(float *restrict dst, const float *restrict src, int64_t n, bool add)
{
    if (add) {
        for (int64_t i = 0; i < n; i++) {
            dst[i] += src[i];
        }
    } else {
        memcpy(dst, src, (size_t)n * sizeof *dst);
    }
}

static void split_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const columns_job *j = job;
    const int64_t end = dr_cpu_min(j->rows, (i + 1) * j->block);
    for (int64_t r = i * j->block; r < end; r++) {
        const float *y = (const float *)j->y->data + r * (j->ca + j->cb);
        if (j->a != NULL) {
            write_row((float *)j->a->data + r * j->ca, y, j->ca, j->add_a);
        }
        if (j->b != NULL) {
            write_row((float *)j->b->data + r * j->cb, y + j->ca, j->cb, j->add_b);
        }
    }
}

dr_status dr_cpu_split(dr_context *cx, const dr_split_args *a)
{
    const columns_job j = {.a = a->da,
                           .b = a->db,
                           .y = a->dy,
                           .rows = dr_rows(a->dy),
                           .ca = a->ca,
                           .cb = dr_cols(a->dy) - a->ca,
                           .block = dr_cpu_row_block(dr_cols(a->dy)),
                           .add_a = a->mode_a == DR_ADD,
                           .add_b = a->mode_b == DR_ADD};
    dr_cpu_run(cx, dr_cpu_ceil_div(j.rows, j.block), split_task, &j);
    return DR_OK;
}

/* Row r of x, (A,P,Q), is row (A,Q,P) of y. */
static void swap_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const dr_swap_args *a = job;
    const int64_t *d = a->x->dim;
    const int64_t block = dr_cpu_row_block(d[3]);
    const int64_t end = dr_cpu_min(dr_rows(a->x), (i + 1) * block);
    const float *x = a->x->data;
    float *y = a->y->data;
    for (int64_t r = i * block; r < end; r++) {
        const int64_t to = (r / (d[1] * d[2]) * d[2] + r % d[2]) * d[1] + r / d[2] % d[1];
        memcpy(y + to * d[3], x + r * d[3], (size_t)d[3] * sizeof *y);
    }
}

dr_status dr_cpu_swap(dr_context *cx, const dr_swap_args *a)
{
    dr_cpu_run(cx, dr_cpu_ceil_div(dr_rows(a->x), dr_cpu_row_block(dr_cols(a->x))), swap_task, a);
    return DR_OK;
}

typedef struct upsample_job {
    const float *src;
    float *dst;
    int64_t w, c; /* of the small image */
    bool add;
} upsample_job;

/* Task: one row of the small image, two of the large one. */
static void upsample_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const upsample_job *j = job;
    const size_t pixel_bytes = (size_t)j->c * sizeof(float);
    float *dst = j->dst + i * 4 * j->w * j->c;
    for (int64_t w = 0; w < j->w; w++) {
        const float *src = j->src + (i * j->w + w) * j->c;
        memcpy(dst + 2 * w * j->c, src, pixel_bytes);
        memcpy(dst + (2 * w + 1) * j->c, src, pixel_bytes);
    }
    memcpy(dst + 2 * j->w * j->c, dst, 2 * (size_t)j->w * pixel_bytes);
}

dr_status dr_cpu_upsample2x(dr_context *cx, const dr_upsample2x_args *a)
{
    const upsample_job j = {
        .src = a->x->data, .dst = a->y->data, .w = a->x->dim[2], .c = a->x->dim[3]};
    dr_cpu_run(cx, a->x->dim[0] * a->x->dim[1], upsample_task, &j);
    return DR_OK;
}

DR_CPU_CLONES
static void fold_pixel(float *restrict dx, const float *restrict top, const float *restrict bottom,
                       int64_t c, bool add)
{
    for (int64_t k = 0; k < c; k++) {
        const float d = (top[k] + top[c + k]) + (bottom[k] + bottom[c + k]);
        dx[k] = add ? dx[k] + d : d;
    }
}

static void upsample_backward_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const upsample_job *j = job;
    const float *top = j->src + i * 4 * j->w * j->c;
    const float *bottom = top + 2 * j->w * j->c;
    for (int64_t w = 0; w < j->w; w++) {
        fold_pixel(j->dst + (i * j->w + w) * j->c, top + 2 * w * j->c, bottom + 2 * w * j->c, j->c,
                   j->add);
    }
}

dr_status dr_cpu_upsample2x_backward(dr_context *cx, const dr_upsample2x_backward_args *a)
{
    const upsample_job j = {.src = a->dy->data,
                            .dst = a->dx->data,
                            .w = a->dx->dim[2],
                            .c = a->dx->dim[3],
                            .add = a->mode == DR_ADD};
    dr_cpu_run(cx, a->dx->dim[0] * a->dx->dim[1], upsample_backward_task, &j);
    return DR_OK;
}
