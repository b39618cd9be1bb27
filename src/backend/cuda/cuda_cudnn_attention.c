/*
 * Attention as cuDNN graphs: the chains of products, pointwise operations and reductions that its
 * fused engines know (cudnn-frontend's CompositeSDPANode and CompositeSDPABackwardNode). Sizes are
 * (N,heads,S,D) there; strides say how our (N,S,heads*D) lies.
 *
 * Backward without a buffer of summed dq is the deterministic one: cuDNN keeps ds whole, 2 bytes
 * per score, in its workspace. (With the buffer blocks add to dq in any order, and no numerical
 * note says so.)
 */
#include "backend/cuda/cuda_cudnn.h"
#include "backend/cuda/cuda_cudnn_internal.h"
#include "backend/cuda/cuda_sdpa.h"
#include "base/log.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Older ones need a mask where keys are no multiple of 128, or have bugs (cudnn-frontend). */
enum { OLDEST = 91501 };

enum { Q = 1, K, V, O, LSE, DO, DQ, DK, DV, DELTA, SCALE, ONE, FIRST_VIRTUAL };

static struct {
    bool open;
    dr_cudnn_plans plans;
    char why[256]; /* the first refusal */
} sdpa;

void dr_cuda_sdpa_begin(void)
{
    sdpa.open = true;
}

void dr_cuda_sdpa_end(void)
{
    dr_cudnn_plans_free(&sdpa.plans);
    sdpa.open = false;
    sdpa.why[0] = '\0';
}

dr_cuda_sdpa_counts dr_cuda_sdpa_counted(void)
{
    return (dr_cuda_sdpa_counts){.planned = sdpa.plans.planned,
                                 .refused = sdpa.plans.refused,
                                 .why = sdpa.why[0] != '\0' ? sdpa.why : NULL};
}

/* ---- tensors ----------------------------------------------------------------------------------
 */

typedef cudnnBackendDescriptor_t tensor;

typedef struct builder {
    dr_cudnn_graph *g;
    const dr_cuda_sdpa *s;
    cudnnDataType_t type; /* of what is read and written */
    int64_t next;         /* id */
} builder;

typedef struct layout {
    int64_t size[4], stride[4];
} layout;

