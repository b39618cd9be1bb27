/*
 * backend/cuda/cuda_internal.cuh - what the CUDA sources share: launches, dtypes, reductions.
 * Private.
 *
 * Two compilers read these sources: nvcc, and the host compiler with tests/emu/include in front.
 */
#ifndef DR_CUDA_INTERNAL_CUH
#define DR_CUDA_INTERNAL_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

extern "C" {
#include "backend/cuda/cuda_gemm.h"
#include "ops/context.h"

#define X(name, group) dr_status dr_cuda_##name(dr_context *cx, const dr_##name##_args *a);
#include "ops/op_list.def"
#undef X

/* The open GPU's stream; a word in host memory that kernels can set (enum dr_cuda_flag). */
cudaStream_t dr_cuda_stream(void);
int *dr_cuda_flags(void);
void dr_cuda_exchange_close(void);
extern const dr_recorder dr_cuda_recorder;

/* Turn a runtime error into a record. */
dr_status dr_cuda_error(cudaError_t e, const char *call, const char *file, int line);
dr_status dr_cuda_launched(const char *kernel, const char *file, int line);

size_t dr_cuda_conv2d_work_bytes(dr_op_id op, const void *args);
size_t dr_cuda_attention_work_bytes(const dr_attention_args *a);
size_t dr_cuda_attention_backward_work_bytes(const dr_attention_backward_args *a);
/* Attention by cuDNN: whether it can, and the workspace that takes. */
bool dr_cuda_attention_is_fused(const dr_attention_args *a, size_t *bytes);
bool dr_cuda_attention_backward_is_fused(const dr_attention_backward_args *a, size_t *bytes);
dr_status dr_cuda_attention_fused(dr_context *cx, const dr_attention_args *a);
dr_status dr_cuda_attention_backward_fused(dr_context *cx, const dr_attention_backward_args *a);
size_t dr_cuda_groupnorm_work_bytes(const dr_groupnorm_args *a);
size_t dr_cuda_groupnorm_backward_work_bytes(const dr_groupnorm_backward_args *a);
size_t dr_cuda_layernorm_backward_work_bytes(const dr_layernorm_backward_args *a);
size_t dr_cuda_column_work_bytes(int64_t batch, int64_t rows, int64_t cols, int n_sums);
size_t dr_cuda_sumsq_work_bytes(const dr_sumsq_args *a);
size_t dr_cuda_checksum_work_bytes(const dr_checksum_args *a);
size_t dr_cuda_lion_work_bytes(const dr_lion_args *a);
size_t dr_cuda_dadapt_work_bytes(const dr_dadapt_args *a);
size_t dr_cuda_adafactor_sums_work_bytes(const dr_adafactor_sums_args *a);
size_t dr_cuda_adafactor_apply_work_bytes(const dr_adafactor_apply_args *a);
size_t dr_cuda_mse_work_bytes(const dr_mse_args *a);

dr_status dr_cuda_blockwise_all(dr_context *cx, const dr_blockwise_args *a, size_t n);

/* db += column sums of dy (rows,cols) (work: dr_cuda_column_work_bytes(1,...,1)). */
dr_status dr_cuda_add_column_sums(const dr_tensor *db, const dr_tensor *dy, void *work);
}

