/*
 * backend/cuda/cuda_dadapt.cu - updates that leave sums: Lion, Prodigy, D-Adaptation
 * (ops/optimizer_ops.h). An element is updated by the thread that adds its terms.
 */
#include "backend/cuda/cuda_sums.cuh"

extern "C" {
#include "ops/optimizer_ops.h"
}

static float once(double x)
{
    return static_cast<float>(x);
}

/* ---- Lion -------------------------------------------------------------------------------------
 */

struct lion {
    static constexpr int K = 2;
    float scale, decay, beta1, rest1, beta2, rate, lr, s_keep, s_rate;
    float *p, *m, *s;
    const float *grad;
    __device__ float update(int64_t i) const /* the sign that p was moved by */
    {
        const float g = scale * grad[i];
        const float m0 = m[i];
        const float x = fmaf(rest1, g, beta1 * m0);
        const float u = static_cast<float>((x > 0.0f) - (x < 0.0f));
        p[i] = fmaf(lr, u, decay * p[i]);
        m[i] = fmaf(rate, g, beta2 * m0);
        return u;
    }
    __device__ void operator()(int64_t i) const
    {
        (void)update(i);
    }
    __device__ void operator()(int64_t i, double *sum) const
    {
        const float u = update(i);
        const float s0 = s[i];
        const float s1 = fmaf(s_rate, u, s_keep * s0);
        sum[0] += static_cast<double>(u) * static_cast<double>(s0);
        s[i] = s1;
        sum[1] += fabs(static_cast<double>(s1));
    }
};

size_t dr_cuda_lion_work_bytes(const dr_lion_args *a)
{
    return a->s != nullptr ? dr_flat_sums_bytes(dr_numel(a->p), 2) : 0;
}

static dr_status run_lion(dr_context *cx, const dr_lion_args *a)
{
    const int64_t n = dr_numel(a->p);
    const lion f = {once(a->grad_scale),  once(1.0 - a->lr * a->weight_decay),
                    once(a->beta1),       once(1.0 - a->beta1),
                    once(a->beta2),       once(a->rate),
                    once(-a->lr),         once(a->s_keep),
                    once(a->s_rate),      dr_data<float>(a->p),
                    dr_data<float>(a->m), dr_data<float>(a->s),
                    dr_floats(a->g)};
    if (a->s == nullptr) {
        return dr_each(n, f);
    }
    return dr_flat_sums(n, cx->work, dr_data<double>(a->sums), true, f);
}

dr_status dr_cuda_lion(dr_context *cx, const dr_lion_args *a)
{
    return run_lion(cx, a);
}

/* ---- Prodigy and D-Adaptation -----------------------------------------------------------------
 */

template <int KIND> struct dadapt {
    static constexpr int K = 3;
    float scale, l2, eps, m_keep, m_rate, v_keep, v_rate, s_keep, s_rate;
    const float *p, *p0, *grad;
    float *m, *v, *s;
    __device__ void operator()(int64_t i, double *sum) const
    {
        const float x = p[i];
        const float g = fmaf(l2, x, scale * grad[i]);
        const float v0 = v[i];
        const float s0 = s[i];
        const float v1 = fmaf(v_rate * g, g, v_keep * v0);
        const float s1 = fmaf(s_rate, g, s_keep * s0);
        if (KIND == DR_DADAPT_PRODIGY) {
            sum[0] += static_cast<double>(g) * static_cast<double>(p0[i] - x);
        } else if (KIND == DR_DADAPT_ADAM) {
            sum[0] += static_cast<double>(g) * static_cast<double>(s0 / (sqrtf(v0) + eps));
        } else {
            const float denominator = sqrtf(v1) + eps;
            sum[0] += static_cast<double>(g * g / denominator);
            sum[2] += static_cast<double>(s1 * s1 / denominator);
        }
        m[i] = fmaf(m_rate, g, m_keep * m[i]);
        v[i] = v1;
        s[i] = s1;
        sum[1] += fabs(static_cast<double>(s1));
    }
};

size_t dr_cuda_dadapt_work_bytes(const dr_dadapt_args *a)
{
    return dr_flat_sums_bytes(dr_numel(a->p), 3);
}

template <int KIND> static dr_status sum_dadapt(dr_context *cx, const dr_dadapt_args *a)
{
    const dadapt<KIND> f = {once(a->grad_scale),  once(a->l2),          once(a->eps),
                            once(a->m_keep),      once(a->m_rate),      once(a->v_keep),
                            once(a->v_rate),      once(a->s_keep),      once(a->s_rate),
                            dr_floats(a->p),      dr_floats(a->p0),     dr_floats(a->g),
                            dr_data<float>(a->m), dr_data<float>(a->v), dr_data<float>(a->s)};
    return dr_flat_sums(dr_numel(a->p), cx->work, dr_data<double>(a->sums), true, f);
}

static dr_status run_dadapt(dr_context *cx, const dr_dadapt_args *a)
{
    switch (a->kind) {
    case DR_DADAPT_PRODIGY:
        return sum_dadapt<DR_DADAPT_PRODIGY>(cx, a);
    case DR_DADAPT_ADAM:
        return sum_dadapt<DR_DADAPT_ADAM>(cx, a);
    case DR_DADAPT_PREPRINT:
        break;
    }
    return sum_dadapt<DR_DADAPT_PREPRINT>(cx, a);
}

dr_status dr_cuda_dadapt(dr_context *cx, const dr_dadapt_args *a)
{
    return run_dadapt(cx, a);
}
