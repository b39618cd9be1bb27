/*
 * backend/cpu/cpu_internal.h - what the files of this backend share: op functions, tasks, gemm.
 *
 * Layer:    backend/cpu, private.
 */
#ifndef DR_CPU_INTERNAL_H
#define DR_CPU_INTERNAL_H

#include "ops/attention.h"
#include "ops/cast.h"
#include "ops/conv2d.h"
#include "ops/diffusion_ops.h"
#include "ops/embedding.h"
#include "ops/layout.h"
#include "ops/linear.h"
#include "ops/norm.h"
#include "ops/optimizer_ops.h"
#include "ops/pointwise.h"

#define X(name, group) dr_status dr_cpu_##name(dr_context *cx, const dr_##name##_args *a);
#include "ops/op_list.def"
#undef X

/* Scratch bytes of the ops that need some. */
size_t dr_cpu_linear_work(const dr_context *cx, const dr_linear_args *a);
size_t dr_cpu_linear_dx_work(const dr_context *cx, const dr_linear_dx_args *a);
size_t dr_cpu_conv2d_work(const dr_context *cx, const dr_conv2d_args *a);
size_t dr_cpu_conv2d_dx_work(const dr_context *cx, const dr_conv2d_dx_args *a);
size_t dr_cpu_conv2d_dw_work(const dr_context *cx, const dr_conv2d_dw_args *a);
size_t dr_cpu_attention_work(const dr_context *cx, const dr_attention_args *a);
size_t dr_cpu_attention_backward_work(const dr_context *cx, const dr_attention_backward_args *a);
size_t dr_cpu_groupnorm_work(const dr_context *cx, const dr_groupnorm_args *a);
size_t dr_cpu_groupnorm_backward_work(const dr_context *cx, const dr_groupnorm_backward_args *a);
size_t dr_cpu_update_sums_work(int64_t n);
size_t dr_cpu_adafactor_sums_work(const dr_adafactor_sums_args *a);
size_t dr_cpu_adafactor_apply_work(const dr_adafactor_apply_args *a);
size_t dr_cpu_checksum_work(const dr_checksum_args *a);
size_t dr_cpu_sumsq_work(const dr_context *cx, const dr_sumsq_args *a);

/*
 * Hot loops are compiled for several x86-64 levels and chosen when the program starts. Sanitizers
 * cannot run the resolvers; other compilers and architectures take the plain version.
 */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) &&       \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define DR_CPU_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define DR_CPU_CLONES
#endif
#if defined(__GNUC__)
#define DR_CPU_INLINE static inline __attribute__((always_inline))
#else
#define DR_CPU_INLINE static inline
#endif

/*
 * Runs task(job, i, thread) for i = 0..n-1 on cx->threads threads, in any order. A task may depend
 * on thread (0..cx->threads-1) only to pick its scratch memory.
 */
typedef void (*dr_cpu_task)(const void *job, int64_t i, int thread);
void dr_cpu_run(const dr_context *cx, int64_t n, dr_cpu_task task, const void *job);

/* Elements per task of pointwise loops: 128 KiB of floats, about 10 us; starting threads costs 3.
 */
enum { DR_CPU_CHUNK = 32768 };
/* Elements per task of optimizer updates; part of the order of their sums. */
enum { DR_CPU_UPDATE = 65536 };

DR_CPU_INLINE int64_t dr_cpu_ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

DR_CPU_INLINE int64_t dr_cpu_min(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Rows of a task that walks rows of cols elements. */
DR_CPU_INLINE int64_t dr_cpu_row_block(int64_t cols)
{
    return cols < DR_CPU_CHUNK ? DR_CPU_CHUNK / cols : 1;
}

/* Rounds a count of floats up to whole 64-byte lines. */
DR_CPU_INLINE int64_t dr_cpu_lines(int64_t n)
{
    return (n + 15) / 16 * 16;
}

/* n cut into equal pieces of at most `most`, each a multiple of `unit` but the last. */
DR_CPU_INLINE int64_t dr_cpu_piece(int64_t n, int64_t most, int64_t unit)
{
    const int64_t piece = dr_cpu_ceil_div(n, dr_cpu_ceil_div(n, most));
    return dr_cpu_min(n, dr_cpu_ceil_div(piece, unit) * unit);
}

/* Row-major C[m,n] = alpha op(A) op(B) + beta C; leading sizes in elements. */
typedef struct dr_cpu_matmul {
    bool ta, tb; /* A is stored (k,m) / B is stored (n,k) */
    int64_t m, n, k;
    float alpha, beta;
    const float *a, *b;
    float *c;
    int64_t lda, ldb, ldc;
} dr_cpu_matmul;
/* On the calling thread alone; the same bits from any thread. */
void dr_cpu_gemm(const dr_cpu_matmul *g);
/* The same for op(B) = B^T and long k, without copying B; false when it is not made for g. */
bool dr_cpu_dot(const dr_cpu_matmul *g);
/* The same for B as it is and few rows or few products; false when it is not made for g. */
bool dr_cpu_thin(const dr_cpu_matmul *g);
/* On all threads of cx, in blocks of C. bias: (n) added to every row, or NULL. beta: 0 or 1. */
void dr_cpu_gemm_blocks(const dr_context *cx, const dr_cpu_matmul *g, const float *bias);
/* C[m,n] = bias in every row, or C += bias when add. */
void dr_cpu_bias_rows(float *c, int64_t ldc, int64_t m, int64_t n, const float *bias, bool add);

/* out[j] += sum over rows of x[row, j], j < cols: 32 columns a task, double sums of 64 rows. */
void dr_cpu_column_sums(const dr_context *cx, const float *x, int64_t rows, int64_t cols,
                        float *out);

#endif
