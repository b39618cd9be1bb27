/*
 * backend/cuda/cuda_norm.cu - group and layer normalisation (ops/norm.h), statistics in f32 and
 * double.
 *
 * Group norm, x (N,P,C): sums per channel by columns (coalesced), then per group, then one pass
 * that writes. Variance: sum of (x - pivot)^2 with the mean of the group's first pixel as pivot, so
 * that nothing cancels. Backward needs per channel sum du xhat and sum du only: they give dgamma,
 * dbeta and, weighted by gamma, the two means of dx. Layer norm: one warp per row.
 */
#include "backend/cuda/cuda_internal.cuh"

extern "C" {
#include "ops/norm.h"
}

/* ---- group norm -------------------------------------------------------------------------------
 */

struct group_shape {
    int64_t n, pixels, channels, groups, width;
};

static group_shape shape_of(const dr_tensor *x, int groups)
{
    const int64_t channels = dr_cols(x);
    return group_shape{x->dim[0], dr_rows(x) / x->dim[0], channels, groups, channels / groups};
}

/* Mean of the group's channels at its first pixel. */
template <typename T>
static __device__ float pivot_of(const group_shape &s, const T *x, int64_t n, int64_t g)
{
    float sum = 0.0f;
    for (int64_t c = 0; c < s.width; c++) {
        sum += dr_get(x, n * s.pixels * s.channels + g * s.width + c);
    }
    return sum / static_cast<float>(s.width);
}

template <typename T> struct make_pivots {
    group_shape s;
    const T *x;
    float *pivot; /* (N,G) */
    __device__ void operator()(int64_t n, int64_t g) const
    {
        pivot[n * s.groups + g] = pivot_of(s, x, n, g);
    }
};

/* Per channel: sums of d and d^2, d = x - pivot, to sums (N,2,C). */
template <typename T> struct channel_moments {
    enum { K = 2 };
    group_shape s;
    const T *x;
    const float *pivot;
    float *sums;
    __device__ void operator()(int64_t r, int64_t c, float *v) const
    {
        const float d =
            dr_get(x, r * s.channels + c) - pivot[r / s.pixels * s.groups + c / s.width];
        v[0] = d;
        v[1] = d * d;
    }
    __device__ void finish(int64_t n, int64_t c, const float *sum) const
    {
        sums[(n * 2 + 0) * s.channels + c] = sum[0];
        sums[(n * 2 + 1) * s.channels + c] = sum[1];
    }
};

struct group_moments {
    group_shape s;
    float eps;
    const float *pivot, *sums;
    float *stats; /* (N,G,2) */
    __device__ void operator()(int64_t n, int64_t g) const
    {
        double d = 0.0;
        double d2 = 0.0;
        for (int64_t c = g * s.width; c < (g + 1) * s.width; c++) {
            d += static_cast<double>(sums[(n * 2 + 0) * s.channels + c]);
            d2 += static_cast<double>(sums[(n * 2 + 1) * s.channels + c]);
        }
        const double count = static_cast<double>(s.pixels * s.width);
        const double shift = d / count;
        const double variance = d2 / count - shift * shift;
        float *out = stats + 2 * (n * s.groups + g);
        out[0] = static_cast<float>(static_cast<double>(pivot[n * s.groups + g]) + shift);
        out[1] = static_cast<float>(
            1.0 / sqrt((variance > 0.0 ? variance : 0.0) + static_cast<double>(eps)));
    }
};

template <typename T> struct group_apply {
    group_shape s;
    bool silu;
    const T *x, *gamma, *beta;
    const float *stats;
    T *y;
    __device__ void operator()(int64_t r, int64_t c) const
    {
        const float *st = stats + 2 * (r / s.pixels * s.groups + c / s.width);
        const float u =
            dr_get(gamma, c) * ((dr_get(x, r * s.channels + c) - st[0]) * st[1]) + dr_get(beta, c);
        dr_put(y, r * s.channels + c, silu ? u / (1.0f + expf(-u)) : u);
    }
};

/* work: pivots or group means (2 N G), channel sums (2 N C), partial sums. */
static size_t group_work_bytes(const group_shape &s)
{
    return sizeof(float) * static_cast<size_t>(2 * s.n * (s.groups + s.channels)) +
           dr_cuda_column_work_bytes(s.n, s.pixels, s.channels, 2);
}

