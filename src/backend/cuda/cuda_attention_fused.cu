/*
 * backend/cuda/cuda_attention_fused.cu - attention (ops/attention.h) by cuDNN (cuda_sdpa.h), where
 * that has a plan for it: F16 and BF16, without a causal limit.
 *
 * Backward's workspace holds 2 bytes per score. A call covers all samples and heads where that fits
 * into DR_CUDA_SDPA_MOST_SCORES, else some heads of one sample.
 */
#include "backend/cuda/cuda_internal.cuh"

#include <cstring>

extern "C" {
#include "backend/cuda/cuda_cudnn.h"
#include "backend/cuda/cuda_sdpa.h"
#include "ops/attention.h"
}

static bool is_aligned(const dr_tensor *t)
{
    return reinterpret_cast<uintptr_t>(t->data) % DR_CUDA_CUDNN_ALIGNMENT == 0;
}

static size_t align64(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static dr_cuda_sdpa describe(const dr_tensor *q, const dr_tensor *k, int heads)
{
    dr_cuda_sdpa s;
    memset(&s, 0, sizeof s);
    s.n = q->dim[0];
    s.heads = s.all_heads = heads;
    s.sq = q->dim[1];
    s.sk = k->dim[1];
    s.d = q->dim[2] / heads;
    s.dtype = q->dtype;
    return s;
}

/* Fewer heads per call, where the scores of all are too many; 0 where one head's are. */
static void divide(dr_cuda_sdpa *s)
{
    const int64_t per_head = (s->sq + 127) / 128 * 128 * ((s->sk + 127) / 128 * 128) * 2;
    int64_t most = DR_CUDA_SDPA_MOST_SCORES / per_head;
    if (most >= s->n * s->heads) {
        return;
    }
    s->n = 1;
    most = most < s->heads ? most : s->heads;
    while (most > 0 && s->all_heads % most != 0) {
        most--;
    }
    s->heads = most;
}

static size_t lse_bytes(const dr_cuda_sdpa *s)
{
    return align64(static_cast<size_t>(s->n * s->all_heads * s->sq) * sizeof(float));
}

static bool forward_call(const dr_attention_args *a, dr_cuda_sdpa *s, size_t *bytes)
{
    const char *why = nullptr;
    *s = describe(a->q, a->k, a->heads);
    *bytes = 0;
    if (s->dtype == DR_F32 || a->causal || !is_aligned(a->q) || !is_aligned(a->k) ||
        !is_aligned(a->v) || !is_aligned(a->o) || !dr_cuda_sdpa_has(s, bytes, &why)) {
        return false;
    }
    *bytes += a->lse == nullptr ? lse_bytes(s) : 0;
    return true;
}

static bool backward_call(const dr_attention_backward_args *a, dr_cuda_sdpa *s, size_t *bytes)
{
    const char *why = nullptr;
    *s = describe(a->q, a->k, a->heads);
    s->is_backward = 1;
    divide(s);
    *bytes = 0;
    return s->dtype != DR_F32 && !a->causal && s->heads > 0 && is_aligned(a->q) &&
           is_aligned(a->k) && is_aligned(a->v) && is_aligned(a->o) && is_aligned(a->dout) &&
           is_aligned(a->dq) && is_aligned(a->dk) && is_aligned(a->dv) &&
           dr_cuda_sdpa_has(s, bytes, &why);
}

bool dr_cuda_attention_is_fused(const dr_attention_args *a, size_t *bytes)
{
    dr_cuda_sdpa s;
    return forward_call(a, &s, bytes);
}

bool dr_cuda_attention_backward_is_fused(const dr_attention_backward_args *a, size_t *bytes)
{
    dr_cuda_sdpa s;
    return backward_call(a, &s, bytes);
}

dr_status dr_cuda_attention_fused(dr_context *cx, const dr_attention_args *a)
{
    dr_cuda_sdpa s;
    size_t bytes = 0;
    dr_cuda_sdpa_data data = {};
    char *work = static_cast<char *>(cx->work);
    (void)forward_call(a, &s, &bytes);
    data.q = a->q->data;
    data.k = a->k->data;
    data.v = a->v->data;
    data.o = a->o->data;
    data.lse = dr_data<float>(a->lse);
    if (a->lse == nullptr) {
        data.lse = reinterpret_cast<float *>(work);
        work += lse_bytes(&s);
    }
    return dr_cuda_sdpa_run(dr_cuda_stream(), &s, &data, work);
}

/* Head h of sample n of a tensor with len rows per sample. */
static char *at(const dr_cuda_sdpa &s, const dr_tensor *t, int64_t len, int64_t n, int64_t h)
{
    return static_cast<char *>(t->data) +
           static_cast<size_t>((n * len * s.all_heads + h) * s.d) * dr_dtype_size(s.dtype);
}

dr_status dr_cuda_attention_backward_fused(dr_context *cx, const dr_attention_backward_args *a)
{
    dr_cuda_sdpa s;
    size_t bytes = 0;
    (void)backward_call(a, &s, &bytes);
    for (int64_t n = 0; n < a->q->dim[0]; n += s.n) {
        for (int64_t h = 0; h < s.all_heads; h += s.heads) {
            dr_cuda_sdpa_data data = {};
            data.q = at(s, a->q, s.sq, n, h);
            data.k = at(s, a->k, s.sk, n, h);
            data.v = at(s, a->v, s.sk, n, h);
            data.o = at(s, a->o, s.sq, n, h);
            data.lse = dr_data<float>(a->lse) + (n * s.all_heads + h) * s.sq;
            data.dout = at(s, a->dout, s.sq, n, h);
            data.dq = at(s, a->dq, s.sq, n, h);
            data.dk = at(s, a->dk, s.sk, n, h);
            data.dv = at(s, a->dv, s.sk, n, h);
            DR_TRY(dr_cuda_sdpa_run(dr_cuda_stream(), &s, &data, cx->work));
        }
    }
    return DR_OK;
}
