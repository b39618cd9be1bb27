#include "op_cases.h"

#include "dr_test.h"
#include "ops/optimizer_ops.h"

void dr_case_sumsq(dr_op_run *r, const void *params)
{
    const dr_grid_case *c = params;
    const dr_sumsq_args a = {.x = dr_op_tensor(r, DR_OP_INPUT, "x", 1.0, 1, &c->c),
                             .out =
                                 dr_op_typed(r, DR_OP_ACCUMULATED, "out", DR_F64, 1, DR_DIMS(1))};
    assert_ok(dr_sumsq(&r->cx, &a));
}

/* Three steps from empty moments, gradients scaled by one half. */
void dr_case_adamw(dr_op_run *r, const void *params)
{
    static const char *const gradient[] = {"g1", "g2", "g3"};
    const dr_grid_case *c = params;
    dr_adamw_args a = {.lr = 1e-3F,
                       .beta1 = 0.9F,
                       .beta2 = 0.999F,
                       .eps = 1e-8F,
                       .weight_decay = 0.01F,
                       .grad_scale = 0.5F,
                       .p = dr_op_tensor(r, DR_OP_CHANGED, "p", 1.0, 1, &c->c),
                       .m = dr_op_tensor(r, DR_OP_CHANGED, "m", 1.0, 1, &c->c),
                       .v = dr_op_tensor(r, DR_OP_CHANGED, "v", 1.0, 1, &c->c)};
    assert_ok(dr_zero(&r->cx, a.m));
    assert_ok(dr_zero(&r->cx, a.v));
    for (a.step = 1; a.step <= 3; a.step++) {
        a.g = dr_op_tensor(r, DR_OP_INPUT, gradient[a.step - 1], 0.1, 1, &c->c);
        assert_ok(dr_adamw(&r->cx, &a));
    }
}

static const dr_grid_case one = {.c = 1};
static const dr_grid_case odd = {.c = 77};
static const dr_grid_case large = {.c = 10007};

#define SIZES(op, body)                                                                            \
    {op, "1", body, &one}, {op, "77", body, &odd},                                                 \
    {                                                                                              \
        op, "10007", body, &large                                                                  \
    }

static const dr_op_scenario scenarios[] = {
    SIZES(DR_OP_sumsq, dr_case_sumsq),
    SIZES(DR_OP_adamw, dr_case_adamw),
};
const dr_op_suite dr_optimizer_suite = DR_OP_SUITE(scenarios);