size_t dr_cuda_groupnorm_work_bytes(const dr_groupnorm_args *a)
{
    return group_work_bytes(shape_of(a->x, a->groups));
}

size_t dr_cuda_groupnorm_backward_work_bytes(const dr_groupnorm_backward_args *a)
{
    return group_work_bytes(shape_of(a->x, a->groups));
}

template <typename T> static dr_status groupnorm(dr_context *cx, const dr_groupnorm_args *a)
{
    const group_shape s = shape_of(a->x, a->groups);
    float *pivot = static_cast<float *>(cx->work);
    float *sums = pivot + 2 * s.n * s.groups;
    float *partial = sums + 2 * s.n * s.channels;
    const T *x = dr_data<const T>(a->x);
    float *stats = dr_data<float>(a->stats);
    DR_TRY(dr_grid(s.n, s.groups, make_pivots<T>{s, x, pivot}));
    DR_TRY(
        dr_column_sums(s.n, s.pixels, s.channels, partial, channel_moments<T>{s, x, pivot, sums}));
    DR_TRY(dr_grid(s.n, s.groups, group_moments{s, a->eps, pivot, sums, stats}));
    return dr_grid(dr_rows(a->x), s.channels,
                   group_apply<T>{s, a->silu, x, dr_data<const T>(a->gamma),
                                  dr_data<const T>(a->beta), stats, dr_data<T>(a->y)});
}

dr_status dr_cuda_groupnorm(dr_context *cx, const dr_groupnorm_args *a)
{
    DR_CUDA_WITH_TYPE(a->x->dtype, return groupnorm<T>(cx, a));
}

/* xhat and du, the gradient before the activation, of one element. */
template <typename T> struct group_element {
    group_shape s;
    bool silu;
    const T *dy, *x, *gamma, *beta;
    const float *stats;
    __device__ void at(int64_t r, int64_t c, float *xhat, float *du) const
    {
        const float *st = stats + 2 * (r / s.pixels * s.groups + c / s.width);
        *xhat = (dr_get(x, r * s.channels + c) - st[0]) * st[1];
        *du = dr_get(dy, r * s.channels + c);
        if (silu) {
            const float u = dr_get(gamma, c) * *xhat + dr_get(beta, c);
            const float sig = 1.0f / (1.0f + expf(-u));
            *du *= sig * (1.0f + u * (1.0f - sig));
        }
    }
};

/* Per channel: sums of du xhat and du, to sums (N,2,C). */
template <typename T> struct channel_gradients {
    enum { K = 2 };
    group_element<T> e;
    float *sums;
    __device__ void operator()(int64_t r, int64_t c, float *v) const
    {
        float xhat;
        e.at(r, c, &xhat, &v[1]);
        v[0] = v[1] * xhat;
    }
    __device__ void finish(int64_t n, int64_t c, const float *sum) const
    {
        sums[(n * 2 + 0) * e.s.channels + c] = sum[0];
        sums[(n * 2 + 1) * e.s.channels + c] = sum[1];
    }
};

/* means (N,G,2): of g xhat and g, g = du gamma. */
template <typename T> struct group_means {
    group_shape s;
    const T *gamma;
    const float *sums;
    float *means;
    __device__ void operator()(int64_t n, int64_t g) const
    {
        double gx = 0.0;
        double sum = 0.0;
        for (int64_t c = g * s.width; c < (g + 1) * s.width; c++) {
            const double w = static_cast<double>(dr_get(gamma, c));
            gx += w * static_cast<double>(sums[(n * 2 + 0) * s.channels + c]);
            sum += w * static_cast<double>(sums[(n * 2 + 1) * s.channels + c]);
        }
        const double count = static_cast<double>(s.pixels * s.width);
        means[2 * (n * s.groups + g)] = static_cast<float>(gx / count);
        means[2 * (n * s.groups + g) + 1] = static_cast<float>(sum / count);
    }
};

