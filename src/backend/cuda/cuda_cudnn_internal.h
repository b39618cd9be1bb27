/*
 * backend/cuda/cuda_cudnn_internal.h - cuDNN's graphs and plans, shared by the cuda_cudnn*.c files.
 *
 * A graph is built by calls that keep the first error, as cuDNN's own words; whoever asks for a
 * plan looks at it once.
 */
#ifndef DR_CUDA_CUDNN_INTERNAL_H
#define DR_CUDA_CUDNN_INTERNAL_H

#include "dreamrun/status.h"

#include <cudnn_graph.h>

enum { DR_CUDNN_MAX_MADE = 160, DR_CUDNN_MAX_OPS = 24, DR_CUDNN_MAX_TENSORS = 16 };
enum { DR_CUDNN_BUCKETS = 256, DR_CUDNN_MAX_KEY = 128 };

typedef struct dr_cudnn_graph {
    cudnnBackendDescriptor_t made[DR_CUDNN_MAX_MADE]; /* everything, for destruction */
    cudnnBackendDescriptor_t op[DR_CUDNN_MAX_OPS];
    cudnnBackendDescriptor_t plan; /* once found */
    int n_made, n_ops;
    size_t work_bytes;
    bool failed;
    char why[256]; /* the first thing that failed */
} dr_cudnn_graph;

/* A new descriptor that the graph owns; NULL after a failure. */
cudnnBackendDescriptor_t dr_cudnn_make(dr_cudnn_graph *g, cudnnBackendDescriptorType_t type);
void dr_cudnn_set(dr_cudnn_graph *g, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                  cudnnBackendAttributeType_t type, int64_t n, const void *values);
void dr_cudnn_set_descriptor(dr_cudnn_graph *g, cudnnBackendDescriptor_t d,
                             cudnnBackendAttributeName_t name, cudnnBackendDescriptor_t value);
void dr_cudnn_finish(dr_cudnn_graph *g, cudnnBackendDescriptor_t d);
/* Finishes an operation and adds it to the graph. */
void dr_cudnn_add_op(dr_cudnn_graph *g, cudnnBackendDescriptor_t op);

/*
 * Finds a plan for the graph's operations: the first that the heuristics name, is deterministic,
 * converts nothing to fewer bits, and is free of tensor cores where no_tensor_cores. False: why
 * says what stood in the way.
 */
bool dr_cudnn_find_plan(dr_cudnn_graph *g, bool no_tensor_cores);
/* Runs the plan with n pointers named by ids. */
DR_MUST_USE dr_status dr_cudnn_execute(const dr_cudnn_graph *g, void *stream, int64_t n,
                                       const int64_t *ids, void *const *pointers, void *work);
void dr_cudnn_free(dr_cudnn_graph *g);

/* ---- plans by their descriptions ---- */

typedef struct dr_cudnn_plan {
    unsigned char key[DR_CUDNN_MAX_KEY];
    struct dr_cudnn_plan *next;
    bool found;
    dr_cudnn_graph graph;
} dr_cudnn_plan;

typedef struct dr_cudnn_plans {
    dr_cudnn_plan *bucket[DR_CUDNN_BUCKETS];
    int64_t planned, refused;
} dr_cudnn_plans;

/* The plan of a description (all its bytes count). is_new: its graph is empty, and to be built and
 * given to dr_cudnn_plan_choose. */
dr_cudnn_plan *dr_cudnn_plan_of(dr_cudnn_plans *plans, const void *key, size_t bytes, bool *is_new);
/* Looks for a plan of p's graph, and counts it; a graph without one is freed, its why stays. */
void dr_cudnn_plan_choose(dr_cudnn_plans *plans, dr_cudnn_plan *p, bool no_tensor_cores);
void dr_cudnn_plans_free(dr_cudnn_plans *plans);

/* Plans are made from now on, and no longer. */
void dr_cuda_cudnn_conv_begin(bool tf32);
void dr_cuda_cudnn_conv_end(void);
void dr_cuda_sdpa_begin(void);
void dr_cuda_sdpa_end(void);

/* For tests on machines without a GPU: plans are made for the GPU that these properties (cuDNN's
 * JSON) describe; nothing can be run. */
DR_MUST_USE dr_status dr_cuda_cudnn_open_for(const char *json, bool tf32);

#endif
