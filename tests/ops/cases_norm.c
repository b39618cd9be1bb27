#include "op_cases.h"

#include "dr_test.h"
#include "ops/norm.h"

static dr_groupnorm_args groupnorm_args(dr_op_run *r, const dr_groupnorm_case *c, dr_op_role role)
{
    const int64_t dim[] = {c->n, c->h, c->w, c->c};
    return (dr_groupnorm_args){.groups = c->groups,
                               .eps = c->eps,
                               .silu = c->silu,
                               .x = dr_op_tensor(r, DR_OP_INPUT, "x", 1.0, 4, dim),
                               .gamma = dr_op_tensor(r, DR_OP_INPUT, "gamma", 1.0, 1, &c->c),
                               .beta = dr_op_tensor(r, DR_OP_INPUT, "beta", 1.0, 1, &c->c),
                               .y = dr_op_tensor(r, role, "y", 1.0, 4, dim),
                               .stats =
                                   dr_op_stat(r, role, "stats", 3, DR_DIMS(c->n, c->groups, 2))};
}

void dr_case_groupnorm(dr_op_run *r, const void *params)
{
    const dr_groupnorm_args a = groupnorm_args(r, params, DR_OP_SET);
    assert_ok(dr_groupnorm(&r->cx, &a));
}

void dr_case_groupnorm_backward(dr_op_run *r, const void *params)
{
    const dr_groupnorm_case *c = params;
    const int64_t dim[] = {c->n, c->h, c->w, c->c};
    const dr_groupnorm_args f = groupnorm_args(r, c, DR_OP_SAVED);
    assert_ok(dr_groupnorm(&r->cx, &f));
    const dr_groupnorm_backward_args a = {
        .groups = c->groups,
        .silu = c->silu,
        .dy = dr_op_tensor(r, DR_OP_INPUT, "dy", 1.0, 4, dim),
        .x = f.x,
        .gamma = f.gamma,
        .beta = f.beta,
        .stats = f.stats,
        .dx = c->no_dx ? NULL : dr_op_gradient(r, c->mode, "dx", 4, dim),
        .mode = c->mode,
        .dgamma = c->no_dgamma ? NULL : dr_op_param_gradient(r, "dgamma", 1, &c->c),
        .dbeta = c->no_dgamma ? NULL : dr_op_param_gradient(r, "dbeta", 1, &c->c)};
    assert_ok(dr_groupnorm_backward(&r->cx, &a));
}

static dr_layernorm_args layernorm_args(dr_op_run *r, const dr_layernorm_case *c, dr_op_role role)
{
    return (dr_layernorm_args){
        .eps = c->eps,
        .x = dr_op_tensor(r, DR_OP_INPUT, "x", 1.0, 2, DR_DIMS(c->rows, c->c)),
        .gamma = dr_op_tensor(r, DR_OP_INPUT, "gamma", 1.0, 1, &c->c),
        .beta = dr_op_tensor(r, DR_OP_INPUT, "beta", 1.0, 1, &c->c),
        .y = dr_op_tensor(r, role, "y", 1.0, 2, DR_DIMS(c->rows, c->c)),
        .stats = dr_op_stat(r, role, "stats", 2, DR_DIMS(c->rows, 2))};
}

void dr_case_layernorm(dr_op_run *r, const void *params)
{
    const dr_layernorm_args a = layernorm_args(r, params, DR_OP_SET);
    assert_ok(dr_layernorm(&r->cx, &a));
}

void dr_case_layernorm_backward(dr_op_run *r, const void *params)
{
    const dr_layernorm_case *c = params;
    const dr_layernorm_args f = layernorm_args(r, c, DR_OP_SAVED);
    assert_ok(dr_layernorm(&r->cx, &f));
    const dr_layernorm_backward_args a = {
        .dy = dr_op_tensor(r, DR_OP_INPUT, "dy", 1.0, 2, DR_DIMS(c->rows, c->c)),
        .x = f.x,
        .gamma = f.gamma,
        .stats = f.stats,
        .dx = c->no_dx ? NULL : dr_op_gradient(r, c->mode, "dx", 2, DR_DIMS(c->rows, c->c)),
        .mode = c->mode,
        .dgamma = c->no_dgamma ? NULL : dr_op_param_gradient(r, "dgamma", 1, &c->c),
        .dbeta = c->no_dgamma ? NULL : dr_op_param_gradient(r, "dbeta", 1, &c->c)};
    assert_ok(dr_layernorm_backward(&r->cx, &a));
}

static const dr_groupnorm_case one_group = {1, 3, 3, 1, 1, 1e-5F, false, DR_SET, false, false};
static const dr_groupnorm_case thirds = {3, 7, 5, 33, 3, 1e-6F, false, DR_ADD, false, false};
static const dr_groupnorm_case unet = {2, 5, 3, 96, 32, 1e-5F, true, DR_ADD, false, false};
static const dr_groupnorm_case frozen = {2, 1, 33, 31, 31, 1e-5F, true, DR_SET, false, true};
static const dr_groupnorm_case edge = {1, 31, 1, 77, 7, 1e-6F, true, DR_SET, true, false};

static const dr_layernorm_case one_row = {1, 31, 1e-5F, DR_SET, false, false};
static const dr_layernorm_case tokens = {77, 65, 1e-5F, DR_ADD, false, false};
static const dr_layernorm_case frozen_rows = {31, 33, 1e-5F, DR_SET, false, true};
static const dr_layernorm_case edge_rows = {33, 77, 1e-5F, DR_SET, true, false};

#define GROUP(op, body)                                                                            \
    {op, "one group", body, &one_group}, {op, "three groups", body, &thirds},                      \
        {op, "32 groups, SiLU", body, &unet}, {op, "SiLU, one channel each", body, &frozen},       \
    {                                                                                              \
        op, "SiLU, wide", body, &edge                                                              \
    }
#define LAYER(op, body)                                                                            \
    {op, "one row", body, &one_row}, {op, "tokens", body, &tokens},                                \
        {op, "dx only", body, &frozen_rows},                                                       \
    {                                                                                              \
        op, "dgamma only", body, &edge_rows                                                        \
    }

static const dr_op_scenario scenarios[] = {
    GROUP(DR_OP_groupnorm, dr_case_groupnorm),
    GROUP(DR_OP_groupnorm_backward, dr_case_groupnorm_backward),
    LAYER(DR_OP_layernorm, dr_case_layernorm),
    LAYER(DR_OP_layernorm_backward, dr_case_layernorm_backward),
};
const dr_op_suite dr_norm_suite = DR_OP_SUITE(scenarios);
