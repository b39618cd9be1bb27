/*
 * backend/cuda/cuda_cudnn.h - convolutions by cuDNN, opened when a GPU is. Private to backend/cuda;
 * the emulated build has its own cuDNN (tests/emu/emu_cudnn.cc).
 *
 * A convolution has one plan per description, found when it is first asked for (while the step is
 * planned) and kept until the GPU is closed. Plans are deterministic; in F32 they multiply in F32
 * unless the GPU was opened with tf32.
 */
#ifndef DR_CUDA_CUDNN_H
#define DR_CUDA_CUDNN_H

#include "dreamrun/status.h"
#include "ops/conv2d.h"
#include "tensor/dtype.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum dr_cuda_conv_kind {
    DR_CUDA_CONV_Y,  /* y from x, w  */
    DR_CUDA_CONV_DX, /* dx from dy, w */
    DR_CUDA_CONV_DW  /* dw from dy, x */
} dr_cuda_conv_kind;

/* All bytes count: zero it before it is filled. */
typedef struct dr_cuda_conv {
    int64_t n, h, w, in; /* image (N,H,W,I)   */
    int64_t ho, wo, out; /* output (N,Ho,Wo,O) */
    dr_conv2d_geom geom;
    dr_cuda_conv_kind kind;
    dr_dtype dtype;  /* of what is read */
    dr_dtype result; /* of what is written: dtype, or F32 */
    int32_t adds;    /* 1: to what is there */
} dr_cuda_conv;

enum { DR_CUDA_CUDNN_ALIGNMENT = 16 };        /* of every pointer, in bytes */
enum { DR_CUDA_CUDNN_MOST_WORK = 272 << 20 }; /* bytes of workspace that a plan may want */

/* What convolutions met so far, for the report of a run. */
typedef struct dr_cuda_cudnn_counts {
    int64_t planned, refused; /* descriptions with and without a plan */
} dr_cuda_cudnn_counts;

/*
 * Opens libcudnn.so.9. Without it *why says so in words (valid until close) and no convolution has
 * a plan; that is no error. tf32: F32 convolutions may use 10-bit mantissas. DR_DEVICE: the library
 * is there and fails.
 */
DR_MUST_USE dr_status dr_cuda_cudnn_open(bool tf32, const char **why);
void dr_cuda_cudnn_close(void);
/* cuDNN's version as 91900; 0: it is not open. */
int dr_cuda_cudnn_version(void);
dr_cuda_cudnn_counts dr_cuda_cudnn_counted(void);

/* Whether there is a plan; *bytes of workspace, aligned as above, is what running it takes. */
bool dr_cuda_cudnn_has(const dr_cuda_conv *c, size_t *bytes);
/*
 * Enqueues a convolution that has a plan on the stream (a cudaStream_t). a, b: x, w or dy, w or
 * dy, x as the kind says; out is written or added to. NULL work is fine for 0 bytes.
 */
DR_MUST_USE dr_status dr_cuda_cudnn_run(void *stream, const dr_cuda_conv *c, const void *a,
                                        const void *b, void *out, void *work);

#ifdef __cplusplus
}
#endif
#endif
