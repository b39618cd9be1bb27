#include "op_cases.h"

#include "dr_test.h"
#include "ops/diffusion_ops.h"

enum { MOMENT_SCALE = 20 }; /* the log variance passes both ends of its clamp */

void dr_case_mix(dr_op_run *r, const void *params)
{
    const dr_grid_case *c = params;
    const int64_t dim[] = {c->n, c->h, c->w, c->c};
    dr_tensor *x = dr_op_tensor(r, c->variant ? DR_OP_CHANGED : DR_OP_INPUT, "x", 1.0, 4, dim);
    const dr_mix_args a = {.x = x,
                           .z = dr_op_tensor(r, DR_OP_INPUT, "z", 1.0, 4, dim),
                           .a = dr_op_stat(r, DR_OP_INPUT, "a", 1, &c->n),
                           .b = dr_op_stat(r, DR_OP_INPUT, "b", 1, &c->n),
                           .y = c->variant ? x : dr_op_tensor(r, DR_OP_SET, "y", 1.0, 4, dim)};
    assert_ok(dr_mix(&r->cx, &a));
}

/* The weight is the gradient of the summed loss of a sample. */
void dr_case_mse(dr_op_run *r, const void *params)
{
    const dr_grid_case *c = params;
    const int64_t dim[] = {c->n, c->h, c->w, c->c};
    const dr_loss_kind kind = (dr_loss_kind)c->c2 >> 1;
    const bool bent = kind == DR_LOSS_HUBER || kind == DR_LOSS_SMOOTH_L1;
    const dr_mse_args a = {
        .kind = kind,
        .threshold = bent ? dr_op_stat(r, DR_OP_INPUT, "threshold", 1, &c->n) : NULL,
        .pred = dr_op_tensor(r, DR_OP_INPUT, "pred", 1.0, 4, dim),
        .target = dr_op_tensor(r, DR_OP_INPUT, "target", 1.0, 4, dim),
        .weight = dr_op_stat(r, DR_OP_INPUT, "dloss", 1, &c->n),
        .mask = (c->c2 & 1) != 0 ? dr_op_stat(r, DR_OP_INPUT, "mask", 3, dim) : NULL,
        .loss = dr_op_stat(r, DR_OP_SET, "loss", 1, &c->n),
        .dpred = c->variant ? NULL : dr_op_tensor(r, DR_OP_SET, "dpred", 1.0, 4, dim)};
    assert_ok(dr_mse(&r->cx, &a));
}

void dr_case_posterior_sample(dr_op_run *r, const void *params)
{
    const dr_grid_case *c = params;
    const int64_t dim[] = {c->n, c->h, c->w, c->c};
    const int64_t dim_moments[] = {c->n, c->h, c->w, 2 * c->c};
    const dr_posterior_sample_args a = {
        .moments = dr_op_tensor(r, DR_OP_INPUT, "moments", MOMENT_SCALE, 4, dim_moments),
        .noise = c->variant ? NULL : dr_op_tensor(r, DR_OP_INPUT, "noise", 1.0, 4, dim),
        .z = dr_op_tensor(r, DR_OP_SET, c->variant ? "mean" : "z", 1.0, 4, dim)};
    assert_ok(dr_posterior_sample(&r->cx, &a));
}

static const dr_grid_case one = {.n = 1, .h = 1, .w = 1, .c = 1};
static const dr_grid_case latents = {.n = 3, .h = 7, .w = 5, .c = 4};
static const dr_grid_case odd = {.n = 2, .h = 31, .w = 3, .c = 33};
static const dr_grid_case masked = {.n = 3, .h = 7, .w = 5, .c = 4, .c2 = 1};
static const dr_grid_case l1 = {.n = 3, .h = 7, .w = 5, .c = 4, .c2 = DR_LOSS_L1 << 1};
static const dr_grid_case huber = {.n = 3, .h = 7, .w = 5, .c = 4, .c2 = DR_LOSS_HUBER << 1 | 1};
static const dr_grid_case smooth = {.n = 3, .h = 7, .w = 5, .c = 4, .c2 = DR_LOSS_SMOOTH_L1 << 1};
static const dr_grid_case elements = {.n = 70001, .h = 1, .w = 1, .c = 1};
static const dr_grid_case variant = {.n = 2, .h = 3, .w = 3, .c = 4, .variant = true};

#define SIZES(op, body, what)                                                                      \
    {op, "one", body, &one}, {op, "latents", body, &latents}, {op, "odd", body, &odd},             \
    {                                                                                              \
        op, what, body, &variant                                                                   \
    }

static const dr_op_scenario scenarios[] = {
    SIZES(DR_OP_mix, dr_case_mix, "in place"),
    {DR_OP_mix, "samples of one element", dr_case_mix, &elements},
    SIZES(DR_OP_mse, dr_case_mse, "without dpred"),
    {DR_OP_mse, "masked", dr_case_mse, &masked},
    {DR_OP_mse, "l1", dr_case_mse, &l1},
    {DR_OP_mse, "huber, masked", dr_case_mse, &huber},
    {DR_OP_mse, "smooth_l1", dr_case_mse, &smooth},
    SIZES(DR_OP_posterior_sample, dr_case_posterior_sample, "without noise"),
};
const dr_op_suite dr_diffusion_suite = DR_OP_SUITE(scenarios);
