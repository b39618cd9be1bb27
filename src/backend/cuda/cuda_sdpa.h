/*
 * backend/cuda/cuda_sdpa.h - attention by cuDNN's fused kernels, opened with cuda_cudnn.h. Private
 * to backend/cuda.
 *
 * Scores and probabilities never reach memory in forward; backward keeps the gradients of the
 * scores of what one call covers, which is what makes its sums deterministic. A description has one
 * plan, found when it is first asked for (while the step is planned) and kept until the GPU is
 * closed.
 */
#ifndef DR_CUDA_SDPA_H
#define DR_CUDA_SDPA_H

#include "dreamrun/status.h"
#include "tensor/dtype.h"

#ifdef __cplusplus
extern "C" {
#endif

#ifndef DR_CUDA_SDPA_MOST_SCORES /* tests/emu has little, so that attention is divided there */
#define DR_CUDA_SDPA_MOST_SCORES                                                                   \
    (256 << 20) /* bytes of one backward call; a plan wants a little more */
#endif

/* All bytes count: zero it before it is filled. */
typedef struct dr_cuda_sdpa {
    int64_t n, heads;  /* samples and heads of one call                       */
    int64_t sq, sk, d; /* queries, keys, channels of a head                   */
    int64_t all_heads; /* of the tensors: rows are all_heads d elements apart */
    dr_dtype dtype;    /* F16 or BF16 */
    int32_t is_backward;
} dr_cuda_sdpa;

/* Whether there is a plan; *bytes of workspace (a multiple of 64, aligned to 64) is what a call
 * takes. Without one *why says so in words, valid until the GPU is closed. */
bool dr_cuda_sdpa_has(const dr_cuda_sdpa *s, size_t *bytes, const char **why);

/* Where a call reads and writes; every pointer is a multiple of 16 bytes, the lse of 4. */
typedef struct dr_cuda_sdpa_data {
    const void *q, *k, *v; /* (n,S,all_heads*d) each, at the first of the heads    */
    void *o;               /* written, or read by backward                         */
    float *lse;            /* (n,all_heads,sq) at the first head; the same         */
    const void *dout;      /* backward */
    void *dq, *dk, *dv;
} dr_cuda_sdpa_data;

/* Enqueues a call that has a plan on the stream (a cudaStream_t). */
DR_MUST_USE dr_status dr_cuda_sdpa_run(void *stream, const dr_cuda_sdpa *s,
                                       const dr_cuda_sdpa_data *data, void *work);

typedef struct dr_cuda_sdpa_counts {
    int64_t planned, refused; /* descriptions with and without a plan */
    const char *why;          /* the first refusal in words, or NULL */
} dr_cuda_sdpa_counts;
dr_cuda_sdpa_counts dr_cuda_sdpa_counted(void);

#ifdef __cplusplus
}
#endif
#endif
