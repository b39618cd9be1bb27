/*
 * backend/cuda/cuda_sums.cuh - sums in double over flat memory, the same bits on every run.
 * Private.
 */
#ifndef DR_CUDA_SUMS_CUH
#define DR_CUDA_SUMS_CUH

#include "backend/cuda/cuda_internal.cuh"

enum { DR_SUMS_THREADS = 256, DR_SUMS_PARTS = 512 };

/* f(i, sum) adds its F::K terms of element i = 0 .. n-1, and may update the element. Part p sums
 * elements p T + t + k P T, each thread in order, threads by the block's tree. */
template <typename F> __global__ void dr_flat_sums_kernel(int64_t n, double *part, F f)
{
    DR_SHARED(double, scratch, 0, DR_SUMS_THREADS / 32);
    double sum[F::K] = {};
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * DR_SUMS_THREADS + threadIdx.x; i < n;
         i += static_cast<int64_t>(gridDim.x) * DR_SUMS_THREADS) {
        f(i, sum);
    }
    for (int k = 0; k < F::K; k++) {
        const double total = dr_block_sum(sum[k], scratch);
        if (threadIdx.x == 0) {
            part[blockIdx.x * F::K + k] = total;
        }
    }
}

/* The parts in their order. */
struct dr_flat_finish {
    const double *part;
    double *out;
    int64_t parts, n_sums;
    bool add;
    __device__ void operator()(int64_t k) const
    {
        double sum = 0.0;
        for (int64_t i = 0; i < parts; i++) {
            sum += part[i * n_sums + k];
        }
        out[k] = add ? out[k] + sum : sum;
    }
};

static inline unsigned dr_flat_parts(int64_t n)
{
    return n > 0 ? dr_blocks(n, DR_SUMS_THREADS, DR_SUMS_PARTS) : 1;
}

static inline size_t dr_flat_sums_bytes(int64_t n, int n_sums)
{
    return sizeof(double) * dr_flat_parts(n) * static_cast<size_t>(n_sums);
}

/* out[k] = or += the sums; work: dr_flat_sums_bytes(n, F::K). */
template <typename F>
static dr_status dr_flat_sums(int64_t n, void *work, double *out, bool add, F f)
{
    double *part = static_cast<double *>(work);
    const unsigned parts = dr_flat_parts(n);
    DR_TRY(DR_LAUNCH((dr_flat_sums_kernel<F>), dim3(parts), dim3(DR_SUMS_THREADS),
                     DR_SUMS_THREADS / 32 * sizeof(double), dr_cuda_stream(), n, part, f));
    return dr_each(F::K, dr_flat_finish{part, out, parts, F::K, add});
}

#endif
