/*
 * backend/cuda/cuda_adafactor.cu - Adafactor's moments and update (ops/optimizer_ops.h).
 *
 * Means over one axis are summed in double by blocks of 32 outputs x 8 threads, each thread every
 * eighth term in order, then the eight in order.
 */
#include "backend/cuda/cuda_sums.cuh"

extern "C" {
#include "ops/optimizer_ops.h"
}

enum { MEAN_OUTPUTS = 32, MEAN_THREADS = 8 };

static float once(double x)
{
    return static_cast<float>(x);
}

static size_t align64(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

/* Where the terms of output o lie: (o / split) outer + (o % split / inner) middle + o % inner, and
 * on from there. */
typedef struct axis {
    int64_t outputs, terms, step;
    int64_t split, outer, inner, middle;
} axis;

/* Means over b, one per (outer,a,inner); over a, one per (outer,b,inner). */
static axis over_b(const dr_factored *f)
{
    return axis{f->outer * f->a * f->inner, f->b,     f->inner,       f->a * f->inner,
                f->a * f->b * f->inner,     f->inner, f->b * f->inner};
}

static axis over_a(const dr_factored *f)
{
    const int64_t line = f->b * f->inner;
    return axis{f->outer * line, f->a, line, line, f->a * line, f->inner, f->inner};
}

/* Means of row over a, one per (outer,inner). */
static axis of_rows(const dr_factored *f)
{
    return axis{f->outer * f->inner, f->a, f->inner, f->inner, f->a * f->inner, f->inner, 0};
}

/* f(i): term i; f.finish(o, mean). */
template <typename F> __global__ void means_kernel(axis s, F f)
{
    DR_SHARED(double, tile, 0, MEAN_THREADS *MEAN_OUTPUTS);
    const int64_t o = static_cast<int64_t>(blockIdx.x) * MEAN_OUTPUTS + threadIdx.x;
    const int64_t base = o / s.split * s.outer + o % s.split / s.inner * s.middle + o % s.inner;
    double sum = 0.0;
    for (int64_t k = threadIdx.y; k < s.terms && o < s.outputs; k += MEAN_THREADS) {
        sum += static_cast<double>(f(base + k * s.step));
    }
    tile[threadIdx.y * MEAN_OUTPUTS + threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && o < s.outputs) {
        double total = 0.0;
        for (int y = 0; y < MEAN_THREADS; y++) {
            total += tile[y * MEAN_OUTPUTS + threadIdx.x];
        }
        f.finish(o, static_cast<float>(total / static_cast<double>(s.terms)));
    }
}

template <typename F> static dr_status means(const axis &s, F f)
{
    return DR_LAUNCH((means_kernel<F>), dim3(dr_blocks(s.outputs, MEAN_OUTPUTS, 1 << 30)),
                     dim3(MEAN_OUTPUTS, MEAN_THREADS), MEAN_OUTPUTS * MEAN_THREADS * sizeof(double),
                     dr_cuda_stream(), s, f);
}

/* ---- moments ----------------------------------------------------------------------------------
 */

/* state = keep state + rest (mean of) (g^2 + eps). */
struct moment {
    float scale, eps, keep, rest;
    const float *g;
    float *state;
    __device__ float operator()(int64_t i) const
    {
        const float x = scale * g[i];
        return x * x + eps;
    }
    __device__ void finish(int64_t o, float mean) const
    {
        state[o] = fmaf(rest, mean, keep * state[o]);
    }
};

struct whole_moment {
    moment m;
    __device__ void operator()(int64_t i) const
    {
        m.finish(i, m(i));
    }
};

static dr_status move_moments(const dr_adafactor_moments_args *a)
{
    moment m = {once(a->grad_scale), once(a->eps),    once(a->keep),
                once(1.0 - a->keep), dr_floats(a->g), dr_data<float>(a->f.v)};
    if (a->f.v != nullptr) {
        return dr_each(dr_numel(a->g), whole_moment{m});
    }
    m.state = dr_data<float>(a->f.row);
    DR_TRY(means(over_b(&a->f), m));
    m.state = dr_data<float>(a->f.col);
    return means(over_a(&a->f), m);
}

dr_status dr_cuda_adafactor_moments(dr_context *, const dr_adafactor_moments_args *a)
{
    return move_moments(a);
}

/* ---- the update -------------------------------------------------------------------------------
 */

/* rsqrt(row / mean of row over a) and rsqrt(col) of a factored tensor, in work. */
struct update {
    float scale;
    const float *g, *v;
    const float *rows, *cols;
    int64_t a, b, inner;
    __device__ float operator()(int64_t i) const
    {
        const float x = scale * g[i];
        if (v != nullptr) {
            return x / sqrtf(v[i]);
        }
        const int64_t line = b * inner;
        const float row = rows[i / line * inner + i % inner];
        return row * cols[i / (a * line) * line + i % line] * x;
    }
};

struct row_mean {
    const float *row;
    float *out;
    __device__ float operator()(int64_t i) const
    {
        return row[i];
    }
    __device__ void finish(int64_t o, float mean) const
    {
        out[o] = mean;
    }
};

struct row_factor {
    const float *row;
    const float *mean;
    float *out;
    int64_t a, inner;
    __device__ void operator()(int64_t i) const
    {
        const float of_plane = mean[i / (a * inner) * inner + i % inner];
        out[i] = 1.0f / sqrtf(row[i] / of_plane);
    }
};

struct col_factor {
    const float *col;
    float *out;
    __device__ void operator()(int64_t i) const
    {
        out[i] = 1.0f / sqrtf(col[i]);
    }
};

static size_t factor_bytes(const dr_factored *f)
{
    const int64_t n = f->outer * f->inner * (1 + f->a + f->b);
    return f->v != nullptr ? 0 : align64(static_cast<size_t>(n) * sizeof(float));
}

static dr_status make_update(const dr_factored *f, const dr_tensor *g, double scale, void *work,
                             update *out)
{
    float *mean = static_cast<float *>(work);
    float *rows = mean + f->outer * f->inner;
    float *cols = rows + f->outer * f->a * f->inner;
    *out = update{once(scale), dr_floats(g), dr_floats(f->v), rows, cols, f->a, f->b, f->inner};
    if (f->v != nullptr) {
        return DR_OK;
    }
    const float *row = dr_floats(f->row);
    DR_TRY(means(of_rows(f), row_mean{row, mean}));
    DR_TRY(dr_each(f->outer * f->a * f->inner, row_factor{row, mean, rows, f->a, f->inner}));
    return dr_each(f->outer * f->b * f->inner, col_factor{dr_floats(f->col), cols});
}

struct squares {
    static constexpr int K = 2;
    update u;
    const float *p;
    __device__ void operator()(int64_t i, double *sum) const
    {
        const double change = static_cast<double>(u(i));
        const double value = static_cast<double>(p[i]);
        sum[0] += change * change;
        sum[1] += value * value;
    }
};

struct clear_third {
    double *sums;
    __device__ void operator()(int64_t) const
    {
        sums[2] = 0.0;
    }
};

size_t dr_cuda_adafactor_sums_work_bytes(const dr_adafactor_sums_args *a)
{
    return factor_bytes(&a->f) + dr_flat_sums_bytes(dr_numel(a->g), 2);
}

static dr_status sum_squares(dr_context *cx, const dr_adafactor_sums_args *a)
{
    squares s = {};
    s.p = dr_floats(a->p);
    DR_TRY(make_update(&a->f, a->g, a->grad_scale, cx->work, &s.u));
    DR_TRY(dr_each(1, clear_third{dr_data<double>(a->sums)}));
    return dr_flat_sums(dr_numel(a->g), static_cast<char *>(cx->work) + factor_bytes(&a->f),
                        dr_data<double>(a->sums), false, s);
}

dr_status dr_cuda_adafactor_sums(dr_context *cx, const dr_adafactor_sums_args *a)
{
    return sum_squares(cx, a);
}

/* What all elements share: {factor, -decay}. */
struct rates {
    double lr, least_scale, clip, weight_decay, n;
    bool scale_parameter;
    double *sums;
    float *out;
    __device__ void operator()(int64_t) const
    {
        const double rms = sqrt(sums[1] / n);
        const double rate = lr * (scale_parameter ? fmax(least_scale, rms) : 1.0);
        out[0] = static_cast<float>(rate / fmax(1.0, sqrt(sums[0] / n) / clip));
        out[1] = static_cast<float>(-weight_decay * rate);
        sums[2] = rate;
    }
};

struct apply {
    update of;
    const float *rate;
    float beta1, rest1;
    float *p, *m;
    __device__ void operator()(int64_t i) const
    {
        const float x = p[i];
        float u = of(i) * rate[0];
        if (m != nullptr) {
            u = fmaf(rest1, u, beta1 * m[i]);
            m[i] = u;
        }
        p[i] = fmaf(rate[1], x, x) - u;
    }
};

size_t dr_cuda_adafactor_apply_work_bytes(const dr_adafactor_apply_args *a)
{
    return factor_bytes(&a->f) + 2 * sizeof(float);
}

static dr_status run_apply(dr_context *cx, const dr_adafactor_apply_args *a)
{
    const int64_t n = dr_numel(a->p);
    float *rate = reinterpret_cast<float *>(static_cast<char *>(cx->work) + factor_bytes(&a->f));
    apply f = {};
    DR_TRY(make_update(&a->f, a->g, a->grad_scale, cx->work, &f.of));
    DR_TRY(dr_each(1, rates{a->lr, a->least_scale, a->clip, a->weight_decay, static_cast<double>(n),
                            a->scale_parameter, dr_data<double>(a->sums), rate}));
    f.rate = rate;
    f.beta1 = once(a->beta1);
    f.rest1 = once(1.0 - a->beta1);
    f.p = dr_data<float>(a->p);
    f.m = dr_data<float>(a->m);
    return dr_each(n, f);
}

dr_status dr_cuda_adafactor_apply(dr_context *cx, const dr_adafactor_apply_args *a)
{
    return run_apply(cx, a);
}
