#include "ops/layout.h"
#include "backend/ref/ref_internal.h"

#include <string.h>

dr_status DR_REF(concat)(dr_context *cx, const dr_concat_args *a)
{
    const int64_t ca = dr_cols(a->a);
    const int64_t cb = dr_cols(a->b);
#pragma omp parallel for num_threads(cx->threads) schedule(static)
    for (int64_t r = 0; r < dr_rows(a->y); r++) {
        dr_real *y = dr_ref_data(a->y) + r * (ca + cb);
        memcpy(y, dr_ref_data(a->a) + r * ca, sizeof(dr_real) * (size_t)ca);
        memcpy(y + ca, dr_ref_data(a->b) + r * cb, sizeof(dr_real) * (size_t)cb);
    }
    return DR_OK;
}

dr_status DR_REF(split)(dr_context *cx, const dr_split_args *a)
{
    const int64_t ca = a->ca;
    const int64_t cb = dr_cols(a->dy) - ca;
    dr_real *da = dr_ref_data(a->da);
    dr_real *db = dr_ref_data(a->db);
#pragma omp parallel for num_threads(cx->threads) schedule(static)
    for (int64_t r = 0; r < dr_rows(a->dy); r++) {
        const dr_real *dy = dr_ref_data(a->dy) + r * (ca + cb);
        for (int64_t c = 0; c < ca && da != NULL; c++) {
            dr_ref_put(&da[r * ca + c], dy[c], a->mode_a);
        }
        for (int64_t c = 0; c < cb && db != NULL; c++) {
            dr_ref_put(&db[r * cb + c], dy[ca + c], a->mode_b);
        }
    }
    return DR_OK;
}

dr_status DR_REF(swap)(dr_context *cx, const dr_swap_args *a)
{
    const int64_t *d = a->x->dim;
#pragma omp parallel for num_threads(cx->threads) schedule(static)
    for (int64_t r = 0; r < dr_rows(a->x); r++) {
        const int64_t to = (r / (d[1] * d[2]) * d[2] + r % d[2]) * d[1] + r / d[2] % d[1];
        memcpy(dr_ref_data(a->y) + to * d[3], dr_ref_data(a->x) + r * d[3],
               sizeof(dr_real) * (size_t)d[3]);
    }
    return DR_OK;
}

/* y(n,h,w) = x(n, h/2, w/2) */
dr_status DR_REF(upsample2x)(dr_context *cx, const dr_upsample2x_args *a)
{
    const int64_t wide = a->y->dim[2];
    const int64_t channels = dr_cols(a->x);
#pragma omp parallel for num_threads(cx->threads) schedule(static)
    for (int64_t r = 0; r < dr_rows(a->y); r++) {
        const int64_t line = r / wide / 2; /* n H + h/2, because the height of y is even */
        const int64_t from = line * a->x->dim[2] + r % wide / 2;
        memcpy(dr_ref_data(a->y) + r * channels, dr_ref_data(a->x) + from * channels,
               sizeof(dr_real) * (size_t)channels);
    }
    return DR_OK;
}

/* dx(n,h,w) = sum of the 2x2 block of dy that was copied from it */
dr_status DR_REF(upsample2x_backward)(dr_context *cx, const dr_upsample2x_backward_args *a)
{
    const int64_t channels = dr_cols(a->dx);
    const int64_t width = a->dx->dim[2];
#pragma omp parallel for num_threads(cx->threads) schedule(static)
    for (int64_t r = 0; r < dr_rows(a->dx); r++) {
        const int64_t first = 2 * (r / width) * 2 * width + 2 * (r % width);
        const dr_real *top = dr_ref_data(a->dy) + first * channels;
        const dr_real *bottom = top + 2 * width * channels;
        dr_real *dx = dr_ref_data(a->dx) + r * channels;
        for (int64_t c = 0; c < channels; c++) {
            const dr_real sum = (top[c] + top[channels + c]) + (bottom[c] + bottom[channels + c]);
            dr_ref_put(&dx[c], sum, a->mode);
        }
    }
    return DR_OK;
}