#define DR_CUDA(call)                                                                              \
    do {                                                                                           \
        const cudaError_t dr_cuda_e_ = (call);                                                     \
        if (dr_cuda_e_ != cudaSuccess) {                                                           \
            return dr_cuda_error(dr_cuda_e_, #call, __FILE__, __LINE__);                           \
        }                                                                                          \
    } while (0)

/* DR_LAUNCH(kernel, grid, block, shared bytes, stream, arguments...) is a dr_status. A kernel with
 * several template arguments stands in parentheses. DR_LAUNCH_ALONE: no thread waits for another.
 */
#ifdef __CUDACC__
#define DR_LAUNCH(kernel, grid, block, shared, stream, ...)                                        \
    ((kernel<<<(grid), (block), (shared), (stream)>>>(__VA_ARGS__)),                               \
     dr_cuda_launched(#kernel, __FILE__, __LINE__))
#define DR_LAUNCH_ALONE DR_LAUNCH
template <typename T> using dr_shared = T *;
#define DR_SHARED(T, name, offset, count)                                                          \
    extern __shared__ __align__(16) unsigned char dr_shared_memory[];                              \
    T *name = reinterpret_cast<T *>(dr_shared_memory + (offset))
#else
#define DR_LAUNCH(kernel, grid, block, shared, stream, ...)                                        \
    (emu_launch(#kernel, (grid), (block), (shared), (stream), true, kernel, __VA_ARGS__),          \
     dr_cuda_launched(#kernel, __FILE__, __LINE__))
#define DR_LAUNCH_ALONE(kernel, grid, block, shared, stream, ...)                                  \
    (emu_launch(#kernel, (grid), (block), (shared), (stream), false, kernel, __VA_ARGS__),         \
     dr_cuda_launched(#kernel, __FILE__, __LINE__))
template <typename T> using dr_shared = emu_shared<T>;
#define DR_SHARED(T, name, offset, count) emu_shared<T> name((offset), (count), #name)
#endif

enum dr_cuda_flag { DR_CUDA_FLAG_BAD_ID = 1 };
enum { DR_CUDA_FLAGS_WORDS = 4 }; /* flag, id, position, rows of the table */

/* ---- dtypes -----------------------------------------------------------------------------------
 */

static __device__ __forceinline__ float dr_get(const float *p, int64_t i)
{
    return p[i];
}
static __device__ __forceinline__ float dr_get(const __half *p, int64_t i)
{
    return __half2float(p[i]);
}
static __device__ __forceinline__ float dr_get(const __nv_bfloat16 *p, int64_t i)
{
    return __bfloat162float(p[i]);
}
static __device__ __forceinline__ void dr_put(float *p, int64_t i, float v)
{
    p[i] = v;
}
static __device__ __forceinline__ void dr_put(__half *p, int64_t i, float v)
{
    p[i] = __float2half(v);
}
static __device__ __forceinline__ void dr_put(__nv_bfloat16 *p, int64_t i, float v)
{
    p[i] = __float2bfloat16(v);
}
/* Writes or adds. */
template <typename T>
static __device__ __forceinline__ void dr_write_to(T *p, int64_t i, float v, bool add)
{
    dr_put(p, i, add ? dr_get(p, i) + v : v);
}

/* A parameter's gradient, of the compute dtype or the activations'. */
struct dr_gradient {
    void *data;
    dr_dtype dtype;
    __device__ __forceinline__ void add(int64_t i, float v) const
    {
        if (dtype == DR_F32) {
            dr_write_to(static_cast<float *>(data), i, v, true);
        } else if (dtype == DR_F16) {
            dr_write_to(static_cast<__half *>(data), i, v, true);
        } else {
            dr_write_to(static_cast<__nv_bfloat16 *>(data), i, v, true);
        }
    }
};
static inline dr_gradient dr_gradient_of(const dr_tensor *t)
{
    return t != nullptr ? dr_gradient{t->data, t->dtype} : dr_gradient{nullptr, DR_F32};
}

/* Runs the statements with T as the element type of dtype. */
#define DR_CUDA_WITH_TYPE(type, ...)                                                               \
    switch (type) {                                                                                \
    case DR_F32: {                                                                                 \
        using T = float;                                                                           \
        __VA_ARGS__;                                                                               \
        break;                                                                                     \
    }                                                                                              \
    case DR_F16: {                                                                                 \
        using T = __half;                                                                          \
        __VA_ARGS__;                                                                               \
        break;                                                                                     \
    }                                                                                              \
    case DR_BF16: {                                                                                \
        using T = __nv_bfloat16;                                                                   \
        __VA_ARGS__;                                                                               \
        break;                                                                                     \
    }                                                                                              \
    default:                                                                                       \
        DR_FAIL(DR_UNSUPPORTED, "backend cuda computes in F32, F16 and BF16, not in %s",           \
                dr_dtype_name(type));                                                              \
    }

template <typename T> static inline T *dr_data(const dr_tensor *t)
{
    return t != nullptr ? static_cast<T *>(t->data) : nullptr;
}
static inline const float *dr_floats(const dr_tensor *t)
{
    return dr_data<const float>(t);
}

/* ---- one thread per element -------------------------------------------------------------------
 */

/* f(i) for i in 0..n-1. */
template <typename F> __global__ void dr_each_kernel(int64_t n, F f)
{
    const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < n;
         i += step) {
        f(i);
    }
}

/* f(r, c) for every element of a (rows,cols) matrix; neighbouring threads have neighbouring
 * columns. */
template <typename F> __global__ void dr_grid_kernel(int64_t rows, int64_t cols, F f)
{
    const int64_t row_step = static_cast<int64_t>(gridDim.x) * blockDim.y;
    for (int64_t r = static_cast<int64_t>(blockIdx.x) * blockDim.y + threadIdx.y; r < rows;
         r += row_step) {
        for (int64_t c = static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x; c < cols;
             c += static_cast<int64_t>(gridDim.y) * blockDim.x) {
            f(r, c);
        }
    }
}

static inline unsigned dr_blocks(int64_t n, int64_t per_block, int64_t at_most)
{
    const int64_t blocks = (n + per_block - 1) / per_block;
    return static_cast<unsigned>(blocks < at_most ? blocks : at_most);
}

template <typename F> static dr_status dr_each_on(cudaStream_t stream, int64_t n, F f)
{
    if (n == 0) {
        return DR_OK;
    }
    return DR_LAUNCH_ALONE((dr_each_kernel<F>), dim3(dr_blocks(n, 256, 65536)), dim3(256), 0,
                           stream, n, f);
}

template <typename F> static dr_status dr_each(int64_t n, F f)
{
    return dr_each_on(dr_cuda_stream(), n, f);
}

template <typename F> static dr_status dr_grid(int64_t rows, int64_t cols, F f)
{
    if (rows == 0 || cols == 0) {
        return DR_OK;
    }
    return DR_LAUNCH_ALONE((dr_grid_kernel<F>),
                           dim3(dr_blocks(rows, 8, 1 << 20), dr_blocks(cols, 32, 64)), dim3(32, 8),
                           0, dr_cuda_stream(), rows, cols, f);
}

/* ---- sums -------------------------------------------------------------------------------------
 */

template <typename V> static __device__ __forceinline__ V dr_warp_sum(V v)
{
    for (int m = 16; m > 0; m /= 2) {
        v += __shfl_xor_sync(0xffffffffu, v, m);
    }
    return v;
}
static __device__ __forceinline__ float dr_warp_max(float v)
{
    for (int m = 16; m > 0; m /= 2) {
        v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, m));
    }
    return v;
}

/* Sum or maximum over a block of 32 x warps threads (blockDim.x); every thread gets it. scratch:
 * one V per warp. */
template <typename V> static __device__ V dr_block_sum(V v, dr_shared<V> scratch)
{
    v = dr_warp_sum(v);
    __syncthreads(); /* scratch may still be read from the sum before */
    if (threadIdx.x % 32 == 0) {
        scratch[threadIdx.x / 32] = v;
    }
    __syncthreads();
    V sum = 0;
    for (unsigned w = 0; w < blockDim.x / 32; w++) {
        sum += scratch[w];
    }
    return sum;
}
static __device__ inline float dr_block_max(float v, dr_shared<float> scratch)
{
    v = dr_warp_max(v);
    __syncthreads();
    if (threadIdx.x % 32 == 0) {
        scratch[threadIdx.x / 32] = v;
    }
    __syncthreads();
    float most = scratch[0];
    for (unsigned w = 1; w < blockDim.x / 32; w++) {
        most = fmaxf(most, scratch[w]);
    }
    return most;
}

/*
 * Sums over the rows of a batch of (rows,cols) matrices, K sums per column: f(r, c, v) gives the K
 * terms of row r = 0 .. batch rows - 1. Chunks of rows are summed by blocks of 32 columns x 8 rows,
 * then the chunks in their order by f.finish(item, column, sums): the same bits on every run.
 */
static constexpr int64_t DR_COLUMN_CHUNKS = 64;
static inline int64_t dr_column_chunks(int64_t rows)
{
    const int64_t chunks = (rows + 31) / 32;
    return chunks < DR_COLUMN_CHUNKS ? (chunks > 0 ? chunks : 1) : DR_COLUMN_CHUNKS;
}

template <typename F>
__global__ void dr_column_partials_kernel(int64_t rows, int64_t cols, int64_t per_chunk,
                                          float *partial, F f)
{
    DR_SHARED(float, tile, 0, F::K * 8 * 32);
    const int64_t c = static_cast<int64_t>(blockIdx.x) * 32 + threadIdx.x;
    const int64_t begin = static_cast<int64_t>(blockIdx.y) * per_chunk;
    const int64_t end = begin + per_chunk < rows ? begin + per_chunk : rows;
    float sum[F::K] = {};
    for (int64_t r = begin + threadIdx.y; r < end && c < cols; r += 8) {
        float v[F::K];
        f(blockIdx.z * rows + r, c, v);
        for (int k = 0; k < F::K; k++) {
            sum[k] += v[k];
        }
    }
    for (int k = 0; k < F::K; k++) {
        tile[(k * 8 + threadIdx.y) * 32 + threadIdx.x] = sum[k];
    }
    __syncthreads();
    if (threadIdx.y == 0 && c < cols) {
        for (int k = 0; k < F::K; k++) {
            float total = 0.0f;
            for (int y = 0; y < 8; y++) {
                total += tile[(k * 8 + y) * 32 + threadIdx.x];
            }
            partial[((static_cast<int64_t>(blockIdx.z) * gridDim.y + blockIdx.y) * F::K + k) *
                        cols +
                    c] = total;
        }
    }
}

template <typename F> struct dr_column_finish {
    F f;
    const float *partial;
    int64_t chunks, cols;
    __device__ void operator()(int64_t item, int64_t c) const
    {
        float sum[F::K] = {};
        for (int64_t i = 0; i < chunks; i++) {
            for (int k = 0; k < F::K; k++) {
                sum[k] += partial[((item * chunks + i) * F::K + k) * cols + c];
            }
        }
        f.finish(item, c, sum);
    }
};

template <typename F>
static dr_status dr_column_sums(int64_t batch, int64_t rows, int64_t cols, void *work, F f)
{
    const int64_t chunks = dr_column_chunks(rows);
    const int64_t per_chunk = (rows + chunks - 1) / chunks;
    float *partial = static_cast<float *>(work);
    DR_CHECK(batch <= 65535, "column sums of %lld items", static_cast<long long>(batch));
    DR_TRY(DR_LAUNCH((dr_column_partials_kernel<F>),
                     dim3(dr_blocks(cols, 32, 1 << 30), static_cast<unsigned>(chunks),
                          static_cast<unsigned>(batch)),
                     dim3(32, 8), F::K * 8 * 32 * sizeof(float), dr_cuda_stream(), rows, cols,
                     per_chunk, partial, f));
    return dr_grid(batch, cols, dr_column_finish<F>{f, partial, chunks, cols});
}

#endif
