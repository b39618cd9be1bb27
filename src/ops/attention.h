/*
 * ops/attention.h - multi-head scaled dot-product attention without dropout.
 *
 * Layer:    ops.  May include base/ and tensor/ only.
 * Errors:   DR_UNSUPPORTED when the backend lacks the op; otherwise the backend's own.
 *           Shapes and dtypes are contracts (DR_CHECK). Nothing is owned or kept.
 */
#ifndef DR_OPS_ATTENTION_H
#define DR_OPS_ATTENTION_H

#include "ops/context.h"

/*
 * Head h owns channels h*D .. h*D+D-1. o = softmax(q k^T / sqrt(D)) v per head; causal: query i
 * sees keys 0..i. Memory is linear in Sq and Sk: probabilities are never stored whole.
 */
struct dr_attention_args {
    int heads;
    bool causal;            /* needs Sq == Sk                                             */
    const dr_tensor *q;     /* (N,Sq,heads*D)                                             */
    const dr_tensor *k, *v; /* (N,Sk,heads*D)                                            */
    dr_tensor *o;           /* (N,Sq,heads*D)                                             */
    dr_tensor *lse;         /* (N,heads,Sq) of the compute dtype: log sum exp of the scaled
                               scores; NULL when no backward follows                      */
};
DR_MUST_USE dr_status dr_attention(dr_context *cx, const dr_attention_args *a);

struct dr_attention_backward_args {
    int heads;
    bool causal;
    const dr_tensor *dout;                /* (N,Sq,heads*D): gradient of o */
    const dr_tensor *q, *k, *v, *o, *lse; /* as in forward  */
    dr_tensor *dq, *dk, *dv;              /* all are set (never added); no two may overlap */
};
DR_MUST_USE dr_status dr_attention_backward(dr_context *cx, const dr_attention_backward_args *a);

#endif
