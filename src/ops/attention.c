#include "ops/attention.h"

#include "ops/ops_internal.h"

static void check_attention(const dr_context *cx, const char *op, int heads, bool causal,
                            const dr_tensor *q, const dr_tensor *k, const dr_tensor *v,
                            const dr_tensor *lse)
{
    dr_ops_check_activation(cx, op, "q", q);
    dr_ops_check_activation(cx, op, "k", k);
    dr_ops_check_same(op, "v", v, k);
    DR_CHECK(q->rank == 3 && k->rank == 3, "%s: tokens are (N,S,C)", op);
    DR_CHECK(q->dim[0] == k->dim[0] && q->dim[2] == k->dim[2], "%s: q and k disagree", op);
    DR_CHECK(heads >= 1 && q->dim[2] % heads == 0, "%s: %lld channels, %d heads", op,
             (long long)q->dim[2], heads);
    DR_CHECK(!causal || q->dim[1] == k->dim[1], "%s: causal needs equal lengths", op);
    if (lse != NULL) {
        dr_ops_check_shape(op, "lse", lse, cx->backend->compute, 3,
                           DR_DIMS(q->dim[0], heads, q->dim[1]));
    }
}

dr_status dr_attention(dr_context *cx, const dr_attention_args *a)
{
    check_attention(cx, "attention", a->heads, a->causal, a->q, a->k, a->v, a->lse);
    dr_ops_check_same("attention", "o", a->o, a->q);
    DR_DISPATCH(cx, attention, a);
}

dr_status dr_attention_backward(dr_context *cx, const dr_attention_backward_args *a)
{
    const char *op = "attention_backward";
    check_attention(cx, op, a->heads, a->causal, a->q, a->k, a->v, a->lse);
    DR_CHECK(a->lse != NULL, "%s: lse is missing", op);
    dr_ops_check_same(op, "dout", a->dout, a->q);
    dr_ops_check_same(op, "o", a->o, a->q);
    dr_ops_check_same(op, "dq", a->dq, a->q);
    dr_ops_check_same(op, "dk", a->dk, a->k);
    dr_ops_check_same(op, "dv", a->dv, a->k);
    DR_DISPATCH(cx, attention_backward, a);
}
