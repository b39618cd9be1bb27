/*
 * Convolutions as cuDNN graphs of one operation. Sizes are (N,C,H,W) and (O,I,KH,KW) there; strides
 * say that channels come last in memory.
 */
#include "backend/cuda/cuda_cudnn.h"
#include "backend/cuda/cuda_cudnn_internal.h"
#include "base/log.h"

enum { IMAGE = 1, WEIGHTS, OUTPUT }; /* ids of the tensors */

static struct {
    bool open, tf32;
    dr_cudnn_plans plans;
} convs;

void dr_cuda_cudnn_conv_begin(bool tf32)
{
    convs.open = true;
    convs.tf32 = tf32;
}

void dr_cuda_cudnn_conv_end(void)
{
    dr_cudnn_plans_free(&convs.plans);
    convs.open = convs.tf32 = false;
}

dr_cuda_cudnn_counts dr_cuda_cudnn_counted(void)
{
    return (dr_cuda_cudnn_counts){.planned = convs.plans.planned, .refused = convs.plans.refused};
}

static cudnnDataType_t type_of(dr_dtype t)
{
    return t == DR_F16 ? CUDNN_DATA_HALF : t == DR_BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_FLOAT;
}

/* A tensor of sizes (a,b,c,d) that lies in memory as (a,c,d,b). */
static cudnnBackendDescriptor_t tensor(dr_cudnn_graph *g, int64_t id, dr_dtype type,
                                       const int64_t size[4])
{
    const cudnnDataType_t t = type_of(type);
    const int64_t alignment = DR_CUDA_CUDNN_ALIGNMENT;
    const int64_t stride[4] = {size[1] * size[2] * size[3], 1, size[3] * size[1], size[1]};
    cudnnBackendDescriptor_t d = dr_cudnn_make(g, CUDNN_BACKEND_TENSOR_DESCRIPTOR);
    dr_cudnn_set(g, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &t);
    dr_cudnn_set(g, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, size);
    dr_cudnn_set(g, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, stride);
    dr_cudnn_set(g, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &id);
    dr_cudnn_set(g, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment);
    dr_cudnn_finish(g, d);
    return d;
}

static cudnnBackendDescriptor_t geometry(dr_cudnn_graph *g, const dr_conv2d_geom *geom)
{
    const cudnnDataType_t sums = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const int64_t dims = 2;
    const int64_t before[2] = {geom->top, geom->left};
    const int64_t after[2] = {geom->bottom, geom->right};
    const int64_t step[2] = {geom->stride, geom->stride};
    const int64_t dilation[2] = {1, 1};
    cudnnBackendDescriptor_t d = dr_cudnn_make(g, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR);
    dr_cudnn_set(g, d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &sums);
    dr_cudnn_set(g, d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode);
    dr_cudnn_set(g, d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &dims);
    dr_cudnn_set(g, d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, before);
    dr_cudnn_set(g, d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, after);
    dr_cudnn_set(g, d, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, dilation);
    dr_cudnn_set(g, d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, step);
    dr_cudnn_finish(g, d);
    return d;
}

/* The names that one kind of operation has for the same things. */
typedef struct operation {
    cudnnBackendDescriptorType_t type;
    cudnnBackendAttributeName_t geometry, image, weights, output, alpha, beta;
} operation;

static const operation operations[] = {
    [DR_CUDA_CONV_Y] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                        CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
    [DR_CUDA_CONV_DX] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
    [DR_CUDA_CONV_DW] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                         CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA},
};

static void build(dr_cudnn_graph *g, const dr_cuda_conv *c)
{
    const operation *o = &operations[c->kind];
    const float alpha = 1.0f;
    const float beta = c->adds ? 1.0f : 0.0f;
    const dr_dtype image = c->kind == DR_CUDA_CONV_DX ? c->result : c->dtype;
    const dr_dtype weights = c->kind == DR_CUDA_CONV_DW ? c->result : c->dtype;
    const dr_dtype output = c->kind == DR_CUDA_CONV_Y ? c->result : c->dtype;
    cudnnBackendDescriptor_t x = tensor(g, IMAGE, image, (int64_t[]){c->n, c->in, c->h, c->w});
    cudnnBackendDescriptor_t w =
        tensor(g, WEIGHTS, weights, (int64_t[]){c->out, c->in, c->geom.kh, c->geom.kw});
    cudnnBackendDescriptor_t y = tensor(g, OUTPUT, output, (int64_t[]){c->n, c->out, c->ho, c->wo});
    cudnnBackendDescriptor_t geom = geometry(g, &c->geom);
    cudnnBackendDescriptor_t op = dr_cudnn_make(g, o->type);
    dr_cudnn_set_descriptor(g, op, o->geometry, geom);
    dr_cudnn_set_descriptor(g, op, o->image, x);
    dr_cudnn_set_descriptor(g, op, o->weights, w);
    dr_cudnn_set_descriptor(g, op, o->output, y);
    dr_cudnn_set(g, op, o->alpha, CUDNN_TYPE_FLOAT, 1, &alpha);
    dr_cudnn_set(g, op, o->beta, CUDNN_TYPE_FLOAT, 1, &beta);
    dr_cudnn_add_op(g, op);
}

static void report_missing(const dr_cuda_conv *c, const char *why)
{
    static const char *const kinds[] = {"forward", "dx", "dw"};
    dr_debug("cuDNN has no plan for %s of a %dx%d convolution, (%lld,%lld,%lld,%lld) to %lld "
             "channels in %s: %s",
             kinds[c->kind], c->geom.kh, c->geom.kw, (long long)c->n, (long long)c->h,
             (long long)c->w, (long long)c->in, (long long)c->out, dr_dtype_name(c->dtype), why);
}

static dr_cudnn_plan *plan_of(const dr_cuda_conv *c)
{
    bool is_new = false;
    dr_cudnn_plan *p = dr_cudnn_plan_of(&convs.plans, c, sizeof *c, &is_new);
    if (is_new) {
        build(&p->graph, c);
        dr_cudnn_plan_choose(&convs.plans, p, c->dtype == DR_F32 && !convs.tf32);
        if (!p->found) {
            report_missing(c, p->graph.why);
        }
    }
    return p;
}

bool dr_cuda_cudnn_has(const dr_cuda_conv *c, size_t *bytes)
{
    *bytes = 0;
    if (!convs.open) {
        return false;
    }
    const dr_cudnn_plan *p = plan_of(c);
    *bytes = p->found ? p->graph.work_bytes : 0;
    return p->found;
}

dr_status dr_cuda_cudnn_run(void *stream, const dr_cuda_conv *c, const void *a, const void *b,
                            void *out, void *work)
{
    static const int64_t ids[][3] = {[DR_CUDA_CONV_Y] = {IMAGE, WEIGHTS, OUTPUT},
                                     [DR_CUDA_CONV_DX] = {OUTPUT, WEIGHTS, IMAGE},
                                     [DR_CUDA_CONV_DW] = {OUTPUT, IMAGE, WEIGHTS}};
    const dr_cudnn_plan *p = plan_of(c);
    void *const pointers[3] = {(void *)(uintptr_t)a, (void *)(uintptr_t)b, out};
    DR_CHECK(p->found, "a convolution without a plan");
    return dr_cudnn_execute(&p->graph, stream, 3, ids[c->kind], pointers, work);
}
