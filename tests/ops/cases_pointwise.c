#include "op_cases.h"

#include "dr_test.h"

enum { ACT_SCALE = 3 }; /* both tails of the activations are reached */

void dr_case_activation(dr_op_run *r, const void *params)
{
    const dr_activation_case *c = params;
    dr_tensor *x =
        dr_op_tensor(r, c->in_place ? DR_OP_CHANGED : DR_OP_INPUT, "x", ACT_SCALE, 1, &c->n);
    dr_tensor *y = c->in_place ? x : dr_op_tensor(r, DR_OP_SET, "y", 1.0, 1, &c->n);
    assert_ok(dr_activation(&r->cx, &(dr_activation_args){.kind = c->kind, .x = x, .y = y}));
}

void dr_case_activation_backward(dr_op_run *r, const void *params)
{
    const dr_activation_case *c = params;
    dr_tensor *dy = dr_op_tensor(r, c->in_place ? DR_OP_CHANGED : DR_OP_INPUT, "dy", 1.0, 1, &c->n);
    const dr_activation_backward_args a = {
        .kind = c->kind,
        .dy = dy,
        .x = dr_op_tensor(r, DR_OP_INPUT, "x", ACT_SCALE, 1, &c->n),
        .dx = c->in_place ? dy : dr_op_gradient(r, c->mode, "dx", 1, &c->n),
        .mode = c->mode};
    assert_ok(dr_activation_backward(&r->cx, &a));
}

void dr_case_geglu(dr_op_run *r, const void *params)
{
    const dr_grid_case *c = params;
    const dr_geglu_args a = {.x =
                                 dr_op_tensor(r, DR_OP_INPUT, "x", 1.0, 2, DR_DIMS(c->h, 2 * c->c)),
                             .y = dr_op_tensor(r, DR_OP_SET, "y", 1.0, 2, DR_DIMS(c->h, c->c))};
    assert_ok(dr_geglu(&r->cx, &a));
}

void dr_case_geglu_backward(dr_op_run *r, const void *params)
{
    const dr_grid_case *c = params;
    const dr_geglu_backward_args a = {
        .dy = dr_op_tensor(r, DR_OP_INPUT, "dy", 1.0, 2, DR_DIMS(c->h, c->c)),
        .x = dr_op_tensor(r, DR_OP_INPUT, "x", 1.0, 2, DR_DIMS(c->h, 2 * c->c)),
        .dx = dr_op_tensor(r, DR_OP_SET, "dx", 1.0, 2, DR_DIMS(c->h, 2 * c->c))};
    assert_ok(dr_geglu_backward(&r->cx, &a));
}

void dr_case_add(dr_op_run *r, const void *params)
{
    const dr_grid_case *c = params;
    const dr_add_args a = {
        .alpha = 0.5F,
        .beta = -3.0F,
        .x = dr_op_tensor(r, DR_OP_INPUT, "x", 1.0, 1, &c->c),
        .z = c->variant ? NULL : dr_op_tensor(r, DR_OP_INPUT, "z", 1.0, 1, &c->c),
        .y = dr_op_tensor(r, DR_OP_SET, c->variant ? "scaled" : "y", 1.0, 1, &c->c)};
    assert_ok(dr_add(&r->cx, &a));
}

/* y is x, then y is z */
static void add_in_place(dr_op_run *r, const void *params)
{
    const dr_grid_case *c = params;
    dr_tensor *x = dr_op_tensor(r, DR_OP_CHANGED, "x", 1.0, 1, &c->c);
    dr_tensor *z = dr_op_tensor(r, DR_OP_CHANGED, "z", 1.0, 1, &c->c);
    assert_ok(dr_add(&r->cx, &(dr_add_args){.alpha = 2.0F, .beta = -1.5F, .x = x, .z = z, .y = x}));
    assert_ok(dr_add(&r->cx, &(dr_add_args){.alpha = 0.3F, .beta = 1.0F, .x = x, .z = z, .y = z}));
}

void dr_case_add_rows(dr_op_run *r, const void *params)
{
    const dr_grid_case *c = params;
    const dr_add_rows_args a = {
        .x = dr_op_tensor(r, DR_OP_CHANGED, "y", 1.0, 3, DR_DIMS(c->n, c->h, c->c)),
        .t = dr_op_tensor(r, DR_OP_INPUT, "t", 1.0, 2, DR_DIMS(c->n, c->c))};
    assert_ok(dr_add_rows(&r->cx, &a));
}

void dr_case_sum_rows(dr_op_run *r, const void *params)
{
    const dr_grid_case *c = params;
    const dr_sum_rows_args a = {
        .dy = dr_op_tensor(r, DR_OP_INPUT, "dy", 1.0, 3, DR_DIMS(c->n, c->h, c->c)),
        .dt = dr_op_gradient(r, c->mode, "dt", 2, DR_DIMS(c->n, c->c)),
        .mode = c->mode};
    assert_ok(dr_sum_rows(&r->cx, &a));
}

void dr_case_multiply(dr_op_run *r, const void *params)
{
    const dr_grid_case *c = params;
    const dr_multiply_args a = {
        .x = dr_op_tensor(r, DR_OP_INPUT, "x", 1.0, 3, DR_DIMS(c->n, c->h, c->c)),
        .t = dr_op_tensor(r, DR_OP_INPUT, "t", 1.0, 2, DR_DIMS(c->n, c->c)),
        .y = dr_op_tensor(r, DR_OP_SET, "y", 1.0, 3, DR_DIMS(c->n, c->h, c->c))};
    assert_ok(dr_multiply(&r->cx, &a));
}

