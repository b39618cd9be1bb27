/*
 * ops/context.h - what an op call needs: backend, activation dtype, pool, dry or real.
 *
 * Layer:    ops.  May include base/ and tensor/ only.
 * Threads:  a context belongs to one thread; different contexts are independent.
 *
 * A context over a dry pool walks the same code with shapes only: every op checks its contract,
 * reserves its workspace in the pool and returns without touching memory.
 */
#ifndef DR_OPS_CONTEXT_H
#define DR_OPS_CONTEXT_H

#include "tensor/pool.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum dr_op_id {
#define X(name, group) DR_OP_##name,
#include "ops/op_list.def"
#undef X
    DR_OP_COUNT
} dr_op_id;

typedef struct dr_context dr_context;

#define X(name, group)                                                                             \
    typedef struct dr_##name##_args dr_##name##_args;                                              \
    typedef dr_status (*dr_##name##_fn)(dr_context * cx, const dr_##name##_args *a);
#include "ops/op_list.def"
#undef X

/* One implementation of all ops. Registered by the apps, never included by other layers. */
typedef struct dr_backend {
    const char *name; /* "ref", "ref64", "cpu", "cuda" */
    const dr_device *device;
    dr_dtype compute; /* F32 or F64: dtype of statistics, loss, optimizer */
    /* Bytes of scratch memory that the op wants in dr_context.work; NULL: none ever. */
    size_t (*work_bytes)(const dr_context *cx, dr_op_id op, const void *args);
#define X(name, group) dr_##name##_fn name;
#include "ops/op_list.def"
#undef X
} dr_backend;

struct dr_context {
    const dr_backend *backend;
    dr_pool *pool;
    bool dry;
    dr_dtype dtype; /* of activations */
    void *work;     /* scratch of the running op, backend->work_bytes() bytes, 64-byte aligned */
    int threads;    /* for CPU backends; results never depend on it */
};

/* A context over the pool (not owned). threads >= 1. Activations have the backend's dtype. */
void dr_context_init(dr_context *cx, const dr_backend *backend, dr_pool *pool, int threads);

const char *dr_op_name(dr_op_id op);
const char *dr_op_group(dr_op_id op);

/* Frames and activations of the context's pool; see tensor/pool.h. */
dr_frame dr_frame_begin(dr_context *cx);
void dr_frame_end(dr_context *cx, dr_frame f);
/* A tensor in the frame: of the activation dtype, or of a given one. Memory is not initialised. */
dr_tensor dr_new(dr_context *cx, dr_frame f, int rank, const int64_t *dim);
dr_tensor dr_new_typed(dr_context *cx, dr_frame f, dr_dtype dtype, int rank, const int64_t *dim);
dr_tensor dr_new_like(dr_context *cx, dr_frame f, const dr_tensor *t);
/* Zeroes a tensor / copies between host and device; all of them do nothing when dry. */
DR_MUST_USE dr_status dr_zero(dr_context *cx, const dr_tensor *t);
DR_MUST_USE dr_status dr_upload(dr_context *cx, const dr_tensor *t, const void *src);
DR_MUST_USE dr_status dr_download(dr_context *cx, const dr_tensor *t, void *dst);

/* Used by the op entry points: reserves work, calls the backend, checks that the op exists. */
#define DR_DISPATCH(cx, op, a)                                                                     \
    do {                                                                                           \
        dr_frame dr_work_frame_;                                                                   \
        DR_TRY(                                                                                    \
            dr_dispatch_begin((cx), DR_OP_##op, (cx)->backend->op != NULL, (a), &dr_work_frame_)); \
        const dr_status dr_dispatch_st_ = (cx)->dry ? DR_OK : (cx)->backend->op((cx), (a));        \
        dr_dispatch_end((cx), dr_work_frame_);                                                     \
        return dr_dispatch_st_;                                                                    \
    } while (0)
DR_MUST_USE dr_status dr_dispatch_begin(dr_context *cx, dr_op_id op, bool exists, const void *args,
                                        dr_frame *work_frame);
void dr_dispatch_end(dr_context *cx, dr_frame work_frame);

#ifdef __cplusplus
}
#endif
#endif
