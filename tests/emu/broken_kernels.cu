/*
 * Kernels with one mistake each, and the same without it: what the emulation must find.
 */
#include "broken_kernels.h"

#include "backend/cuda/cuda_internal.cuh"

enum { THREADS = 64 };

/* The sum of 64 numbers; the mistake is chosen by the launch. */
__global__ void sum_kernel(const float *x, float *y, dr_mistake mistake)
{
    DR_SHARED(float, tile, 0, THREADS);
    const unsigned t = threadIdx.x;
    if (mistake == DR_MISTAKE_UNSET) {
        if (t != 7) {
            tile[t] = x[t];
        }
    } else {
        tile[mistake == DR_MISTAKE_OFF_BY_ONE ? t + 1 : t] = x[t];
    }
    if (mistake == DR_MISTAKE_DIVERGENT_BARRIER) {
        if (t < 32) {
            __syncthreads();
        }
    } else {
        __syncthreads();
    }
    for (unsigned step = THREADS / 2; step > 0; step /= 2) {
        if (t < step) {
            tile[t] += tile[t + step];
        }
        if (mistake != DR_MISTAKE_NO_BARRIER) {
            __syncthreads();
        }
    }
    if (mistake == DR_MISTAKE_DIVERGENT_SHUFFLE && t == 3) {
        return;
    }
    const float mine = tile[0];
    const float total = __shfl_sync(0xffffffffu, mine, 0);
    if (t == 0) {
        y[mistake == DR_MISTAKE_PAST_THE_END ? 64 : 0] = total;
    }
}

dr_status dr_broken_sum(const void *x, void *y, dr_mistake mistake)
{
    const size_t shared = (mistake == DR_MISTAKE_TOO_LITTLE_SHARED ? 32 : THREADS) * sizeof(float);
    return DR_LAUNCH(sum_kernel, dim3(1), dim3(THREADS), shared, dr_cuda_stream(),
                     static_cast<const float *>(x), static_cast<float *>(y), mistake);
}
