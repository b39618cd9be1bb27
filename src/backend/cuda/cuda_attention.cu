/*
 * backend/cuda/cuda_attention.cu - attention (ops/attention.h): cuDNN's fused kernels where they
 * can (cuda_attention_fused.cu), else batched matrix products over heads with our softmax between
 * them. Scores exist for a range of query rows at a time, so memory is linear in the lengths; they
 * and the softmax are f32, probabilities are stored in the activation dtype.
 *
 * Backward, per range of queries (delta_i = do_i . o_i):
 * p = exp(scale q k^T - lse); dp = do v^T; ds = p (dp - delta) scale; dv += p^T do; dk += ds^T q;
 * dq = ds k.
 */
#include "backend/cuda/cuda_internal.cuh"

extern "C" {
#include "ops/attention.h"
}

enum { SCORE_BYTES = 64 << 20, SOFTMAX_THREADS = 128, ROW_THREADS = 32 };

typedef struct attention {
    int64_t n, heads, sq, sk, d, width; /* width = heads d: elements between two rows */
    int64_t rows;                       /* queries at a time */
    float scale;
    dr_dtype dtype;
    bool causal;
} attention;

static attention describe(const dr_tensor *q, const dr_tensor *k, int heads, bool causal)
{
    attention s = {};
    s.n = q->dim[0];
    s.heads = heads;
    s.sq = q->dim[1];
    s.sk = k->dim[1];
    s.width = q->dim[2];
    s.d = s.width / heads;
    s.scale = static_cast<float>(1.0 / sqrt(static_cast<double>(s.d)));
    s.dtype = q->dtype;
    s.causal = causal;
    s.rows = SCORE_BYTES / (s.heads * s.sk * static_cast<int64_t>(sizeof(float)));
    s.rows = s.rows < 1 ? 1 : s.rows;
    s.rows = s.rows > s.sq ? s.sq : s.rows;
    return s;
}