struct affine_gradients {
    int64_t n, channels;
    const float *sums;
    dr_gradient dgamma, dbeta;
    __device__ void operator()(int64_t c) const
    {
        float sum_gamma = 0.0f;
        float sum_beta = 0.0f;
        for (int64_t i = 0; i < n; i++) {
            sum_gamma += sums[(i * 2 + 0) * channels + c];
            sum_beta += sums[(i * 2 + 1) * channels + c];
        }
        dgamma.add(c, sum_gamma);
        dbeta.add(c, sum_beta);
    }
};

template <typename T> struct group_dx {
    group_element<T> e;
    const float *means;
    T *dx;
    bool add;
    __device__ void operator()(int64_t r, int64_t c) const
    {
        const int64_t group = r / e.s.pixels * e.s.groups + c / e.s.width;
        float xhat, du;
        e.at(r, c, &xhat, &du);
        const float g = du * dr_get(e.gamma, c);
        dr_write_to(dx, r * e.s.channels + c,
                    e.stats[2 * group + 1] * (g - means[2 * group + 1] - xhat * means[2 * group]),
                    add);
    }
};

template <typename T>
static dr_status groupnorm_backward(dr_context *cx, const dr_groupnorm_backward_args *a)
{
    const group_shape s = shape_of(a->x, a->groups);
    float *means = static_cast<float *>(cx->work);
    float *sums = means + 2 * s.n * s.groups;
    float *partial = sums + 2 * s.n * s.channels;
    const group_element<T> e = {s,
                                a->silu,
                                dr_data<const T>(a->dy),
                                dr_data<const T>(a->x),
                                dr_data<const T>(a->gamma),
                                dr_data<const T>(a->beta),
                                dr_floats(a->stats)};
    DR_TRY(dr_column_sums(s.n, s.pixels, s.channels, partial, channel_gradients<T>{e, sums}));
    if (a->dgamma != nullptr) {
        DR_TRY(
            dr_each(s.channels, affine_gradients{s.n, s.channels, sums, dr_gradient_of(a->dgamma),
                                                 dr_gradient_of(a->dbeta)}));
    }
    if (a->dx == nullptr) {
        return DR_OK;
    }
    DR_TRY(dr_grid(s.n, s.groups, group_means<T>{s, e.gamma, sums, means}));
    return dr_grid(dr_rows(a->x), s.channels,
                   group_dx<T>{e, means, dr_data<T>(a->dx), a->mode == DR_ADD});
}

dr_status dr_cuda_groupnorm_backward(dr_context *cx, const dr_groupnorm_backward_args *a)
{
    DR_CUDA_WITH_TYPE(a->x->dtype, return groupnorm_backward<T>(cx, a));
}

/* ---- layer norm -------------------------------------------------------------------------------
 */

enum { ROWS_PER_BLOCK = 8 }; /* warps */

template <typename T>
__global__ void layernorm_kernel(const T *x, const T *gamma, const T *beta, T *y, float *stats,
                                 int64_t rows, int64_t cols, float eps)
{
    const int64_t r = static_cast<int64_t>(blockIdx.x) * ROWS_PER_BLOCK + threadIdx.x / 32;
    const unsigned lane = threadIdx.x % 32;
    if (r >= rows) { /* the whole warp */
        return;
    }
    float sum = 0.0f;
    for (int64_t c = lane; c < cols; c += 32) {
        sum += dr_get(x, r * cols + c);
    }
    const float mean = dr_warp_sum(sum) / static_cast<float>(cols);
    float squares = 0.0f;
    for (int64_t c = lane; c < cols; c += 32) {
        const float d = dr_get(x, r * cols + c) - mean;
        squares += d * d;
    }
    const float rstd = 1.0f / sqrtf(dr_warp_sum(squares) / static_cast<float>(cols) + eps);
    for (int64_t c = lane; c < cols; c += 32) {
        dr_put(y, r * cols + c,
               dr_get(gamma, c) * ((dr_get(x, r * cols + c) - mean) * rstd) + dr_get(beta, c));
    }
    if (lane == 0) {
        stats[2 * r] = mean;
        stats[2 * r + 1] = rstd;
    }
}

