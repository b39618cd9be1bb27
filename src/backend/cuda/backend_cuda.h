/*
 * backend/cuda/backend_cuda.h - one NVIDIA GPU of this process: f32, fp16 and bf16 storage, sums in
 * f32.
 *
 * Layer:    backend; may include ops/, tensor/ and base/. Included by apps and tests only.
 * Threads:  one process drives one GPU: open, ops and device calls come from one thread.
 * Streams:  ops and uploads are enqueued on one stream and return; DR_OK means "enqueued". A
 * download waits for all work before it and reports what went wrong in it. Results:  depend on the
 * inputs and the GPU only: no atomics, fixed orders of summation.
 *
 * The program starts without NVIDIA's driver and libraries: they are opened when a GPU is.
 */
#ifndef DR_BACKEND_CUDA_H
#define DR_BACKEND_CUDA_H

#include "ops/context.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dr_cuda_info {
    char name[256];
    unsigned char uuid[16];
    int major, minor; /* compute capability */
    uint64_t total_bytes;
} dr_cuda_info;

/* Which F32 products may use 10-bit mantissas (TF32), as torch.backends has it. */
typedef enum dr_cuda_tf32 {
    DR_CUDA_TF32_OFF,
    DR_CUDA_TF32_CONVOLUTIONS, /* cuDNN's: PyTorch's default */
    DR_CUDA_TF32_ALL           /* and cuBLASLt's */
} dr_cuda_tf32;

/* The number of GPUs this process may use; 0 with the reason in words. */
int dr_cuda_count(char reason[256]);
/*
 * Opens GPU `device` (0 .. count-1) for this process and gives its backend. DR_DEVICE when the GPU,
 * the driver or cuBLASLt cannot be used.
 */
DR_MUST_USE dr_status dr_cuda_open(int device, dr_cuda_tf32 tf32, const dr_backend **out);
/* Waits for the GPU and gives everything back; without effect when nothing is open. */
void dr_cuda_close(void);
/* Facts about GPU `device`; needs no open one. */
DR_MUST_USE dr_status dr_cuda_describe(int device, dr_cuda_info *out);
/* What convolutions of the open GPU run on, in words: cuDNN's version, or why there is none; and,
 * once some were asked for, how many have a plan there. */
void dr_cuda_describe_convolutions(char out[256]);
/* The same of attention: how many shapes cuDNN's fused kernels do, and why not the others. */
void dr_cuda_describe_attention(char out[256]);
/* Memory of the open GPU that nobody uses. */
DR_MUST_USE dr_status dr_cuda_free_bytes(uint64_t *out);

/*
 * A second stream of the open GPU, a cudaStream_t, for sums of gradients (dist/data_plane.h): it
 * and the ops' stream are ordered by after_compute and before_compute alone. Closed with the GPU.
 */
DR_MUST_USE dr_status dr_cuda_exchange_open(void **stream);
DR_MUST_USE dr_status dr_cuda_exchange_after_compute(void);
DR_MUST_USE dr_status dr_cuda_exchange_before_compute(void);
/* sum = left + sum; to = from: n numbers, on the second stream. */
DR_MUST_USE dr_status dr_cuda_exchange_add(float *sum, const float *left, int64_t n);
DR_MUST_USE dr_status dr_cuda_exchange_copy(float *to, const float *from, int64_t n);
/* Whether the second stream has done all that came before the last before_compute. */
DR_MUST_USE dr_status dr_cuda_exchange_is_done(bool *done);

#ifdef __cplusplus
}
#endif
#endif
