/*
 * backend/cuda/cuda_pointwise.cu - activations and sums (ops/pointwise.h). One thread per element,
 * f32 inside. Formulas: the header's; derivatives as in backend/ref/ref_pointwise.c.
 */
#include "backend/cuda/cuda_philox.cuh"

extern "C" {
#include "ops/pointwise.h"
}

static __device__ __forceinline__ float sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}
static __device__ __forceinline__ float normal_cdf(float x)
{
    return 0.5f * (1.0f + erff(x * 0.70710678118654752f)); /* x / sqrt 2 */
}
static __device__ __forceinline__ float gelu_slope(float x)
{
    return normal_cdf(x) + x * 0.39894228040143268f * expf(-0.5f * x * x); /* 1 / sqrt(2 pi) */
}

static __device__ float act(dr_act kind, float x)
{
    switch (kind) {
    case DR_ACT_SILU:
        return x * sigmoid(x);
    case DR_ACT_GELU:
        return x * normal_cdf(x);
    case DR_ACT_QUICK_GELU:
        return x * sigmoid(1.702f * x);
    case DR_ACT_RELU:
        return x > 0.0f ? x : 0.0f;
    case DR_ACT_TANH3:
        return 3.0f * tanhf(x / 3.0f);
    }
    return NAN;
}

static __device__ float act_slope(dr_act kind, float x)
{
    float s;
    switch (kind) {
    case DR_ACT_SILU:
        s = sigmoid(x);
        return s * (1.0f + x * (1.0f - s));
    case DR_ACT_GELU:
        return gelu_slope(x);
    case DR_ACT_QUICK_GELU:
        s = sigmoid(1.702f * x);
        return s + 1.702f * x * s * (1.0f - s);
    case DR_ACT_RELU:
        return x > 0.0f ? 1.0f : 0.0f;
    case DR_ACT_TANH3:
        s = tanhf(x / 3.0f);
        return 1.0f - s * s;
    }
    return NAN;
}

template <typename T> struct activate {
    dr_act kind;
    const T *x;
    T *y;
    __device__ void operator()(int64_t i) const
    {
        dr_put(y, i, act(kind, dr_get(x, i)));
    }
};

dr_status dr_cuda_activation(dr_context *, const dr_activation_args *a)
{
    DR_CUDA_WITH_TYPE(
        a->x->dtype,
        return dr_each(dr_numel(a->x), activate<T>{a->kind, dr_data<T>(a->x), dr_data<T>(a->y)}));
}

template <typename T> struct activate_backward {
    dr_act kind;
    const T *dy, *x;
    T *dx;
    bool add;
    __device__ void operator()(int64_t i) const
    {
        dr_write_to(dx, i, dr_get(dy, i) * act_slope(kind, dr_get(x, i)), add);
    }
};

dr_status dr_cuda_activation_backward(dr_context *, const dr_activation_backward_args *a)
{
    DR_CUDA_WITH_TYPE(a->x->dtype, return dr_each(dr_numel(a->x),
                                                  activate_backward<T>{
                                                      a->kind, dr_data<T>(a->dy), dr_data<T>(a->x),
                                                      dr_data<T>(a->dx), a->mode == DR_ADD}));
}

template <typename T> struct gated {
    const T *x; /* (rows,2F) */
    T *y;       /* (rows,F)  */
    int64_t f;
    __device__ void operator()(int64_t r, int64_t c) const
    {
        const float gate = dr_get(x, r * 2 * f + f + c);
        dr_put(y, r * f + c, dr_get(x, r * 2 * f + c) * (gate * normal_cdf(gate)));
    }
};

dr_status dr_cuda_geglu(dr_context *, const dr_geglu_args *a)
{
    const int64_t f = dr_cols(a->y);
    DR_CUDA_WITH_TYPE(a->x->dtype, return dr_grid(dr_rows(a->y), f,
                                                  gated<T>{dr_data<T>(a->x), dr_data<T>(a->y), f}));
}

template <typename T> struct gated_backward {
    const T *dy, *x;
    T *dx;
    int64_t f;
    __device__ void operator()(int64_t r, int64_t c) const
    {
        const float g = dr_get(dy, r * f + c);
        const float value = dr_get(x, r * 2 * f + c);
        const float gate = dr_get(x, r * 2 * f + f + c);
        dr_put(dx, r * 2 * f + c, g * (gate * normal_cdf(gate)));
        dr_put(dx, r * 2 * f + f + c, g * value * gelu_slope(gate));
    }
};

dr_status dr_cuda_geglu_backward(dr_context *, const dr_geglu_backward_args *a)
{
    const int64_t f = dr_cols(a->dy);
    DR_CUDA_WITH_TYPE(a->x->dtype,
                      return dr_grid(dr_rows(a->dy), f,
                                     gated_backward<T>{dr_data<T>(a->dy), dr_data<T>(a->x),
                                                       dr_data<T>(a->dx), f}));
}

template <typename T> struct weighted_sum {
    float alpha, beta;
    const T *x, *z;
    T *y;
    __device__ void operator()(int64_t i) const
    {
        const float v = alpha * dr_get(x, i);
        dr_put(y, i, z != nullptr ? v + beta * dr_get(z, i) : v);
    }
};

