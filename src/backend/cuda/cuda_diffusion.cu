/*
 * backend/cuda/cuda_diffusion.cu - noising, loss, posterior sampling (ops/diffusion_ops.h).
 */
#include "backend/cuda/cuda_internal.cuh"

extern "C" {
#include "ops/diffusion_ops.h"
}

template <typename T> struct blend {
    const T *x, *z;
    const float *a, *b; /* (N) */
    T *y;
    int64_t elems; /* of a sample */
    __device__ void operator()(int64_t i) const
    {
        const int64_t n = i / elems;
        dr_put(y, i, a[n] * dr_get(x, i) + b[n] * dr_get(z, i));
    }
};

dr_status dr_cuda_mix(dr_context *, const dr_mix_args *a)
{
    DR_CUDA_WITH_TYPE(
        a->x->dtype,
        return dr_each(dr_numel(a->x),
                       blend<T>{dr_data<T>(a->x), dr_data<T>(a->z), dr_floats(a->a),
                                dr_floats(a->b), dr_data<T>(a->y), dr_numel(a->x) / a->x->dim[0]}));
}

/* Errors: parts of a sample by blocks of 256 threads, then the parts in their order. */
enum { MSE_THREADS = 256, MSE_PARTS = 32 };

template <typename T> struct squared_error {
    const T *pred, *target;
    const float *weight, *mask; /* (N); one per pixel, or NULL */
    T *dpred;                   /* or NULL */
    int64_t elems, channels;    /* of a sample, of a pixel */
    double *part;               /* (N,MSE_PARTS) */
    dr_loss_kind kind;
    const float *threshold; /* (N), or NULL */
};

__device__ static double loss_of(dr_loss_kind kind, double d, double c)
{
    switch (kind) {
    case DR_LOSS_L1:
        return fabs(d);
    case DR_LOSS_HUBER:
        return 2.0 * c * (sqrt(d * d + c * c) - c);
    case DR_LOSS_SMOOTH_L1:
        return 2.0 * (sqrt(d * d + c * c) - c);
    default:
        return d * d;
    }
}

/* Half of its derivative by d. */
__device__ static float half_slope_of(dr_loss_kind kind, float d, float c)
{
    if (kind == DR_LOSS_L2) {
        return d;
    }
    if (kind == DR_LOSS_L1) {
        return d > 0.0f ? 0.5f : d < 0.0f ? -0.5f : 0.0f;
    }
    const float root = sqrtf(d * d + c * c);
    return root > 0.0f ? (kind == DR_LOSS_HUBER ? c : 1.0f) * d / root : 0.0f;
}

template <typename T> __global__ void mse_kernel(squared_error<T> e)
{
    DR_SHARED(double, scratch, 0, MSE_THREADS / 32);
    const int64_t first = blockIdx.y * e.elems;
    const float factor = static_cast<float>(static_cast<double>(e.weight[blockIdx.y]) * 2.0 /
                                            static_cast<double>(e.elems));
    const float c = e.threshold != nullptr ? e.threshold[blockIdx.y] : 0.0f;
    double sum = 0.0;
    for (int64_t i = first + static_cast<int64_t>(blockIdx.x) * MSE_THREADS + threadIdx.x;
         i < first + e.elems; i += MSE_PARTS * MSE_THREADS) {
        const float m = e.mask != nullptr ? e.mask[i / e.channels] : 1.0f;
        const float d = dr_get(e.pred, i) - dr_get(e.target, i);
        sum += static_cast<double>(m) *
               loss_of(e.kind, static_cast<double>(d), static_cast<double>(c));
        if (e.dpred != nullptr) {
            dr_put(e.dpred, i, factor * m * half_slope_of(e.kind, d, c));
        }
    }
    sum = dr_block_sum(sum, scratch);
    if (threadIdx.x == 0) {
        e.part[static_cast<int64_t>(blockIdx.y) * MSE_PARTS + blockIdx.x] = sum;
    }
}

struct mean_of_parts {
    const double *part;
    float *loss;
    int64_t elems;
    __device__ void operator()(int64_t n) const
    {
        double sum = 0.0;
        for (int i = 0; i < MSE_PARTS; i++) {
            sum += part[n * MSE_PARTS + i];
        }
        loss[n] = static_cast<float>(sum / static_cast<double>(elems));
    }
};

size_t dr_cuda_mse_work_bytes(const dr_mse_args *a)
{
    return sizeof(double) * MSE_PARTS * static_cast<size_t>(a->pred->dim[0]);
}

template <typename T> static dr_status mse(dr_context *cx, const dr_mse_args *a)
{
    const int64_t n = a->pred->dim[0];
    const int64_t elems = dr_numel(a->pred) / n;
    double *part = static_cast<double *>(cx->work);
    const squared_error<T> e = {dr_data<const T>(a->pred),
                                dr_data<const T>(a->target),
                                dr_floats(a->weight),
                                dr_floats(a->mask),
                                dr_data<T>(a->dpred),
                                elems,
                                dr_cols(a->pred),
                                part,
                                a->kind,
                                dr_floats(a->threshold)};
    DR_TRY(DR_LAUNCH((mse_kernel<T>), dim3(MSE_PARTS, static_cast<unsigned>(n)), dim3(MSE_THREADS),
                     MSE_THREADS / 32 * sizeof(double), dr_cuda_stream(), e));
    return dr_each(n, mean_of_parts{part, dr_data<float>(a->loss), elems});
}

dr_status dr_cuda_mse(dr_context *cx, const dr_mse_args *a)
{
    DR_CUDA_WITH_TYPE(a->pred->dtype, return mse<T>(cx, a));
}

template <typename T> struct sample {
    const T *moments, *noise;
    T *z;
    int64_t channels;
    __device__ void operator()(int64_t r, int64_t c) const
    {
        const float mean = dr_get(moments, r * 2 * channels + c);
        const float logvar =
            fminf(fmaxf(dr_get(moments, r * 2 * channels + channels + c), -30.0f), 20.0f);
        dr_put(z, r * channels + c,
               noise != nullptr ? mean + expf(logvar / 2.0f) * dr_get(noise, r * channels + c)
                                : mean);
    }
};

dr_status dr_cuda_posterior_sample(dr_context *, const dr_posterior_sample_args *a)
{
    const int64_t channels = dr_cols(a->z);
    DR_CUDA_WITH_TYPE(a->z->dtype,
                      return dr_grid(dr_rows(a->z), channels,
                                     sample<T>{dr_data<T>(a->moments), dr_data<T>(a->noise),
                                               dr_data<T>(a->z), channels}));
}