static void multiply_in_place(dr_op_run *r, const void *params)
{
    const dr_grid_case *c = params;
    dr_tensor *x = dr_op_tensor(r, DR_OP_CHANGED, "x", 1.0, 3, DR_DIMS(c->n, c->h, c->c));
    const dr_tensor *t = dr_op_tensor(r, DR_OP_INPUT, "t", 1.0, 2, DR_DIMS(c->n, c->c));
    assert_ok(dr_multiply(&r->cx, &(dr_multiply_args){.x = x, .t = t, .y = x}));
}

static dr_dropout_args dropout_of(const dr_grid_case *c, const dr_tensor *x, dr_tensor *y)
{
    return (dr_dropout_args){.x = x,
                             .y = y,
                             .outer = c->n,
                             .inner = c->c,
                             .chance = 0.3F,
                             .scale = 1.0F / 0.7F,
                             .seed = 12345678912345U,
                             .purpose = DR_RANDOM_MODULE_DROPOUT,
                             .time = 3,
                             .item = 98765432101U};
}

void dr_case_dropout(dr_op_run *r, const void *params)
{
    const dr_grid_case *c = params;
    const dr_tensor *x = dr_op_tensor(r, DR_OP_INPUT, "x", 1.0, 3, DR_DIMS(c->n, c->h, c->c));
    const dr_dropout_args a =
        dropout_of(c, x, dr_op_tensor(r, DR_OP_SET, "y", 1.0, 3, DR_DIMS(c->n, c->h, c->c)));
    assert_ok(dr_dropout(&r->cx, &a));
}

static void dropout_in_place(dr_op_run *r, const void *params)
{
    const dr_grid_case *c = params;
    dr_tensor *x = dr_op_tensor(r, DR_OP_CHANGED, "x", 1.0, 3, DR_DIMS(c->n, c->h, c->c));
    const dr_dropout_args a = dropout_of(c, x, x);
    assert_ok(dr_dropout(&r->cx, &a));
}

#define KIND(kind, tag)                                                                            \
    static const dr_activation_case tag = {kind, 1031, DR_SET, false};                             \
    static const dr_activation_case tag##_added = {kind, 77, DR_ADD, false};
KIND(DR_ACT_SILU, silu)
KIND(DR_ACT_GELU, gelu)
KIND(DR_ACT_QUICK_GELU, quick_gelu)
KIND(DR_ACT_RELU, relu)
KIND(DR_ACT_TANH3, tanh3)
static const dr_activation_case in_place = {DR_ACT_SILU, 33, DR_SET, true};
static const dr_activation_case single = {DR_ACT_GELU, 1, DR_SET, false};

static const dr_grid_case one = {.n = 1, .h = 1, .w = 1, .c = 1};
static const dr_grid_case odd = {.n = 3, .h = 31, .c = 33, .mode = DR_ADD};
static const dr_grid_case long_rows = {.n = 2, .h = 65, .c = 77};
static const dr_grid_case no_z = {.c = 77, .variant = true};
static const dr_grid_case elements = {.n = 1, .h = 1, .c = 1031};
static const dr_grid_case one_column = {.n = 5, .h = 40009, .c = 1};

#define ACTIVATION(tag)                                                                            \
    {DR_OP_activation, #tag, dr_case_activation, &tag},                                            \
        {DR_OP_activation_backward, #tag, dr_case_activation_backward, &tag},                      \
    {                                                                                              \
        DR_OP_activation_backward, #tag " added", dr_case_activation_backward, &tag##_added        \
    }
#define SIZES(op, body)                                                                            \
    {op, "one", body, &one}, {op, "odd", body, &odd},                                              \
    {                                                                                              \
        op, "long", body, &long_rows                                                               \
    }

static const dr_op_scenario scenarios[] = {
    ACTIVATION(silu),
    ACTIVATION(gelu),
    ACTIVATION(quick_gelu),
    ACTIVATION(relu),
    ACTIVATION(tanh3),
    {DR_OP_activation, "in place", dr_case_activation, &in_place},
    {DR_OP_activation, "one", dr_case_activation, &single},
    {DR_OP_activation_backward, "in place", dr_case_activation_backward, &in_place},
    SIZES(DR_OP_geglu, dr_case_geglu),
    SIZES(DR_OP_geglu_backward, dr_case_geglu_backward),
    SIZES(DR_OP_add, dr_case_add),
    {DR_OP_add, "without z", dr_case_add, &no_z},
    {DR_OP_add, "in place", add_in_place, &odd},
    SIZES(DR_OP_add_rows, dr_case_add_rows),
    SIZES(DR_OP_sum_rows, dr_case_sum_rows),
    SIZES(DR_OP_multiply, dr_case_multiply),
    {DR_OP_multiply, "elements", dr_case_multiply, &elements},
    {DR_OP_multiply, "one column", dr_case_multiply, &one_column},
    {DR_OP_multiply, "in place", multiply_in_place, &odd},
    SIZES(DR_OP_dropout, dr_case_dropout),
    {DR_OP_dropout, "elements", dr_case_dropout, &elements},
    {DR_OP_dropout, "one column", dr_case_dropout, &one_column},
    {DR_OP_dropout, "in place", dropout_in_place, &odd},
};
const dr_op_suite dr_pointwise_suite = DR_OP_SUITE(scenarios);
