#include "op_cases.h"

#include "dr_test.h"
#include "ops/embedding.h"

/* One more position than tokens in a row: the last one must stay untouched. */
void dr_case_embedding(dr_op_run *r, const void *params)
{
    const dr_grid_case *c = params;
    const dr_embedding_args a = {
        .ids = dr_op_ids(r, "ids", c->w, 2, DR_DIMS(c->n, c->h)),
        .tokens = dr_op_tensor(r, DR_OP_INPUT, "tokens", 1.0, 2, DR_DIMS(c->w, c->c)),
        .positions = dr_op_tensor(r, DR_OP_INPUT, "positions", 1.0, 2, DR_DIMS(c->h + 1, c->c)),
        .y = dr_op_tensor(r, DR_OP_SET, "y", 1.0, 3, DR_DIMS(c->n, c->h, c->c))};
    assert_ok(dr_embedding(&r->cx, &a));
}

void dr_case_embedding_backward(dr_op_run *r, const void *params)
{
    const dr_grid_case *c = params;
    const dr_embedding_backward_args a = {
        .dy = dr_op_tensor(r, DR_OP_INPUT, "dy", 1.0, 3, DR_DIMS(c->n, c->h, c->c)),
        .ids = dr_op_ids(r, "ids", c->w, 2, DR_DIMS(c->n, c->h)),
        .dtokens = c->variant ? NULL : dr_op_param_gradient(r, "dtokens", 2, DR_DIMS(c->w, c->c)),
        .dpositions = dr_op_param_gradient(r, "dpositions", 2, DR_DIMS(c->h + 1, c->c))};
    assert_ok(dr_embedding_backward(&r->cx, &a));
}

void dr_case_timestep_embedding(dr_op_run *r, const void *params)
{
    const dr_grid_case *c = params;
    const dr_timestep_embedding_args a = {
        .t = dr_op_timesteps(r, "t", c->n),
        .y = dr_op_tensor(r, DR_OP_SET, "y", 1.0, 2, DR_DIMS(c->n, c->c))};
    assert_ok(dr_timestep_embedding(&r->cx, &a));
}

static const dr_grid_case one = {.n = 1, .h = 1, .w = 1, .c = 2};
static const dr_grid_case odd = {.n = 3, .h = 31, .w = 33, .c = 6};
static const dr_grid_case prompt = {.n = 2, .h = 77, .w = 100, .c = 64};
static const dr_grid_case frozen_tokens = {.n = 2, .h = 3, .w = 5, .c = 2, .variant = true};
static const dr_grid_case unet_time = {.n = 4, .c = 320};

#define SIZES(op, body)                                                                            \
    {op, "one", body, &one}, {op, "odd", body, &odd},                                              \
    {                                                                                              \
        op, "prompt", body, &prompt                                                                \
    }

static const dr_op_scenario scenarios[] = {
    SIZES(DR_OP_embedding, dr_case_embedding),
    SIZES(DR_OP_embedding_backward, dr_case_embedding_backward),
    {DR_OP_embedding_backward, "without dtokens", dr_case_embedding_backward, &frozen_tokens},
    {DR_OP_timestep_embedding, "odd", dr_case_timestep_embedding, &odd},
    {DR_OP_timestep_embedding, "320", dr_case_timestep_embedding, &unet_time},
};
const dr_op_suite dr_embedding_suite = DR_OP_SUITE(scenarios);