static size_t align64(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

static size_t score_bytes(const attention *s)
{
    return align64(static_cast<size_t>(s->heads * s->rows * s->sk) * sizeof(float));
}

static size_t probability_bytes(const attention *s)
{
    return align64(static_cast<size_t>(s->heads * s->rows * s->sk) * dr_dtype_size(s->dtype));
}

/* f32 sums of dk and dv of one sample where the dtype is narrower and several ranges are added. */
static size_t sum_bytes(const attention *s)
{
    const bool needed = s->dtype != DR_F32 && s->rows < s->sq;
    return needed ? align64(static_cast<size_t>(s->sk * s->width) * sizeof(float)) : 0;
}

size_t dr_cuda_attention_work_bytes(const dr_attention_args *a)
{
    const attention s = describe(a->q, a->k, a->heads, a->causal);
    size_t fused = 0;
    return dr_cuda_attention_is_fused(a, &fused) ? fused : score_bytes(&s) + probability_bytes(&s);
}

size_t dr_cuda_attention_backward_work_bytes(const dr_attention_backward_args *a)
{
    const attention s = describe(a->q, a->k, a->heads, a->causal);
    size_t fused = 0;
    if (dr_cuda_attention_backward_is_fused(a, &fused)) {
        return fused;
    }
    return 2 * score_bytes(&s) + 2 * probability_bytes(&s) + 2 * sum_bytes(&s) +
           align64(static_cast<size_t>(s.n * s.heads * s.sq) * sizeof(float));
}

/* Row i0 of sample n, head 0, of a tensor of len rows per sample; heads are d apart. */
static dr_cuda_matrix heads_of(const attention &s, const dr_tensor *t, int64_t n, int64_t len,
                               int64_t i0, bool transposed)
{
    const char *data = static_cast<const char *>(t->data);
    const size_t at = static_cast<size_t>((n * len + i0) * s.width) * dr_dtype_size(t->dtype);
    return dr_cuda_matrix{data + at, s.width, s.d, transposed};
}

/* A (rows,Sk) matrix per head, one after the other. */
static dr_cuda_matrix scores_of(const attention &s, const void *data, int64_t rows, bool transposed)
{
    return dr_cuda_matrix{data, s.sk, rows * s.sk, transposed};
}

static dr_cuda_gemm_args product(const attention &s, int64_t m, int64_t n, int64_t k)
{
    dr_cuda_gemm_args g = {};
    g.m = m;
    g.n = n;
    g.k = k;
    g.batch = s.heads;
    g.dtype = s.dtype;
    g.c_dtype = s.dtype;
    g.alpha = 1.0f;
    return g;
}

/* f32 scores (heads,rows,Sk) = alpha a b^T, a: query rows, b: key rows. */
static dr_status scores(const attention &s, dr_cuda_matrix a, dr_cuda_matrix b, int64_t rows,
                        float alpha, void *out)
{
    dr_cuda_gemm_args g = product(s, rows, s.sk, s.d);
    g.a = a;
    g.b = b;
    g.alpha = alpha;
    g.c = out;
    g.c_dtype = DR_F32;
    g.c_ld = s.sk;
    g.c_stride = rows * s.sk;
    return dr_cuda_gemm(dr_cuda_stream(), &g);
}

/* One block per row of scores: p = softmax, lse; keys beyond the causal limit get 0. */
template <typename T>
__global__ void softmax_kernel(const float *score, T *p, float *lse, int64_t rows, int64_t sk,
                               int64_t i0, int64_t sq, bool causal)
{
    DR_SHARED(float, scratch, 0, SOFTMAX_THREADS / 32);
    const int64_t row = blockIdx.x; /* head rows + i */
    const int64_t i = i0 + row % rows;
    const int64_t keys = causal ? i + 1 : sk;
    const float *in = score + row * sk;
    float most = -INFINITY;
    for (int64_t j = threadIdx.x; j < keys; j += SOFTMAX_THREADS) {
        most = fmaxf(most, in[j]);
    }
    most = dr_block_max(most, scratch);
    float sum = 0.0f;
    for (int64_t j = threadIdx.x; j < keys; j += SOFTMAX_THREADS) {
        sum += expf(in[j] - most);
    }
    sum = dr_block_sum(sum, scratch);
    for (int64_t j = threadIdx.x; j < sk; j += SOFTMAX_THREADS) {
        dr_put(p, row * sk + j, j < keys ? expf(in[j] - most) / sum : 0.0f);
    }
    if (lse != nullptr && threadIdx.x == 0) {
        lse[row / rows * sq + i] = most + logf(sum);
    }
}

template <typename T> static dr_status forward(dr_context *cx, const dr_attention_args *a)
{
    const attention s = describe(a->q, a->k, a->heads, a->causal);
    float *score = static_cast<float *>(cx->work);
    T *p = reinterpret_cast<T *>(static_cast<char *>(cx->work) + score_bytes(&s));
    for (int64_t n = 0; n < s.n; n++) {
        float *lse = a->lse != nullptr ? dr_data<float>(a->lse) + n * s.heads * s.sq : nullptr;
        for (int64_t i0 = 0; i0 < s.sq; i0 += s.rows) {
            const int64_t rows = s.sq - i0 < s.rows ? s.sq - i0 : s.rows;
            DR_TRY(scores(s, heads_of(s, a->q, n, s.sq, i0, false),
                          heads_of(s, a->k, n, s.sk, 0, true), rows, s.scale, score));
            DR_TRY(DR_LAUNCH((softmax_kernel<T>), dim3(static_cast<unsigned>(s.heads * rows)),
                             dim3(SOFTMAX_THREADS), SOFTMAX_THREADS / 32 * sizeof(float),
                             dr_cuda_stream(), score, p, lse, rows, s.sk, i0, s.sq, s.causal));
            dr_cuda_gemm_args g = product(s, rows, s.d, s.sk);
            g.a = scores_of(s, p, rows, false);
            g.b = heads_of(s, a->v, n, s.sk, 0, false);
            g.c = dr_data<T>(a->o) + (n * s.sq + i0) * s.width;
            g.c_ld = s.width;
            g.c_stride = s.d;
            DR_TRY(dr_cuda_gemm(dr_cuda_stream(), &g));
        }
    }
    return DR_OK;
}

dr_status dr_cuda_attention(dr_context *cx, const dr_attention_args *a)
{
    size_t bytes = 0;
    if (dr_cuda_attention_is_fused(a, &bytes)) {
        return dr_cuda_attention_fused(cx, a);
    }
    DR_CUDA_WITH_TYPE(a->q->dtype, return forward<T>(cx, a));
}

/* One warp per (sample, query, head). */
template <typename T>
__global__ void delta_kernel(const T *dout, const T *o, float *delta, int64_t heads, int64_t sq,
                             int64_t d)
{
    const int64_t at = blockIdx.x; /* (n Sq + i) heads + h: a row of d elements */
    float sum = 0.0f;
    for (int64_t c = threadIdx.x; c < d; c += ROW_THREADS) {
        sum += dr_get(dout, at * d + c) * dr_get(o, at * d + c);
    }
    sum = dr_warp_sum(sum);
    if (threadIdx.x == 0) {
        const int64_t i = at / heads % sq;
        const int64_t n = at / heads / sq;
        delta[(n * heads + at % heads) * sq + i] = sum;
    }
}

/* p and ds of a range of queries; lse and delta: of the sample. */
template <typename T> struct score_gradients {
    const float *score, *dp, *lse, *delta;
    T *p, *ds;
    int64_t rows, sk, i0, sq;
    float scale;
    bool causal;
    __device__ void operator()(int64_t row, int64_t j) const
    {
        const int64_t i = i0 + row % rows;
        const int64_t at = row / rows * sq + i;
        const bool seen = !causal || j <= i;
        const float v = seen ? expf(score[row * sk + j] - lse[at]) : 0.0f;
        dr_put(p, row * sk + j, v);
        dr_put(ds, row * sk + j, seen ? v * (dp[row * sk + j] - delta[at]) * scale : 0.0f);
    }
};

template <typename T> struct narrow {
    const float *x;
    T *y;
    __device__ void operator()(int64_t i) const
    {
        dr_put(y, i, x[i]);
    }
};

/* out (Sk,width) = or += w^T x for every head: dv = p^T do, dk = ds^T q. */
static dr_status key_gradient(const attention &s, const void *w, dr_cuda_matrix x, int64_t rows,
                              bool add, void *out, dr_dtype out_dtype)
{
    dr_cuda_gemm_args g = product(s, s.sk, s.d, rows);
    g.a = scores_of(s, w, rows, true);
    g.b = x;
    g.c = out;
    g.c_dtype = out_dtype;
    g.c_ld = s.width;
    g.c_stride = s.d;
    g.beta = add ? 1.0f : 0.0f;
    return dr_cuda_gemm(dr_cuda_stream(), &g);
}

typedef struct backward_work {
    float *score, *dp, *delta;
    void *p, *ds, *dk, *dv; /* dk, dv: f32 sums of one sample, or NULL */
} backward_work;

static backward_work divide(const attention &s, void *work)
{
    char *at = static_cast<char *>(work);
    backward_work w = {};
    w.score = reinterpret_cast<float *>(at);
    w.dp = reinterpret_cast<float *>(at += score_bytes(&s));
    w.p = at += score_bytes(&s);
    w.ds = at += probability_bytes(&s);
    at += probability_bytes(&s);
    if (sum_bytes(&s) > 0) {
        w.dk = at;
        w.dv = at + sum_bytes(&s);
        at += 2 * sum_bytes(&s);
    }
    w.delta = reinterpret_cast<float *>(at);
    return w;
}

template <typename T>
static dr_status backward_range(const attention &s, const dr_attention_backward_args *a,
                                const backward_work &w, int64_t n, int64_t i0)
{
    const int64_t rows = s.sq - i0 < s.rows ? s.sq - i0 : s.rows;
    const dr_cuda_matrix q = heads_of(s, a->q, n, s.sq, i0, false);
    const dr_cuda_matrix dout = heads_of(s, a->dout, n, s.sq, i0, false);
    const float *lse = dr_floats(a->lse) + n * s.heads * s.sq;
    const float *delta = w.delta + n * s.heads * s.sq;
    T *dk = dr_data<T>(a->dk) + n * s.sk * s.width;
    T *dv = dr_data<T>(a->dv) + n * s.sk * s.width;
    const dr_dtype sums = w.dk != nullptr ? DR_F32 : s.dtype;
    DR_TRY(scores(s, q, heads_of(s, a->k, n, s.sk, 0, true), rows, s.scale, w.score));
    DR_TRY(scores(s, dout, heads_of(s, a->v, n, s.sk, 0, true), rows, 1.0f, w.dp));
    DR_TRY(dr_grid(s.heads * rows, s.sk,
                   score_gradients<T>{w.score, w.dp, lse, delta, static_cast<T *>(w.p),
                                      static_cast<T *>(w.ds), rows, s.sk, i0, s.sq, s.scale,
                                      s.causal}));
    DR_TRY(key_gradient(s, w.p, dout, rows, i0 > 0, w.dv != nullptr ? w.dv : dv, sums));
    DR_TRY(key_gradient(s, w.ds, q, rows, i0 > 0, w.dk != nullptr ? w.dk : dk, sums));
    if (w.dk != nullptr && i0 + rows == s.sq) {
        DR_TRY(dr_each(s.sk * s.width, narrow<T>{static_cast<const float *>(w.dk), dk}));
        DR_TRY(dr_each(s.sk * s.width, narrow<T>{static_cast<const float *>(w.dv), dv}));
    }
    dr_cuda_gemm_args g = product(s, rows, s.d, s.sk);
    g.a = scores_of(s, w.ds, rows, false);
    g.b = heads_of(s, a->k, n, s.sk, 0, false);
    g.c = dr_data<T>(a->dq) + (n * s.sq + i0) * s.width;
    g.c_ld = s.width;
    g.c_stride = s.d;
    return dr_cuda_gemm(dr_cuda_stream(), &g);
}

template <typename T> static dr_status backward(dr_context *cx, const dr_attention_backward_args *a)
{
    const attention s = describe(a->q, a->k, a->heads, a->causal);
    const backward_work w = divide(s, cx->work);
    DR_TRY(DR_LAUNCH((delta_kernel<T>), dim3(static_cast<unsigned>(s.n * s.sq * s.heads)),
                     dim3(ROW_THREADS), 0, dr_cuda_stream(), dr_data<const T>(a->dout),
                     dr_data<const T>(a->o), w.delta, s.heads, s.sq, s.d));
    for (int64_t n = 0; n < s.n; n++) {
        for (int64_t i0 = 0; i0 < s.sq; i0 += s.rows) {
            DR_TRY(backward_range<T>(s, a, w, n, i0));
        }
    }
    return DR_OK;
}

dr_status dr_cuda_attention_backward(dr_context *cx, const dr_attention_backward_args *a)
{
    size_t bytes = 0;
    if (dr_cuda_attention_backward_is_fused(a, &bytes)) {
        return dr_cuda_attention_backward_fused(cx, a);
    }
    DR_CUDA_WITH_TYPE(a->q->dtype, return backward<T>(cx, a));
}
