#include "op_cases.h"

#include "dr_test.h"
#include "ops/cast.h"
#include "ops/layout.h"

void dr_case_concat(dr_op_run *r, const void *params)
{
    const dr_grid_case *c = params;
    const dr_concat_args a = {
        .a = dr_op_tensor(r, DR_OP_INPUT, "a", 1.0, 4, DR_DIMS(c->n, c->h, c->w, c->c)),
        .b = dr_op_tensor(r, DR_OP_INPUT, "b", 1.0, 4, DR_DIMS(c->n, c->h, c->w, c->c2)),
        .y = dr_op_tensor(r, DR_OP_SET, "y", 1.0, 4, DR_DIMS(c->n, c->h, c->w, c->c + c->c2))};
    assert_ok(dr_concat(&r->cx, &a));
}

void dr_case_split(dr_op_run *r, const void *params)
{
    const dr_grid_case *c = params;
    const int64_t dim_b[] = {c->n, c->h, c->w, c->c2};
    const int64_t dim_y[] = {c->n, c->h, c->w, c->c + c->c2};
    const dr_split_args a = {
        .dy = dr_op_tensor(r, DR_OP_INPUT, "dy", 1.0, 4, dim_y),
        .da = c->variant ? NULL
                         : dr_op_gradient(r, c->mode, "da", 4, DR_DIMS(c->n, c->h, c->w, c->c)),
        .db = dr_op_gradient(r, c->mode2, "db", 4, dim_b),
        .mode_a = c->mode,
        .mode_b = c->mode2,
        .ca = c->c};
    assert_ok(dr_split(&r->cx, &a));
}

static void split_without_b(dr_op_run *r, const void *params)
{
    const dr_grid_case *c = params;
    const int64_t dim_y[] = {c->n, c->h, c->w, c->c + c->c2};
    const dr_split_args a = {
        .dy = dr_op_tensor(r, DR_OP_INPUT, "dy", 1.0, 4, dim_y),
        .da = dr_op_gradient(r, c->mode, "da", 4, DR_DIMS(c->n, c->h, c->w, c->c)),
        .mode_a = c->mode,
        .ca = c->c};
    assert_ok(dr_split(&r->cx, &a));
}

void dr_case_swap(dr_op_run *r, const void *params)
{
    const dr_grid_case *c = params;
    const dr_swap_args a = {
        .x = dr_op_tensor(r, DR_OP_INPUT, "x", 1.0, 4, DR_DIMS(c->n, c->h, c->w, c->c)),
        .y = dr_op_tensor(r, DR_OP_SET, "y", 1.0, 4, DR_DIMS(c->n, c->w, c->h, c->c))};
    assert_ok(dr_swap(&r->cx, &a));
}

void dr_case_upsample2x(dr_op_run *r, const void *params)
{
    const dr_grid_case *c = params;
    const dr_upsample2x_args a = {
        .x = dr_op_tensor(r, DR_OP_INPUT, "x", 1.0, 4, DR_DIMS(c->n, c->h, c->w, c->c)),
        .y = dr_op_tensor(r, DR_OP_SET, "y", 1.0, 4, DR_DIMS(c->n, 2 * c->h, 2 * c->w, c->c))};
    assert_ok(dr_upsample2x(&r->cx, &a));
}

void dr_case_upsample2x_backward(dr_op_run *r, const void *params)
{
    const dr_grid_case *c = params;
    const dr_upsample2x_backward_args a = {
        .dy = dr_op_tensor(r, DR_OP_INPUT, "dy", 1.0, 4, DR_DIMS(c->n, 2 * c->h, 2 * c->w, c->c)),
        .dx = dr_op_gradient(r, c->mode, "dx", 4, DR_DIMS(c->n, c->h, c->w, c->c)),
        .mode = c->mode};
    assert_ok(dr_upsample2x_backward(&r->cx, &a));
}

/* Between the activation dtype and the compute dtype. */
void dr_case_cast(dr_op_run *r, const void *params)
{
    const dr_grid_case *c = params;
    const dr_cast_args a = {.x = c->variant ? dr_op_tensor(r, DR_OP_INPUT, "x", 1.0, 1, &c->c)
                                            : dr_op_stat(r, DR_OP_INPUT, "x", 1, &c->c),
                            .y = c->variant ? dr_op_stat(r, DR_OP_SET, "y", 1, &c->c)
                                            : dr_op_tensor(r, DR_OP_SET, "y", 1.0, 1, &c->c)};
    assert_ok(dr_cast(&r->cx, &a));
}

static const dr_grid_case one = {.n = 1, .h = 1, .w = 1, .c = 1, .c2 = 1};
static const dr_grid_case odd = {
    .n = 2, .h = 3, .w = 5, .c = 31, .c2 = 33, .mode = DR_ADD, .mode2 = DR_SET};
static const dr_grid_case wide = {
    .n = 3, .h = 7, .w = 1, .c = 77, .c2 = 3, .mode = DR_SET, .mode2 = DR_ADD};
static const dr_grid_case only_b = {.n = 1, .h = 3, .w = 3, .c = 5, .c2 = 7, .variant = true};

static const dr_grid_case longest = {.c = 70001};

#define SIZES(op, body)                                                                            \
    {op, "one", body, &one}, {op, "odd", body, &odd},                                              \
    {                                                                                              \
        op, "wide", body, &wide                                                                    \
    }

static const dr_op_scenario scenarios[] = {
    SIZES(DR_OP_cast, dr_case_cast),
    {DR_OP_cast, "to wide", dr_case_cast, &only_b},
    {DR_OP_cast, "long", dr_case_cast, &longest},
    SIZES(DR_OP_concat, dr_case_concat),
    SIZES(DR_OP_split, dr_case_split),
    {DR_OP_split, "without da", dr_case_split, &only_b},
    {DR_OP_split, "without db", split_without_b, &odd},
    SIZES(DR_OP_swap, dr_case_swap),
    SIZES(DR_OP_upsample2x, dr_case_upsample2x),
    SIZES(DR_OP_upsample2x_backward, dr_case_upsample2x_backward),
};
const dr_op_suite dr_layout_suite = DR_OP_SUITE(scenarios);