dr_status dr_cuda_add(dr_context *, const dr_add_args *a)
{
    DR_CUDA_WITH_TYPE(
        a->x->dtype,
        return dr_each(dr_numel(a->x), weighted_sum<T>{a->alpha, a->beta, dr_data<T>(a->x),
                                                       dr_data<T>(a->z), dr_data<T>(a->y)}));
}

template <typename T> struct row_added {
    T *x;
    const T *t;
    int64_t pixels, channels;
    __device__ void operator()(int64_t r, int64_t c) const
    {
        dr_write_to(x, r * channels + c, dr_get(t, r / pixels * channels + c), true);
    }
};

dr_status dr_cuda_add_rows(dr_context *, const dr_add_rows_args *a)
{
    const int64_t channels = dr_cols(a->x);
    const int64_t pixels = dr_rows(a->x) / a->x->dim[0];
    DR_CUDA_WITH_TYPE(a->x->dtype, return dr_grid(dr_rows(a->x), channels,
                                                  row_added<T>{dr_data<T>(a->x), dr_data<T>(a->t),
                                                               pixels, channels}));
}

template <typename T> struct row_multiplied {
    const T *x, *t;
    T *y;
    int64_t part, channels; /* elements that share a row of t, of that row */
    __device__ void operator()(int64_t i) const
    {
        dr_put(y, i, dr_get(x, i) * dr_get(t, i / part * channels + i % channels));
    }
};

dr_status dr_cuda_multiply(dr_context *, const dr_multiply_args *a)
{
    const int64_t n = dr_numel(a->x);
    DR_CUDA_WITH_TYPE(
        a->x->dtype,
        return dr_each(n, row_multiplied<T>{dr_data<const T>(a->x), dr_data<const T>(a->t),
                                            dr_data<T>(a->y), n / a->x->dim[0], dr_cols(a->x)}));
}

/* Every thread computes the block of its number: its neighbours' numbers may be far away. */
template <typename T> struct dropped_out {
    const T *x;
    T *y;
    int64_t part, inner;
    float chance, scale;
    uint32_t key0, key1, time;
    uint64_t item;
    __device__ void operator()(int64_t i) const
    {
        const int64_t number = i / part * inner + i % inner;
        uint32_t random[4];
        dr_philox_block(static_cast<uint32_t>(number / 4), time, item, key0, key1, random);
        const float uniform = static_cast<float>(random[number % 4] >> 8) * 0x1p-24f;
        dr_put(y, i, uniform >= chance ? scale * dr_get(x, i) : 0.0f);
    }
};

dr_status dr_cuda_dropout(dr_context *, const dr_dropout_args *a)
{
    dr_philox p;
    dr_philox_init(&p, a->seed, a->purpose, a->time, a->item);
    const int64_t n = dr_numel(a->x);
    DR_CUDA_WITH_TYPE(a->x->dtype,
                      return dr_each(n, dropped_out<T>{dr_data<const T>(a->x), dr_data<T>(a->y),
                                                       n / a->outer, a->inner, a->chance, a->scale,
                                                       p.key[0], p.key[1], a->time, a->item}));
}

/* Column sums, written or added. */
template <typename T> struct column_sum {
    enum { K = 1 };
    const T *x;
    T *y;
    int64_t cols;
    bool add;
    __device__ void operator()(int64_t r, int64_t c, float *v) const
    {
        v[0] = dr_get(x, r * cols + c);
    }
    __device__ void finish(int64_t item, int64_t c, const float *sum) const
    {
        dr_write_to(y, item * cols + c, sum[0], add);
    }
};

dr_status dr_cuda_sum_rows(dr_context *cx, const dr_sum_rows_args *a)
{
    const int64_t n = a->dy->dim[0];
    const int64_t cols = dr_cols(a->dy);
    DR_CUDA_WITH_TYPE(a->dy->dtype,
                      return dr_column_sums(n, dr_rows(a->dy) / n, cols, cx->work,
                                            column_sum<T>{dr_data<T>(a->dy), dr_data<T>(a->dt),
                                                          cols, a->mode == DR_ADD}));
}

template <typename T> struct bias_sum {
    enum { K = 1 };
    const T *dy;
    dr_gradient db;
    int64_t cols;
    __device__ void operator()(int64_t r, int64_t c, float *v) const
    {
        v[0] = dr_get(dy, r * cols + c);
    }
    __device__ void finish(int64_t, int64_t c, const float *sum) const
    {
        db.add(c, sum[0]);
    }
};

dr_status dr_cuda_add_column_sums(const dr_tensor *db, const dr_tensor *dy, void *work)
{
    const int64_t cols = dr_numel(db);
    DR_CUDA_WITH_TYPE(dy->dtype, return dr_column_sums(
                                     1, dr_rows(dy), cols, work,
                                     bias_sum<T>{dr_data<const T>(dy), dr_gradient_of(db), cols}));
}

size_t dr_cuda_column_work_bytes(int64_t batch, int64_t rows, int64_t cols, int n_sums)
{
    return sizeof(float) * static_cast<size_t>(batch * dr_column_chunks(rows) * n_sums * cols);
}
