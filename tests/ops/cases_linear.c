#include "op_cases.h"

#include "dr_test.h"
#include "ops/linear.h"

void dr_case_linear(dr_op_run *r, const void *params)
{
    const dr_linear_case *c = params;
    const dr_linear_args a = {
        .x = dr_op_tensor(r, DR_OP_INPUT, "x", 1.0, 2, DR_DIMS(c->rows, c->in)),
        .w = dr_op_tensor(r, DR_OP_INPUT, "w", 1.0, 2, DR_DIMS(c->out, c->in)),
        .b = c->no_bias ? NULL : dr_op_tensor(r, DR_OP_INPUT, "b", 1.0, 1, DR_DIMS(c->out)),
        .y = dr_op_gradient(r, c->mode, "y", 2, DR_DIMS(c->rows, c->out)),
        .mode = c->mode};
    assert_ok(dr_linear(&r->cx, &a));
}

void dr_case_linear_dx(dr_op_run *r, const void *params)
{
    const dr_linear_case *c = params;
    const dr_linear_dx_args a = {
        .dy = dr_op_tensor(r, DR_OP_INPUT, "dy", 1.0, 2, DR_DIMS(c->rows, c->out)),
        .w = dr_op_tensor(r, DR_OP_INPUT, "w", 1.0, 2, DR_DIMS(c->out, c->in)),
        .dx = dr_op_gradient(r, c->mode, "dx", 2, DR_DIMS(c->rows, c->in)),
        .mode = c->mode};
    assert_ok(dr_linear_dx(&r->cx, &a));
}

void dr_case_linear_dw(dr_op_run *r, const void *params)
{
    const dr_linear_case *c = params;
    const dr_linear_dw_args a = {
        .dy = dr_op_tensor(r, DR_OP_INPUT, "dy", 1.0, 2, DR_DIMS(c->rows, c->out)),
        .x = dr_op_tensor(r, DR_OP_INPUT, "x", 1.0, 2, DR_DIMS(c->rows, c->in)),
        .dw = c->no_dw ? NULL : dr_op_weight_gradient(r, c->fresh, "dw", 2, DR_DIMS(c->out, c->in)),
        .db = c->no_bias ? NULL : dr_op_param_gradient(r, "db", 1, DR_DIMS(c->out)),
        .fresh = c->fresh};
    assert_ok(dr_linear_dw(&r->cx, &a));
}

static const dr_linear_case one = {.rows = 1, .in = 1, .out = 1};
static const dr_linear_case small = {.rows = 3, .in = 31, .out = 33, .mode = DR_ADD};
static const dr_linear_case tokens = {.rows = 77, .in = 129, .out = 65, .no_bias = true};
static const dr_linear_case tall = {.rows = 300, .in = 40, .out = 77, .no_dw = true};

static const dr_linear_case deep = {.rows = 5, .in = 6501, .out = 41, .mode = DR_ADD};
static const dr_linear_case wide = {.rows = 40, .in = 100, .out = 1603};

static const dr_linear_case fresh = {.rows = 33, .in = 65, .out = 48, .fresh = true};

static const dr_op_scenario scenarios[] = {
    {DR_OP_linear, "1x1x1", dr_case_linear, &one},
    {DR_OP_linear, "odd, added", dr_case_linear, &small},
    {DR_OP_linear, "without bias", dr_case_linear, &tokens},
    {DR_OP_linear, "tall", dr_case_linear, &tall},
    {DR_OP_linear, "deep", dr_case_linear, &deep},
    {DR_OP_linear, "wide", dr_case_linear, &wide},
    {DR_OP_linear_dx, "1x1x1", dr_case_linear_dx, &one},
    {DR_OP_linear_dx, "odd, added", dr_case_linear_dx, &small},
    {DR_OP_linear_dx, "tokens", dr_case_linear_dx, &tokens},
    {DR_OP_linear_dx, "tall", dr_case_linear_dx, &tall},
    {DR_OP_linear_dx, "deep", dr_case_linear_dx, &deep},
    {DR_OP_linear_dx, "wide", dr_case_linear_dx, &wide},
    {DR_OP_linear_dw, "1x1x1", dr_case_linear_dw, &one},
    {DR_OP_linear_dw, "odd", dr_case_linear_dw, &small},
    {DR_OP_linear_dw, "without db", dr_case_linear_dw, &tokens},
    {DR_OP_linear_dw, "without dw", dr_case_linear_dw, &tall},
    {DR_OP_linear_dw, "fresh", dr_case_linear_dw, &fresh},
};
const dr_op_suite dr_linear_suite = DR_OP_SUITE(scenarios);