/* id 0: a tensor that exists inside the graph only. */
static tensor make(builder *b, int64_t id, cudnnDataType_t type, int64_t alignment, layout l)
{
    const bool yes = true;
    const int64_t name = id > 0 ? id : b->next++;
    tensor t = dr_cudnn_make(b->g, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    dr_cudnn_set(b->g, t, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type);
    dr_cudnn_set(b->g, t, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, l.size);
    dr_cudnn_set(b->g, t, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, l.stride);
    dr_cudnn_set(b->g, t, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &name);
    dr_cudnn_set(b->g, t, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    if (id == 0) {
        dr_cudnn_set(b->g, t, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &yes);
    }
    if (id == SCALE || id == ONE) {
        dr_cudnn_set(b->g, t, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &yes);
    }
    dr_cudnn_finish(b->g, t);
    return t;
}

/* A tensor of ours, len rows per sample, as (N,heads,len,D), or as (N,heads,D,len). */
static tensor of_ours(builder *b, int64_t id, int64_t len, bool transposed)
{
    const dr_cuda_sdpa *s = b->s;
    const int64_t width = s->all_heads * s->d;
    layout l = {{s->n, s->heads, len, s->d}, {len * width, s->d, width, 1}};
    if (transposed) {
        l = (layout){{s->n, s->heads, s->d, len}, {len * width, s->d, 1, width}};
    }
    return make(b, id, b->type, DR_CUDA_CUDNN_ALIGNMENT, l);
}

/* (N,heads,Sq,Sk) inside the graph. */
static tensor scores(builder *b, cudnnDataType_t type)
{
    const dr_cuda_sdpa *s = b->s;
    return make(b, 0, type, DR_CUDA_CUDNN_ALIGNMENT,
                (layout){{s->n, s->heads, s->sq, s->sk},
                         {s->heads * s->sq * s->sk, s->sq * s->sk, s->sk, 1}});
}

/* One f32 number per query; heads: those that lie in memory. */
static tensor per_query(builder *b, int64_t id, int64_t heads)
{
    const dr_cuda_sdpa *s = b->s;
    return make(b, id, CUDNN_DATA_FLOAT,
                id == LSE ? (int64_t)sizeof(float) : DR_CUDA_CUDNN_ALIGNMENT,
                (layout){{s->n, s->heads, s->sq, 1}, {heads * s->sq, s->sq, 1, 1}});
}

static tensor number(builder *b, int64_t id)
{
    return make(b, id, CUDNN_DATA_FLOAT, (int64_t)sizeof(float),
                (layout){{1, 1, 1, 1}, {1, 1, 1, 1}});
}

/* ---- operations -------------------------------------------------------------------------------
 */

static void multiply(builder *b, tensor x, tensor y, tensor out)
{
    const cudnnDataType_t sums = CUDNN_DATA_FLOAT;
    tensor how = dr_cudnn_make(b->g, CUDNN_BACKEND_MATMUL_DESCRIPTOR);
    dr_cudnn_set(b->g, how, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &sums);
    dr_cudnn_finish(b->g, how);
    tensor op = dr_cudnn_make(b->g, CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
    dr_cudnn_set_descriptor(b->g, op, CUDNN_ATTR_OPERATION_MATMUL_ADESC, x);
    dr_cudnn_set_descriptor(b->g, op, CUDNN_ATTR_OPERATION_MATMUL_BDESC, y);
    dr_cudnn_set_descriptor(b->g, op, CUDNN_ATTR_OPERATION_MATMUL_CDESC, out);
    dr_cudnn_set_descriptor(b->g, op, CUDNN_ATTR_OPERATION_MATMUL_DESC, how);
    dr_cudnn_add_op(b->g, op);
}

/* y: NULL for a function of x alone. Gives out back. */
static tensor pointwise(builder *b, cudnnPointwiseMode_t mode, tensor x, tensor y, tensor out)
{
    const cudnnDataType_t inside = CUDNN_DATA_FLOAT;
    tensor how = dr_cudnn_make(b->g, CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
    dr_cudnn_set(b->g, how, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode);
    dr_cudnn_set(b->g, how, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &inside);
    dr_cudnn_finish(b->g, how);
    tensor op = dr_cudnn_make(b->g, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
    dr_cudnn_set_descriptor(b->g, op, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, how);
    dr_cudnn_set_descriptor(b->g, op, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
    if (y != NULL) {
        dr_cudnn_set_descriptor(b->g, op, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, y);
    }
    dr_cudnn_set_descriptor(b->g, op, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, out);
    dr_cudnn_add_op(b->g, op);
    return out;
}

/* Over the last dimension. */
static tensor reduce(builder *b, cudnnReduceTensorOp_t kind, tensor x, tensor out)
{
    const cudnnDataType_t sums = CUDNN_DATA_FLOAT;
    tensor how = dr_cudnn_make(b->g, CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
    dr_cudnn_set(b->g, how, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, 1,
                 &kind);
    dr_cudnn_set(b->g, how, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &sums);
    dr_cudnn_finish(b->g, how);
    tensor op = dr_cudnn_make(b->g, CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
    dr_cudnn_set_descriptor(b->g, op, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x);
    dr_cudnn_set_descriptor(b->g, op, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, out);
    dr_cudnn_set_descriptor(b->g, op, CUDNN_ATTR_OPERATION_REDUCTION_DESC, how);
    dr_cudnn_add_op(b->g, op);
    return out;
}

/* x with its last two dimensions exchanged, as the type of what is read. */
static tensor turn(builder *b, tensor x, layout l)
{
    tensor out = make(b, 0, b->type, DR_CUDA_CUDNN_ALIGNMENT, l);
    tensor op = dr_cudnn_make(b->g, CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
    dr_cudnn_set_descriptor(b->g, op, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x);
    dr_cudnn_set_descriptor(b->g, op, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, out);
    dr_cudnn_add_op(b->g, op);
    return out;
}

static tensor turn_scores(builder *b, tensor x)
{
    const dr_cuda_sdpa *s = b->s;
    return turn(b, x,
                (layout){{s->n, s->heads, s->sk, s->sq},
                         {s->heads * s->sq * s->sk, s->sq * s->sk, 1, s->sk}});
}

/* ---- the graphs -------------------------------------------------------------------------------
 */

/* scale q k^T */
static tensor scaled_scores(builder *b, tensor q, tensor k, tensor scale)
{
    tensor s = scores(b, CUDNN_DATA_FLOAT);
    multiply(b, q, k, s);
    return pointwise(b, CUDNN_POINTWISE_MUL, s, scale, scores(b, CUDNN_DATA_FLOAT));
}

static void build_forward(builder *b)
{
    const dr_cuda_sdpa *s = b->s;
    tensor q = of_ours(b, Q, s->sq, false);
    tensor k = of_ours(b, K, s->sk, true);
    tensor v = of_ours(b, V, s->sk, false);
    tensor x = scaled_scores(b, q, k, number(b, SCALE));
    tensor most = reduce(b, CUDNN_REDUCE_TENSOR_MAX, x, per_query(b, 0, s->heads));
    tensor below = pointwise(b, CUDNN_POINTWISE_SUB, x, most, scores(b, CUDNN_DATA_FLOAT));
    tensor e = pointwise(b, CUDNN_POINTWISE_EXP, below, NULL, scores(b, CUDNN_DATA_FLOAT));
    tensor sum = reduce(b, CUDNN_REDUCE_TENSOR_ADD, e, per_query(b, 0, s->heads));
    tensor log = pointwise(b, CUDNN_POINTWISE_LOG, sum, NULL, per_query(b, 0, s->heads));
    (void)pointwise(b, CUDNN_POINTWISE_ADD, most, log, per_query(b, LSE, s->all_heads));
    tensor p = pointwise(b, CUDNN_POINTWISE_DIV, e, sum, scores(b, b->type));
    multiply(b, p, v, of_ours(b, O, s->sq, false));
}

/* delta = sum of do o over channels. */
static tensor row_products(builder *b, tensor dout)
{
    const dr_cuda_sdpa *s = b->s;
    const int64_t width = s->heads * s->d;
    tensor product =
        make(b, 0, CUDNN_DATA_FLOAT, DR_CUDA_CUDNN_ALIGNMENT,
             (layout){{s->n, s->heads, s->sq, s->d}, {width * s->sq, s->sq * s->d, width, 1}});
    (void)pointwise(b, CUDNN_POINTWISE_MUL, dout, of_ours(b, O, s->sq, false), product);
    tensor sum = reduce(b, CUDNN_REDUCE_TENSOR_ADD, product, per_query(b, 0, s->heads));
    return pointwise(b, CUDNN_POINTWISE_MUL, sum, number(b, ONE), per_query(b, DELTA, s->heads));
}

static void build_backward(builder *b)
{
    const dr_cuda_sdpa *s = b->s;
    const int64_t width = s->all_heads * s->d;
    tensor q = of_ours(b, Q, s->sq, false);
    tensor k = of_ours(b, K, s->sk, true);
    tensor v = of_ours(b, V, s->sk, true);
    tensor dout = of_ours(b, DO, s->sq, false);
    tensor scale = number(b, SCALE);
    tensor delta = row_products(b, dout);
    tensor x = scaled_scores(b, q, k, scale);
    x = pointwise(b, CUDNN_POINTWISE_SUB, x, per_query(b, LSE, s->all_heads),
                  scores(b, CUDNN_DATA_FLOAT));
    tensor p = pointwise(b, CUDNN_POINTWISE_EXP, x, NULL, scores(b, CUDNN_DATA_FLOAT));
    multiply(b, turn_scores(b, p), dout, of_ours(b, DV, s->sk, false));
    tensor dp = scores(b, CUDNN_DATA_FLOAT);
    multiply(b, dout, v, dp);
    dp = pointwise(b, CUDNN_POINTWISE_SUB, dp, delta, scores(b, CUDNN_DATA_FLOAT));
    dp = pointwise(b, CUDNN_POINTWISE_MUL, dp, p, scores(b, CUDNN_DATA_FLOAT));
    tensor ds = pointwise(b, CUDNN_POINTWISE_MUL, dp, scale, scores(b, CUDNN_DATA_FLOAT));
    multiply(b, turn_scores(b, ds), q, of_ours(b, DK, s->sk, false));
    tensor keys =
        turn(b, k, (layout){{s->n, s->heads, s->sk, s->d}, {s->sk * width, s->d, width, 1}});
    multiply(b, ds, keys, of_ours(b, DQ, s->sq, false));
}

/* ---- plans ------------------------------------------------------------------------------------
 */

static void refuse(dr_cudnn_graph *g, const char *why)
{
    (void)snprintf(g->why, sizeof g->why, "%s", why);
    g->failed = true;
}

static void build(dr_cudnn_graph *g, const dr_cuda_sdpa *s)
{
    builder b = {.g = g,
                 .s = s,
                 .type = s->dtype == DR_F16 ? CUDNN_DATA_HALF : CUDNN_DATA_BFLOAT16,
                 .next = FIRST_VIRTUAL};
    if (dr_cuda_cudnn_version() < OLDEST) {
        refuse(g, "its fused attention is used from cuDNN 9.15.1 on");
    } else if (s->sq == 1 && s->sk == 1) {
        refuse(g, "one query and one key");
    } else if (s->is_backward) {
        build_backward(&b);
    } else {
        build_forward(&b);
    }
}

static void report_missing(const dr_cuda_sdpa *s, const char *why)
{
    char text[sizeof sdpa.why];
    (void)snprintf(text, sizeof text, "%s of %lld queries, %lld keys, %lld channels in %s: %.150s",
                   s->is_backward ? "backward" : "forward", (long long)s->sq, (long long)s->sk,
                   (long long)s->d, dr_dtype_name(s->dtype), why);
    dr_debug("cuDNN has no plan for attention, %s", text);
    if (sdpa.why[0] == '\0') {
        memcpy(sdpa.why, text, sizeof text);
    }
}

static dr_cudnn_plan *plan_of(const dr_cuda_sdpa *s)
{
    bool is_new = false;
    dr_cudnn_plan *p = dr_cudnn_plan_of(&sdpa.plans, s, sizeof *s, &is_new);
    if (is_new) {
        build(&p->graph, s);
        dr_cudnn_plan_choose(&sdpa.plans, p, false);
        if (!p->found) {
            report_missing(s, p->graph.why);
        }
    }
    return p;
}

static size_t align64(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

/* delta, before the plan's workspace. */
static size_t own_bytes(const dr_cuda_sdpa *s)
{
    return s->is_backward ? align64((size_t)(s->n * s->heads * s->sq) * sizeof(float)) : 0;
}

bool dr_cuda_sdpa_has(const dr_cuda_sdpa *s, size_t *bytes, const char **why)
{
    *bytes = 0;
    *why = "cuDNN is not there";
    if (!sdpa.open) {
        return false;
    }
    const dr_cudnn_plan *p = plan_of(s);
    *why = p->graph.why;
    *bytes = p->found ? own_bytes(s) + align64(p->graph.work_bytes) : 0;
    return p->found;
}

dr_status dr_cuda_sdpa_run(void *stream, const dr_cuda_sdpa *s, const dr_cuda_sdpa_data *data,
                           void *work)
{
    static const int64_t ids[] = {Q, K, V, O, LSE, SCALE, DO, DQ, DK, DV, DELTA, ONE};
    const dr_cudnn_plan *p = plan_of(s);
    float scale = (float)(1.0 / sqrt((double)s->d));
    float one = 1.0f;
    void *const pointers[] = {(void *)(uintptr_t)data->q,
                              (void *)(uintptr_t)data->k,
                              (void *)(uintptr_t)data->v,
                              data->o,
                              data->lse,
                              &scale,
                              (void *)(uintptr_t)data->dout,
                              data->dq,
                              data->dk,
                              data->dv,
                              work,
                              &one};
    DR_CHECK(p->found, "attention without a plan");
    return dr_cudnn_execute(&p->graph, stream, s->is_backward ? 12 : 6, ids, pointers,
                            (char *)work + own_bytes(s));
}
