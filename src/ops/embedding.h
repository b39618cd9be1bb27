/*
 * ops/embedding.h - token, position and timestep embeddings.
 *
 * Layer:    ops.  May include base/ and tensor/ only.
 * Errors:   DR_UNSUPPORTED when the backend lacks the op; otherwise the backend's own.
 *           Shapes and dtypes are contracts (DR_CHECK). Nothing is owned or kept.
 */
#ifndef DR_OPS_EMBEDDING_H
#define DR_OPS_EMBEDDING_H

#include "ops/context.h"

/* y[n,s] = tokens[ids[n,s]] + positions[s]. Every id lies in 0..V-1 (checked by the backend). */
struct dr_embedding_args {
    const dr_tensor *ids;       /* (N,S) I32 */
    const dr_tensor *tokens;    /* (V,C)     */
    const dr_tensor *positions; /* (P,C), P >= S */
    dr_tensor *y;               /* (N,S,C)   */
};
DR_MUST_USE dr_status dr_embedding(dr_context *cx, const dr_embedding_args *a);

struct dr_embedding_backward_args {
    const dr_tensor *dy;   /* (N,S,C) */
    const dr_tensor *ids;  /* (N,S) I32 */
    dr_tensor *dtokens;    /* (V,C), +=, in the order of the rows; NULL: skipped */
    dr_tensor *dpositions; /* (P,C), +=; NULL: skipped */
};
DR_MUST_USE dr_status dr_embedding_backward(dr_context *cx, const dr_embedding_backward_args *a);

/*
 * Half the columns cosines, then sines, of t * exp(-ln(10000) i / (C/2)), i = 0..C/2-1
 * (flip_sin_to_cos, freq_shift 0); exponent, product, sine and cosine in f32 as diffusers does.
 */
struct dr_timestep_embedding_args {
    const dr_tensor *t; /* (N) F32 */
    dr_tensor *y;       /* (N,C), C even */
};
DR_MUST_USE dr_status dr_timestep_embedding(dr_context *cx, const dr_timestep_embedding_args *a);

#endif
