/*
 * backend/cuda/cuda_gemm.h - matrix products: cuBLASLt behind one file. Private to backend/cuda;
 * the emulated build has loops in its place (tests/emu/emu_gemm.cc).
 */
#ifndef DR_CUDA_GEMM_H
#define DR_CUDA_GEMM_H

#include "dreamrun/status.h"
#include "tensor/dtype.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Element (i,j) of item t of a batch: data[t stride + i ld + j], or data[t stride + j ld + i] when
 * transposed. Strides and ld are in elements. */
typedef struct dr_cuda_matrix {
    const void *data;
    int64_t ld, stride;
    bool transposed;
} dr_cuda_matrix;

/* c = alpha a b + beta c + bias (added to every row); a is (m,k), b is (k,n), c is (m,n). */
typedef struct dr_cuda_gemm_args {
    int64_t m, n, k, batch;
    dr_dtype dtype; /* of a, b and bias */
    dr_cuda_matrix a, b;
    const void *bias; /* (n), or NULL */
    void *c;
    dr_dtype c_dtype; /* dtype, or F32 */
    int64_t c_ld, c_stride;
    float alpha, beta;
} dr_cuda_gemm_args;

/* Enqueues on the stream (a cudaStream_t). */
DR_MUST_USE dr_status dr_cuda_gemm(void *stream, const dr_cuda_gemm_args *args);
DR_MUST_USE dr_status dr_cuda_gemm_open(bool tf32);
void dr_cuda_gemm_close(void);

#ifdef __cplusplus
}
#endif
#endif
