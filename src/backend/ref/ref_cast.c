#include "ops/cast.h"
#include "backend/ref/ref_internal.h"

#include <string.h>

/* Adds the random integer to the bits of x and cuts off. */
static uint16_t round_stochastic(float x, uint16_t random)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return isfinite(x) ? (uint16_t)((bits + random) >> 16) : dr_f32_to_bf16(x);
}

enum { BLOCK = 8 };

static void cast_stochastic(const dr_cast_args *a, int64_t at, int64_t n)
{
    const float *x = (const float *)a->x->data + at;
    uint16_t *y = (uint16_t *)a->y->data + at;
    uint16_t random[BLOCK];
    dr_cast_random(a, (a->first + (uint64_t)at) / BLOCK, random);
    for (int64_t i = 0; i < n; i++) {
        y[i] = round_stochastic(x[i], random[i]);
    }
}

dr_status DR_REF(cast)(dr_context *cx, const dr_cast_args *a)
{
    const int64_t n = dr_numel(a->x);
    const int64_t from = (int64_t)dr_dtype_size(a->x->dtype);
    const int64_t to = (int64_t)dr_dtype_size(a->y->dtype);
#pragma omp parallel for num_threads(cx->threads) schedule(static)
    for (int64_t at = 0; at < n; at += BLOCK) {
        const int64_t part = n - at < BLOCK ? n - at : BLOCK;
        if (a->stochastic) {
            cast_stochastic(a, at, part);
        } else {
            dr_convert((char *)a->y->data + at * to, a->y->dtype,
                       (const char *)a->x->data + at * from, a->x->dtype, (size_t)part);
        }
    }
    return DR_OK;
}