template <typename T> static dr_status layernorm(const dr_layernorm_args *a)
{
    const int64_t rows = dr_rows(a->x);
    return DR_LAUNCH((layernorm_kernel<T>), dim3(dr_blocks(rows, ROWS_PER_BLOCK, 1 << 30)),
                     dim3(32 * ROWS_PER_BLOCK), 0, dr_cuda_stream(), dr_data<const T>(a->x),
                     dr_data<const T>(a->gamma), dr_data<const T>(a->beta), dr_data<T>(a->y),
                     dr_data<float>(a->stats), rows, dr_cols(a->x), a->eps);
}

dr_status dr_cuda_layernorm(dr_context *, const dr_layernorm_args *a)
{
    DR_CUDA_WITH_TYPE(a->x->dtype, return layernorm<T>(a));
}

template <typename T>
__global__ void layernorm_dx_kernel(const T *dy, const T *x, const T *gamma, const float *stats,
                                    T *dx, bool add, int64_t rows, int64_t cols)
{
    const int64_t r = static_cast<int64_t>(blockIdx.x) * ROWS_PER_BLOCK + threadIdx.x / 32;
    const unsigned lane = threadIdx.x % 32;
    if (r >= rows) {
        return;
    }
    const float mean = stats[2 * r];
    const float rstd = stats[2 * r + 1];
    float sum_g = 0.0f;
    float sum_gx = 0.0f;
    for (int64_t c = lane; c < cols; c += 32) {
        const float g = dr_get(dy, r * cols + c) * dr_get(gamma, c);
        sum_g += g;
        sum_gx += g * ((dr_get(x, r * cols + c) - mean) * rstd);
    }
    const float mean_g = dr_warp_sum(sum_g) / static_cast<float>(cols);
    const float mean_gx = dr_warp_sum(sum_gx) / static_cast<float>(cols);
    for (int64_t c = lane; c < cols; c += 32) {
        const float g = dr_get(dy, r * cols + c) * dr_get(gamma, c);
        const float xhat = (dr_get(x, r * cols + c) - mean) * rstd;
        dr_write_to(dx, r * cols + c, rstd * (g - mean_g - xhat * mean_gx), add);
    }
}

template <typename T> struct row_affine_gradients {
    enum { K = 2 };
    const T *dy, *x;
    const float *stats;
    dr_gradient dgamma, dbeta;
    int64_t cols;
    __device__ void operator()(int64_t r, int64_t c, float *v) const
    {
        v[1] = dr_get(dy, r * cols + c);
        v[0] = v[1] * ((dr_get(x, r * cols + c) - stats[2 * r]) * stats[2 * r + 1]);
    }
    __device__ void finish(int64_t, int64_t c, const float *sum) const
    {
        dgamma.add(c, sum[0]);
        dbeta.add(c, sum[1]);
    }
};

size_t dr_cuda_layernorm_backward_work_bytes(const dr_layernorm_backward_args *a)
{
    return a->dgamma != nullptr ? dr_cuda_column_work_bytes(1, dr_rows(a->x), dr_cols(a->x), 2) : 0;
}

template <typename T>
static dr_status layernorm_backward(dr_context *cx, const dr_layernorm_backward_args *a)
{
    const int64_t rows = dr_rows(a->x);
    const int64_t cols = dr_cols(a->x);
    const T *dy = dr_data<const T>(a->dy);
    const T *x = dr_data<const T>(a->x);
    if (a->dgamma != nullptr) {
        DR_TRY(dr_column_sums(1, rows, cols, cx->work,
                              row_affine_gradients<T>{dy, x, dr_floats(a->stats),
                                                      dr_gradient_of(a->dgamma),
                                                      dr_gradient_of(a->dbeta), cols}));
    }
    if (a->dx == nullptr) {
        return DR_OK;
    }
    return DR_LAUNCH((layernorm_dx_kernel<T>), dim3(dr_blocks(rows, ROWS_PER_BLOCK, 1 << 30)),
                     dim3(32 * ROWS_PER_BLOCK), 0, dr_cuda_stream(), dy, x,
                     dr_data<const T>(a->gamma), dr_floats(a->stats), dr_data<T>(a->dx),
                     a->mode == DR_ADD, rows, cols);
}

dr_status dr_cuda_layernorm_backward(dr_context *cx, const dr_layernorm_backward_args *a)
{
    DR_CUDA_WITH_TYPE(a->x->dtype, return layernorm_backward<T>(cx, a));
}
