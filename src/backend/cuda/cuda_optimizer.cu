/*
 * backend/cuda/cuda_optimizer.cu - sums of squares and the updates over flat memory that leave no
 * sums (ops/optimizer_ops.h).
 *
 * Parameters of a model lie next to each other, so one launch updates all of them.
 */
#include "backend/cuda/cuda_sums.cuh"

extern "C" {
#include "ops/optimizer_ops.h"
}

template <typename T> struct square {
    static constexpr int K = 1;
    const T *x;
    __device__ void operator()(int64_t i, double *sum) const
    {
        const double v = static_cast<double>(dr_get(x, i));
        sum[0] += v * v;
    }
};

size_t dr_cuda_sumsq_work_bytes(const dr_sumsq_args *a)
{
    return dr_flat_sums_bytes(dr_numel(a->x), 1);
}

dr_status dr_cuda_sumsq(dr_context *cx, const dr_sumsq_args *a)
{
    DR_CUDA_WITH_TYPE(a->x->dtype,
                      return dr_flat_sums(dr_numel(a->x), cx->work, dr_data<double>(a->out), true,
                                          square<T>{dr_data<const T>(a->x)}));
}

/* Sums of whole numbers below 2^53: exact in any order. */
template <typename T> struct checksum_words {
    static constexpr int K = DR_CHECKSUM_PARTS;
    const T *x;
    __device__ void operator()(int64_t i, double *sum) const
    {
        uint64_t h = x[i] ^ static_cast<uint64_t>(i + 1) * 0x9e3779b97f4a7c15U;
        h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9U;
        h = (h ^ h >> 27) * 0x94d049bb133111ebU;
        h ^= h >> 31;
        for (int k = 0; k < K; k++) {
            sum[k] += static_cast<double>(h >> 16 * k & 0xffff);
        }
    }
};

size_t dr_cuda_checksum_work_bytes(const dr_checksum_args *a)
{
    return dr_flat_sums_bytes(dr_numel(a->x), DR_CHECKSUM_PARTS);
}

dr_status dr_cuda_checksum(dr_context *cx, const dr_checksum_args *a)
{
    const int64_t n = dr_numel(a->x);
    double *out = dr_data<double>(a->out);
    if (dr_dtype_size(a->x->dtype) == sizeof(uint32_t)) {
        return dr_flat_sums(n, cx->work, out, true,
                            checksum_words<uint32_t>{dr_data<const uint32_t>(a->x)});
    }
    return dr_flat_sums(n, cx->work, out, true,
                        checksum_words<uint16_t>{dr_data<const uint16_t>(a->x)});
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

struct adamw {
    float decay, rate1, beta2, new2, step_size, root2, eps, scale;
    float *p, *m, *v;
    const float *grad;
    __device__ void operator()(int64_t i) const
    {
        const float g = scale * grad[i];
        const float m1 = lerp_of(m[i], g, rate1);
        const float v1 = fmaf(new2 * g, g, beta2 * v[i]);
        m[i] = m1;
        v[i] = v1;
        p[i] = decay * p[i] + step_size * m1 / (sqrtf(v1) / root2 + eps);
    }
};

dr_status dr_cuda_adamw(dr_context *, const dr_adamw_args *a)
{
    const double step = static_cast<double>(a->step);
    const float step_size = once(-(a->lr / (1.0 - pow(a->beta1, step))));
    const float root2 = once(sqrt(1.0 - pow(a->beta2, step)));
    return dr_each(dr_numel(a->p),
                   adamw{once(1.0 - a->lr * a->weight_decay), once(1.0 - a->beta1), once(a->beta2),
                         once(1.0 - a->beta2), step_size, root2, once(a->eps), once(a->grad_scale),
                         dr_data<float>(a->p), dr_data<float>(a->m), dr_data<float>(a->v),
                         dr_data<float>(a->g)});
}

struct lerp {
    float weight;
    const float *x;
    float *y;
    __device__ void operator()(int64_t i) const
    {
        y[i] = lerp_of(y[i], x[i], weight);
    }
};

dr_status dr_cuda_lerp(dr_context *, const dr_lerp_args *a)
{
    return dr_each(dr_numel(a->y),
                   lerp{once(a->weight), dr_data<float>(a->x), dr_data<float>(a->y)});
}

struct momentum {
    float weight_decay, scale, new_rate, keep, lr;
    bool first, nesterov;
    float *p, *m;
    const float *grad;
    __device__ void operator()(int64_t i) const
    {
        const float g = fmaf(weight_decay, p[i], scale * grad[i]);
        const float m1 = first ? g : fmaf(new_rate, g, keep * m[i]);
        m[i] = m1;
        p[i] = fmaf(-lr, nesterov ? fmaf(keep, m1, g) : m1, p[i]);
    }
};

dr_status dr_cuda_momentum(dr_context *, const dr_momentum_args *a)
{
    return dr_each(dr_numel(a->p),
                   momentum{once(a->weight_decay), once(a->grad_scale), once(1.0 - a->dampening),
                            once(a->momentum), once(a->lr), a->first, a->nesterov,
                            dr_data<float>(a->p), dr_data<float>(a->m), dr_data<float>(a->g)});
}

struct adam_apply {
    float decay, rate, eps;
    float *p;
    const float *m, *v;
    __device__ void operator()(int64_t i) const
    {
        const float x = p[i];
        p[i] = fmaf(decay, x, x) + rate * m[i] / (sqrtf(v[i]) + eps);
    }
};

dr_status dr_cuda_adam_apply(dr_context *, const dr_adam_apply_args *a)
{
    return dr_each(dr_numel(a->p),
                   adam_apply{once(-a->decay), once(-a->rate), once(a->eps), dr_data<float>(a->p),
                              dr_floats(a->m), dr_floats(a->v)});
}

struct schedule_free {
    float scale, beta2, new2, eps, correction, weight_decay, average, y_rate, lr;
    bool normalized;
    float *y, *z, *v;
    const float *grad;
    __device__ void operator()(int64_t i) const
    {
        float u = scale * grad[i];
        float v1 = 0.0f;
        if (v != nullptr) {
            v1 = fmaf(new2 * u, u, beta2 * v[i]);
            v[i] = v1;
        }
        if (normalized) {
            u = u / (sqrtf(v1 / correction) + eps);
        }
        const float y0 = y[i];
        const float z0 = z[i];
        u = fmaf(weight_decay, y0, u);
        y[i] = fmaf(y_rate, u, lerp_of(y0, z0, average));
        z[i] = fmaf(lr, u, z0);
    }
};

dr_status dr_cuda_schedule_free(dr_context *, const dr_schedule_free_args *a)
{
    return dr_each(dr_numel(a->y),
                   schedule_free{once(a->grad_scale), once(a->beta2), once(1.0 - a->beta2),
                                 once(a->eps), once(a->correction), once(a->weight_decay),
                                 once(a->average), once(a->y_rate), once(-a->lr), a->normalized,
                                 dr_data<float>(a->y), dr_data<float>(a->z), dr_data<float>(a->v),
                                 dr_floats(a->g)});
}
