/*
 * backend/cuda/cuda_cast.cu - conversions (ops/cast.h). Stochastic rounding takes its integers from
 * Philox4x32-10 (base/philox.h) of the element's block, so neither launches nor pieces matter.
 */
#include "backend/cuda/cuda_philox.cuh"

#include <cstring>

extern "C" {
#include "base/philox.h"
#include "ops/cast.h"
}

template <typename X, typename Y> struct convert {
    const X *x;
    Y *y;
    __device__ void operator()(int64_t i) const
    {
        dr_put(y, i, dr_get(x, i));
    }
};

template <typename X> static dr_status convert_from(const dr_cast_args *a)
{
    DR_CUDA_WITH_TYPE(
        a->y->dtype,
        return dr_each(dr_numel(a->x), convert<X, T>{dr_data<const X>(a->x), dr_data<T>(a->y)}));
}

/* One thread per block of 8 elements. */
struct round_stochastically {
    const float *x;
    uint16_t *y;
    int64_t n;
    uint64_t first_block;
    uint32_t key0, key1, time;
    __device__ void operator()(int64_t block) const
    {
        uint32_t random[4];
        dr_philox_block(0, time, first_block + static_cast<uint64_t>(block), key0, key1, random);
        for (int k = 0; k < 8 && 8 * block + k < n; k++) {
            const int64_t i = 8 * block + k;
            const uint32_t r = random[k / 2] >> 16 * (k % 2) & 0xffffu;
            uint32_t u;
            memcpy(&u, &x[i], sizeof u);
            const bool special = (u & 0x7f800000u) == 0x7f800000u; /* infinity, NaN */
            const uint32_t kept = u >> 16 | ((u & 0x7fffffu) != 0 ? 0x40u : 0u);
            y[i] = static_cast<uint16_t>(special ? kept : (u + r) >> 16);
        }
    }
};

static dr_status round_to_bf16(const dr_cast_args *a)
{
    dr_philox p;
    dr_philox_init(&p, a->seed, DR_RANDOM_ROUNDING, a->time, 0);
    const int64_t n = dr_numel(a->x);
    return dr_each((n + 7) / 8, round_stochastically{dr_floats(a->x), dr_data<uint16_t>(a->y), n,
                                                     a->first / 8, p.key[0], p.key[1], a->time});
}

dr_status dr_cuda_cast(dr_context *, const dr_cast_args *a)
{
    if (a->stochastic) {
        return round_to_bf16(a);
    }
    DR_CUDA_WITH_TYPE(a->x->dtype, return convert_from<T>(a));
}
