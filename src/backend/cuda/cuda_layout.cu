/*
 * backend/cuda/cuda_layout.cu - concatenation, split, transposition, nearest upsampling
 * (ops/layout.h). Memory moves; one thread per element.
 */
#include "backend/cuda/cuda_internal.cuh"

extern "C" {
#include "ops/layout.h"
}

template <typename T> struct join {
    const T *a, *b;
    T *y;
    int64_t ca, cb;
    __device__ void operator()(int64_t r, int64_t c) const
    {
        y[r * (ca + cb) + c] = c < ca ? a[r * ca + c] : b[r * cb + c - ca];
    }
};

dr_status dr_cuda_concat(dr_context *, const dr_concat_args *a)
{
    DR_CUDA_WITH_TYPE(a->y->dtype,
                      return dr_grid(dr_rows(a->y), dr_cols(a->y),
                                     join<T>{dr_data<T>(a->a), dr_data<T>(a->b), dr_data<T>(a->y),
                                             dr_cols(a->a), dr_cols(a->b)}));
}

template <typename T> struct part {
    const T *dy;
    T *da, *db;
    int64_t ca, cb;
    bool add_a, add_b;
    __device__ void operator()(int64_t r, int64_t c) const
    {
        const float v = dr_get(dy, r * (ca + cb) + c);
        if (c < ca && da != nullptr) {
            dr_write_to(da, r * ca + c, v, add_a);
        } else if (c >= ca && db != nullptr) {
            dr_write_to(db, r * cb + c - ca, v, add_b);
        }
    }
};

dr_status dr_cuda_split(dr_context *, const dr_split_args *a)
{
    const int64_t cols = dr_cols(a->dy);
    DR_CUDA_WITH_TYPE(
        a->dy->dtype,
        return dr_grid(dr_rows(a->dy), cols,
                       part<T>{dr_data<T>(a->dy), dr_data<T>(a->da), dr_data<T>(a->db), a->ca,
                               cols - a->ca, a->mode_a == DR_ADD, a->mode_b == DR_ADD}));
}

/* y (A,Q,P,C) = x (A,P,Q,C), by rows of y. */
template <typename T> struct swapped {
    const T *x;
    T *y;
    int64_t p, q, channels;
    __device__ void operator()(int64_t r, int64_t c) const
    {
        const int64_t from = (r / (p * q) * p + r % p) * q + r / p % q;
        y[r * channels + c] = x[from * channels + c];
    }
};

dr_status dr_cuda_swap(dr_context *, const dr_swap_args *a)
{
    const int64_t *d = a->x->dim;
    DR_CUDA_WITH_TYPE(a->x->dtype, return dr_grid(dr_rows(a->x), d[3],
                                                  swapped<T>{dr_data<const T>(a->x),
                                                             dr_data<T>(a->y), d[1], d[2], d[3]}));
}

/* y(n,h,w) = x(n, h/2, w/2); wide: columns of y's pixels. */
template <typename T> struct upsample {
    const T *x;
    T *y;
    int64_t wide, channels;
    __device__ void operator()(int64_t r, int64_t c) const
    {
        const int64_t from = r / wide / 2 * (wide / 2) + r % wide / 2;
        y[r * channels + c] = x[from * channels + c];
    }
};

dr_status dr_cuda_upsample2x(dr_context *, const dr_upsample2x_args *a)
{
    const int64_t channels = dr_cols(a->x);
    DR_CUDA_WITH_TYPE(a->x->dtype, return dr_grid(dr_rows(a->y), channels,
                                                  upsample<T>{dr_data<T>(a->x), dr_data<T>(a->y),
                                                              a->y->dim[2], channels}));
}

/* dx(n,h,w) = or += the sum of the 2x2 block of dy copied from it; width: of dx. */
template <typename T> struct upsample_backward {
    const T *dy;
    T *dx;
    int64_t width, channels;
    bool add;
    __device__ void operator()(int64_t r, int64_t c) const
    {
        const int64_t first = 4 * (r / width) * width + 2 * (r % width);
        const int64_t top = first * channels + c;
        const int64_t bottom = top + 2 * width * channels;
        const float sum = (dr_get(dy, top) + dr_get(dy, top + channels)) +
                          (dr_get(dy, bottom) + dr_get(dy, bottom + channels));
        dr_write_to(dx, r * channels + c, sum, add);
    }
};

dr_status dr_cuda_upsample2x_backward(dr_context *, const dr_upsample2x_backward_args *a)
{
    const int64_t channels = dr_cols(a->dx);
    DR_CUDA_WITH_TYPE(
        a->dx->dtype,
        return dr_grid(dr_rows(a->dx), channels,
                       upsample_backward<T>{dr_data<T>(a->dy), dr_data<T>(a->dx), a->dx->dim[2],
                                            channels, a->mode == DR_ADD}));
}
