/*
 * backend/cuda/cuda_cast.cu - conversions (ops/cast.h). Stochastic rounding takes its integers from
 * Philox4x32-10 (base/philox.h) of the element's block, so neither launches nor pieces matter.
 */
#include "backend/cuda/cuda_internal.cuh"

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
    static __device__ __forceinline__ uint32_t high(uint32_t a, uint32_t b)
    {
        return static_cast<uint32_t>(static_cast<uint64_t>(a) * b >> 32);
    }
    __device__ void draw(uint64_t block, uint32_t c[4]) const
    {
        uint32_t k0 = key0;
        uint32_t k1 = key1;
        c[0] = 0;
        c[1] = time;
        c[2] = static_cast<uint32_t>(block);
        c[3] = static_cast<uint32_t>(block >> 32);
        for (int round = 0; round < 10; round++) {
            const uint32_t low0 = 0xD2511F53u * c[0];
            const uint32_t low1 = 0xCD9E8D57u * c[2];
            const uint32_t next0 = high(0xCD9E8D57u, c[2]) ^ c[1] ^ k0;
            const uint32_t next2 = high(0xD2511F53u, c[0]) ^ c[3] ^ k1;
            c[0] = next0;
            c[1] = low1;
            c[2] = next2;
            c[3] = low0;
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
    }
    __device__ void operator()(int64_t block) const
    {
        uint32_t random[4];
        draw(first_block + static_cast<uint64_t>(block), random);
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
