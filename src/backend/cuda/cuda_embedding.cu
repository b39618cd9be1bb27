/*
 * backend/cuda/cuda_embedding.cu - token, position and timestep embeddings (ops/embedding.h).
 *
 * An id outside its table is a broken contract that only the GPU can see: the kernel leaves it in
 * the flags, reads row 0, and the next download ends in a panic that names it.
 */
#include "backend/cuda/cuda_internal.cuh"

extern "C" {
#include "ops/embedding.h"
}

static __device__ int64_t checked_id(const int32_t *ids, int64_t r, int64_t table, int *flags)
{
    const int32_t id = ids[r];
    if (id >= 0 && id < table) {
        return id;
    }
    flags[1] = id;
    flags[2] = static_cast<int>(r);
    flags[3] = static_cast<int>(table);
    flags[0] = DR_CUDA_FLAG_BAD_ID;
    return 0;
}

template <typename T> struct look_up {
    const int32_t *ids;
    const T *tokens, *positions;
    T *y;
    int64_t table, length, channels;
    int *flags;
    __device__ void operator()(int64_t r, int64_t c) const
    {
        const int64_t id = checked_id(ids, r, table, flags);
        dr_put(y, r * channels + c,
               dr_get(tokens, id * channels + c) + dr_get(positions, r % length * channels + c));
    }
};

dr_status dr_cuda_embedding(dr_context *, const dr_embedding_args *a)
{
    const int64_t channels = dr_cols(a->y);
    DR_CUDA_WITH_TYPE(
        a->y->dtype,
        return dr_grid(dr_rows(a->y), channels,
                       look_up<T>{dr_data<const int32_t>(a->ids), dr_data<T>(a->tokens),
                                  dr_data<T>(a->positions), dr_data<T>(a->y), a->tokens->dim[0],
                                  a->y->dim[1], channels, dr_cuda_flags()}));
}

/*
 * dtokens: the thread of row r sums all rows with the same id, in their order, if r is the first of
 * them; the others do nothing. Rows are few (77 per caption), so looking at all of them is cheap.
 */
template <typename T> struct scatter_tokens {
    const int32_t *ids;
    const T *dy;
    dr_gradient dtokens;
    int64_t rows, table, channels;
    int *flags;
    __device__ void operator()(int64_t r, int64_t c) const
    {
        const int64_t id = checked_id(ids, r, table, flags);
        for (int64_t q = 0; q < r; q++) {
            if (ids[q] == ids[r]) {
                return;
            }
        }
        float sum = 0.0f;
        for (int64_t q = r; q < rows; q++) {
            if (ids[q] == ids[r]) {
                sum += dr_get(dy, q * channels + c);
            }
        }
        dtokens.add(id * channels + c, sum);
    }
};

template <typename T> struct scatter_positions {
    const T *dy;
    dr_gradient dpositions;
    int64_t rows, length, channels;
    __device__ void operator()(int64_t s, int64_t c) const
    {
        float sum = 0.0f;
        for (int64_t r = s; r < rows; r += length) {
            sum += dr_get(dy, r * channels + c);
        }
        dpositions.add(s * channels + c, sum);
    }
};

template <typename T> static dr_status backward(const dr_embedding_backward_args *a)
{
    const int64_t rows = dr_rows(a->dy);
    const int64_t channels = dr_cols(a->dy);
    if (a->dtokens != nullptr) {
        DR_TRY(dr_grid(rows, channels,
                       scatter_tokens<T>{dr_data<const int32_t>(a->ids), dr_data<T>(a->dy),
                                         dr_gradient_of(a->dtokens), rows, a->dtokens->dim[0],
                                         channels, dr_cuda_flags()}));
    }
    if (a->dpositions != nullptr) {
        DR_TRY(dr_grid(a->dy->dim[1], channels,
                       scatter_positions<T>{dr_data<T>(a->dy), dr_gradient_of(a->dpositions), rows,
                                            a->dy->dim[1], channels}));
    }
    return DR_OK;
}

dr_status dr_cuda_embedding_backward(dr_context *, const dr_embedding_backward_args *a)
{
    DR_CUDA_WITH_TYPE(a->dy->dtype, return backward<T>(a));
}

/* As in f32, but each function in double and rounded: CUDA's expf, 2 ulp off, would shift the angle
 * 999 by 1e-4. */
template <typename T> struct wave {
    const float *t;
    T *y;
    int64_t half;
    __device__ void operator()(int64_t n, int64_t i) const
    {
        const float log_period = 9.21034037197618f; /* ln(10000) */
        const float exponent = -log_period * static_cast<float>(i) / static_cast<float>(half);
        const float angle = t[n] * static_cast<float>(exp(static_cast<double>(exponent)));
        dr_put(y, n * 2 * half + i, static_cast<float>(cos(static_cast<double>(angle))));
        dr_put(y, n * 2 * half + half + i, static_cast<float>(sin(static_cast<double>(angle))));
    }
};

dr_status dr_cuda_timestep_embedding(dr_context *, const dr_timestep_embedding_args *a)
{
    const int64_t half = a->y->dim[1] / 2;
    DR_CUDA_WITH_TYPE(
        a->y->dtype,
        return dr_grid(a->y->dim[0], half, wave<T>{dr_floats(a->t), dr_data<T>(a->y), half}));
}
