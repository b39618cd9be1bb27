#include "op_cases.h"

#include "dr_test.h"
#include "ops/attention.h"

static dr_attention_args forward_args(dr_op_run *r, const dr_attention_case *c, dr_op_role role)
{
    const int64_t width = c->heads * c->d;
    return (dr_attention_args){
        .heads = c->heads,
        .causal = c->causal,
        .q = dr_op_tensor(r, DR_OP_INPUT, "q", 1.0, 3, DR_DIMS(c->n, c->sq, width)),
        .k = dr_op_tensor(r, DR_OP_INPUT, "k", 1.0, 3, DR_DIMS(c->n, c->sk, width)),
        .v = dr_op_tensor(r, DR_OP_INPUT, "v", 1.0, 3, DR_DIMS(c->n, c->sk, width)),
        .o = dr_op_tensor(r, role, "o", 1.0, 3, DR_DIMS(c->n, c->sq, width)),
        .lse = c->no_lse ? NULL : dr_op_stat(r, role, "lse", 3, DR_DIMS(c->n, c->heads, c->sq))};
}

void dr_case_attention(dr_op_run *r, const void *params)
{
    const dr_attention_args a = forward_args(r, params, DR_OP_SET);
    assert_ok(dr_attention(&r->cx, &a));
}

void dr_case_attention_backward(dr_op_run *r, const void *params)
{
    const dr_attention_case *c = params;
    const int64_t width = c->heads * c->d;
    const dr_attention_args f = forward_args(r, c, DR_OP_SAVED);
    assert_ok(dr_attention(&r->cx, &f));
    const dr_attention_backward_args a = {
        .heads = c->heads,
        .causal = c->causal,
        .dout = dr_op_tensor(r, DR_OP_INPUT, "do", 1.0, 3, DR_DIMS(c->n, c->sq, width)),
        .q = f.q,
        .k = f.k,
        .v = f.v,
        .o = f.o,
        .lse = f.lse,
        .dq = dr_op_gradient(r, DR_SET, "dq", 3, DR_DIMS(c->n, c->sq, width)),
        .dk = dr_op_gradient(r, DR_SET, "dk", 3, DR_DIMS(c->n, c->sk, width)),
        .dv = dr_op_gradient(r, DR_SET, "dv", 3, DR_DIMS(c->n, c->sk, width))};
    assert_ok(dr_attention_backward(&r->cx, &a));
}

static const dr_attention_case one = {1, 1, 1, 1, 1, false, false};
static const dr_attention_case self = {2, 33, 33, 40, 3, false, false};
static const dr_attention_case cross = {3, 31, 77, 8, 5, false, false};
static const dr_attention_case causal = {2, 77, 77, 16, 2, true, false};
static const dr_attention_case wide = {1, 49, 49, 77, 1, false, false};
static const dr_attention_case inference = {1, 33, 31, 3, 2, false, true};

/* In 16 bits: cuDNN's, in groups of two heads; as many channels as SD 1.5 has; no plan. */
static const dr_attention_case grouped = {2, 71, 77, 8, 6, false, false};
static const dr_attention_case long_heads = {1, 17, 77, 160, 2, false, true};
static const dr_attention_case unplanned = {1, 35, 77, 16, 2, false, false};

static const dr_op_scenario scenarios[] = {
    {DR_OP_attention, "1x1x1", dr_case_attention, &one},
    {DR_OP_attention, "self", dr_case_attention, &self},
    {DR_OP_attention, "cross", dr_case_attention, &cross},
    {DR_OP_attention, "causal", dr_case_attention, &causal},
    {DR_OP_attention, "one wide head", dr_case_attention, &wide},
    {DR_OP_attention, "without lse", dr_case_attention, &inference},
    {DR_OP_attention, "wide heads without lse", dr_case_attention, &long_heads},
    {DR_OP_attention, "multiples of five", dr_case_attention, &unplanned},
    {DR_OP_attention_backward, "heads in groups", dr_case_attention_backward, &grouped},
    {DR_OP_attention_backward, "multiples of five", dr_case_attention_backward, &unplanned},
    {DR_OP_attention_backward, "1x1x1", dr_case_attention_backward, &one},
    {DR_OP_attention_backward, "self", dr_case_attention_backward, &self},
    {DR_OP_attention_backward, "cross", dr_case_attention_backward, &cross},
    {DR_OP_attention_backward, "causal", dr_case_attention_backward, &causal},
    {DR_OP_attention_backward, "one wide head", dr_case_attention_backward, &wide},
};
const dr_op_suite dr_attention_suite = DR_OP_SUITE(scenarios);
