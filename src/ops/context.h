/*
 * ops/context.h - what an op call needs: backend, activation dtype, pool, dry or real.
 *
 * Layer:    ops.  May include base/ and tensor/ only.
 * Threads:  a context belongs to one thread; different contexts are independent.
 *
 * Types. Activations and their gradients, and the weights that an op reads, have the context's
 * dtype: the backend's own compute dtype, or narrower (F16, BF16). Statistics, per-sample numbers,
 * losses, log sum exp, masks and all of an optimizer have the compute dtype. A parameter's gradient
 * (dw, db, dgamma, dbeta, dtokens, dpositions) has the compute dtype or the context's, all those of
 * one call the same; it is added to in its own type. Arithmetic is in the compute dtype, or as
 * exact, and every result is rounded once, to nearest even.
 *
 * A context over a dry pool walks the same code with shapes only: every op checks its contract,
 * reserves its workspace in the pool and returns without touching memory.
 */
#ifndef DR_OPS_CONTEXT_H
#define DR_OPS_CONTEXT_H

#include "base/profile.h"
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

typedef enum dr_widening {
    DR_WIDEN_NOTHING,
    DR_WIDEN_ALL_BUT_WEIGHTS, /* matrices and filters are taken as they are */
    DR_WIDEN_ALL              /* the call takes the compute dtype only */
} dr_widening;

/* Work of a device that is kept and done again, with the same addresses and numbers. */
typedef struct dr_recorder {
    dr_status (*begin)(
        void); /* from here to end work is kept and not done; no allocation, no wait */
    dr_status (*end)(void **recording); /* also after a failure in between; NULL then */
    dr_status (*play)(void *recording); /* enqueues all of it */
    void (*forget)(void *recording);    /* NULL is fine */
} dr_recorder;

/* One implementation of all ops. Registered by the apps, never included by other layers. */
typedef struct dr_backend {
    const char *name; /* "ref", "ref64", "cpu", "cuda" */
    const dr_device *device;
    dr_dtype compute;            /* F32 or F64: dtype of statistics, loss, optimizer */
    const dr_recorder *recorder; /* NULL: the device cannot */
    /* Bytes of scratch memory that the op wants in dr_context.work; NULL: none ever. */
    size_t (*work_bytes)(const dr_context *cx, dr_op_id op, const void *args);
    /* What of a call's narrow operands ops/widen.h has to convert. NULL: nothing ever. */
    dr_widening (*widens)(dr_op_id op, const void *args);
    /* Ops that take `fresh` write a fresh gradient themselves; otherwise it is zeroed before. */
    bool sets_fresh;
    /* dr_blockwise_all at once. NULL: one tensor after another. */
    dr_status (*blockwise_all)(dr_context *cx, const dr_blockwise_args *a, size_t n);
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
/* The same with activations of a type of their own. */
void dr_context_init_typed(dr_context *cx, const dr_backend *backend, dr_pool *pool, int threads,
                           dr_dtype dtype);

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
/* The same with floats on the host's side, whatever floating-point type t has. */
DR_MUST_USE dr_status dr_upload_floats(dr_context *cx, const dr_tensor *t, const float *src);
DR_MUST_USE dr_status dr_download_floats(dr_context *cx, const dr_tensor *t, float *dst);

/* Used by the op entry points: converts what the backend cannot take, reserves work, calls the
 * backend, checks that the op exists. */
enum { DR_DISPATCH_MAX = 8 }; /* tensors of one op that may be narrow */
typedef struct dr_widened {
    dr_tensor wide;
    dr_tensor *narrow; /* what is written back; NULL: only read */
} dr_widened;
typedef struct dr_dispatch {
    dr_frame work_frame, narrow_frame; /* 0: none */
    dr_span span;
    dr_op_id op;
    int n;
    dr_widened widened[DR_DISPATCH_MAX];
} dr_dispatch;
#define DR_DISPATCH(cx, op, a)                                                                     \
    do {                                                                                           \
        dr_dispatch dr_d_;                                                                         \
        dr_##op##_args dr_args_ = *(a);                                                            \
        const bool dr_has_ = (cx)->backend->op != NULL;                                            \
        dr_status dr_dispatch_st_ =                                                                \
            dr_dispatch_begin((cx), DR_OP_##op, dr_has_, &dr_args_, &dr_d_);                       \
        if (dr_dispatch_st_ == DR_OK && !(cx)->dry) {                                              \
            dr_dispatch_st_ = (cx)->backend->op((cx), &dr_args_);                                  \
        }                                                                                          \
        return dr_dispatch_end((cx), dr_dispatch_st_, &dr_d_);                                     \
    } while (0)
/* args: a copy that may be changed. */
DR_MUST_USE dr_status dr_dispatch_begin(dr_context *cx, dr_op_id op, bool exists, void *args,
                                        dr_dispatch *d);
/* After begin in any case; st: how it went so far. */
DR_MUST_USE dr_status dr_dispatch_end(dr_context *cx, dr_status st, dr_dispatch *d);

#ifdef __cplusplus
}
#endif
#endif
