/*
 * backend/cuda/cuda_optimizer.cu - sums of squares and AdamW over flat memory
 * (ops/optimizer_ops.h).
 *
 * Parameters of a model lie next to each other, so one launch updates all of them.
 */
#include "backend/cuda/cuda_internal.cuh"

extern "C" {
#include "ops/optimizer_ops.h"
}

enum { SUMSQ_THREADS = 256, SUMSQ_PARTS = 512 };

/* Part p: elements p T + t + i P T, each thread in order, threads by the block's tree. */
template <typename T> __global__ void sumsq_kernel(const T *x, int64_t n, double *part)
{
    DR_SHARED(double, scratch, 0, SUMSQ_THREADS / 32);
    double sum = 0.0;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * SUMSQ_THREADS + threadIdx.x; i < n;
         i += SUMSQ_PARTS * SUMSQ_THREADS) {
        const double v = static_cast<double>(dr_get(x, i));
        sum += v * v;
    }
    sum = dr_block_sum(sum, scratch);
    if (threadIdx.x == 0) {
        part[blockIdx.x] = sum;
    }
}

struct add_parts {
    const double *part;
    double *out;
    int64_t n;
    __device__ void operator()(int64_t) const
    {
        double sum = 0.0;
        for (int64_t i = 0; i < n; i++) {
            sum += part[i];
        }
        out[0] += sum;
    }
};

static unsigned sumsq_parts(const dr_sumsq_args *a)
{
    return dr_blocks(dr_numel(a->x), SUMSQ_THREADS, SUMSQ_PARTS);
}

size_t dr_cuda_sumsq_work_bytes(const dr_sumsq_args *a)
{
    return sizeof(double) * sumsq_parts(a);
}

dr_status dr_cuda_sumsq(dr_context *cx, const dr_sumsq_args *a)
{
    double *part = static_cast<double *>(cx->work);
    const unsigned parts = sumsq_parts(a);
    DR_CUDA_WITH_TYPE(a->x->dtype,
                      DR_TRY(DR_LAUNCH((sumsq_kernel<T>), dim3(parts), dim3(SUMSQ_THREADS),
                                       SUMSQ_THREADS / 32 * sizeof(double), dr_cuda_stream(),
                                       dr_data<const T>(a->x), dr_numel(a->x), part)));
    return dr_each(1, add_parts{part, dr_data<double>(a->out), parts});
}

/* PyTorch's lerp of its CPU kernels: one rounding. */
static __device__ __forceinline__ float lerp_of(float from, float to, float weight)
{
    return fabsf(weight) < 0.5f ? fmaf(weight, to - from, from)
                                : fmaf(weight - 1.0f, to - from, to);
}

/* The settings of an op are doubles: products of them are rounded once, on the host. */
static float once(double x)
{
    return static_cast<float>(x);
}

template <typename T> struct adamw {
    float decay, rate1, beta2, new2, step_size, root2, eps, scale;
    T *p, *m, *v;
    const T *grad;
    __device__ void operator()(int64_t i) const
    {
        const float g = scale * dr_get(grad, i);
        const float m1 = lerp_of(dr_get(m, i), g, rate1);
        const float v1 = fmaf(new2 * g, g, beta2 * dr_get(v, i));
        dr_put(m, i, m1);
        dr_put(v, i, v1);
        dr_put(p, i, decay * dr_get(p, i) + step_size * m1 / (sqrtf(v1) / root2 + eps));
    }
};

dr_status dr_cuda_adamw(dr_context *, const dr_adamw_args *a)
{
    const double step = static_cast<double>(a->step);
    const float step_size = once(-(a->lr / (1.0 - pow(a->beta1, step))));
    const float root2 = once(sqrt(1.0 - pow(a->beta2, step)));
    DR_CUDA_WITH_TYPE(
        a->p->dtype,
        return dr_each(dr_numel(a->p),
                       adamw<T>{once(1.0 - a->lr * a->weight_decay), once(1.0 - a->beta1),
                                once(a->beta2), once(1.0 - a->beta2), step_size, root2,
                                once(a->eps), once(a->grad_scale), dr_data<T>(a->p),
                                dr_data<T>(a->m), dr_data<T>(a->v), dr_data<T>(a->g)}));
}

template <typename T> struct lerp {
    float weight;
    const T *x;
    T *y;
    __device__ void operator()(int64_t i) const
    {
        dr_put(y, i, lerp_of(dr_get(y, i), dr_get(x, i), weight));
    }
};

dr_status dr_cuda_lerp(dr_context *, const dr_lerp_args *a)
{
    DR_CUDA_WITH_TYPE(a->y->dtype,
                      return dr_each(dr_numel(a->y),
                                     lerp<T>{once(a->weight), dr_data<T>(a->x), dr_data<T>(a->y)}));
}

template <typename T> struct momentum {
    float weight_decay, scale, new_rate, keep, lr;
    bool first, nesterov;
    T *p, *m;
    const T *grad;
    __device__ void operator()(int64_t i) const
    {
        const float g = fmaf(weight_decay, dr_get(p, i), scale * dr_get(grad, i));
        const float m1 = first ? g : fmaf(new_rate, g, keep * dr_get(m, i));
        dr_put(m, i, m1);
        dr_put(p, i, fmaf(-lr, nesterov ? fmaf(keep, m1, g) : m1, dr_get(p, i)));
    }
};

dr_status dr_cuda_momentum(dr_context *, const dr_momentum_args *a)
{
    DR_CUDA_WITH_TYPE(
        a->p->dtype,
        return dr_each(dr_numel(a->p),
                       momentum<T>{once(a->weight_decay), once(a->grad_scale),
                                   once(1.0 - a->dampening), once(a->momentum), once(a->lr),
                                   a->first, a->nesterov, dr_data<T>(a->p), dr_data<T>(a->m),
                                   dr_data<T>(a->g)}));
}
