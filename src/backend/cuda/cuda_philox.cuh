/*
 * backend/cuda/cuda_philox.cuh - Philox4x32-10 (base/philox.h) in kernels. Private.
 */
#ifndef DR_CUDA_PHILOX_CUH
#define DR_CUDA_PHILOX_CUH

#include "backend/cuda/cuda_internal.cuh"

static __device__ __forceinline__ uint32_t dr_high(uint32_t a, uint32_t b)
{
    return static_cast<uint32_t>(static_cast<uint64_t>(a) * b >> 32);
}

/* Block `index` of the stream (time, item), whose key dr_philox_init makes. */
static __device__ __forceinline__ void dr_philox_block(uint32_t index, uint32_t time, uint64_t item,
                                                       uint32_t k0, uint32_t k1, uint32_t c[4])
{
    c[0] = index;
    c[1] = time;
    c[2] = static_cast<uint32_t>(item);
    c[3] = static_cast<uint32_t>(item >> 32);
    for (int round = 0; round < 10; round++) {
        const uint32_t low0 = 0xD2511F53u * c[0];
        const uint32_t low1 = 0xCD9E8D57u * c[2];
        const uint32_t next0 = dr_high(0xCD9E8D57u, c[2]) ^ c[1] ^ k0;
        const uint32_t next2 = dr_high(0xD2511F53u, c[0]) ^ c[3] ^ k1;
        c[0] = next0;
        c[1] = low1;
        c[2] = next2;
        c[3] = low0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

#endif
