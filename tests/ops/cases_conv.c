#include "op_cases.h"

#include "dr_test.h"

static dr_tensor *image(dr_op_run *r, dr_op_role role, const char *name, const dr_conv_case *c)
{
    return dr_op_tensor(r, role, name, 1.0, 4, DR_DIMS(c->n, c->h, c->w, c->in));
}

static dr_tensor *output(dr_op_run *r, dr_op_role role, const char *name, const dr_conv_case *c)
{
    const dr_conv2d_geom *g = &c->geom;
    return dr_op_tensor(r, role, name, 1.0, 4,
                        DR_DIMS(c->n, dr_conv2d_out(c->h, g->kh, g->stride, g->top, g->bottom),
                                dr_conv2d_out(c->w, g->kw, g->stride, g->left, g->right), c->out));
}

static dr_tensor *filter(dr_op_run *r, dr_op_role role, const char *name, const dr_conv_case *c)
{
    return dr_op_tensor(r, role, name, 1.0, 4, DR_DIMS(c->out, c->geom.kh, c->geom.kw, c->in));
}

void dr_case_conv2d(dr_op_run *r, const void *params)
{
    const dr_conv_case *c = params;
    const dr_conv2d_args a = {
        .geom = c->geom,
        .x = image(r, DR_OP_INPUT, "x", c),
        .w = filter(r, DR_OP_INPUT, "w", c),
        .b = c->no_bias ? NULL : dr_op_tensor(r, DR_OP_INPUT, "b", 1.0, 1, DR_DIMS(c->out)),
        .y = output(r, DR_OP_SET, "y", c)};
    assert_ok(dr_conv2d(&r->cx, &a));
}

void dr_case_conv2d_dx(dr_op_run *r, const void *params)
{
    const dr_conv_case *c = params;
    const dr_conv2d_dx_args a = {
        .geom = c->geom,
        .dy = output(r, DR_OP_INPUT, "dy", c),
        .w = filter(r, DR_OP_INPUT, "w", c),
        .dx = dr_op_gradient(r, c->mode, "dx", 4, DR_DIMS(c->n, c->h, c->w, c->in)),
        .mode = c->mode};
    assert_ok(dr_conv2d_dx(&r->cx, &a));
}

static void weight_gradient(dr_op_run *r, const dr_conv_case *c, bool fresh)
{
    const int64_t filter_dim[] = {c->out, c->geom.kh, c->geom.kw, c->in};
    const dr_conv2d_dw_args a = {
        .geom = c->geom,
        .dy = output(r, DR_OP_INPUT, "dy", c),
        .x = image(r, DR_OP_INPUT, "x", c),
        .dw = c->no_dw ? NULL : dr_op_weight_gradient(r, fresh, "dw", 4, filter_dim),
        .db = c->no_bias ? NULL : dr_op_param_gradient(r, "db", 1, DR_DIMS(c->out)),
        .fresh = fresh};
    assert_ok(dr_conv2d_dw(&r->cx, &a));
}

void dr_case_conv2d_dw(dr_op_run *r, const void *params)
{
    weight_gradient(r, params, false);
}

static void fresh_weight_gradient(dr_op_run *r, const void *params)
{
    weight_gradient(r, params, true);
}

/* n, h, w, in, out, {kh, kw, stride, top, left, bottom, right}, mode, no b and db, no dw */
static const dr_conv_case one = {1, 1, 1, 1, 1, {1, 1, 1, 0, 0, 0, 0}, DR_SET, false, false};
static const dr_conv_case same = {2, 5, 7, 31, 33, {3, 3, 1, 1, 1, 1, 1}, DR_ADD, false, false};
static const dr_conv_case first = {1, 9, 9, 4, 77, {3, 3, 1, 1, 1, 1, 1}, DR_SET, true, false};
static const dr_conv_case last = {3, 3, 1, 77, 4, {3, 3, 1, 1, 1, 1, 1}, DR_SET, false, true};
static const dr_conv_case down = {2, 8, 6, 33, 31, {3, 3, 2, 1, 1, 1, 1}, DR_SET, false, false};
static const dr_conv_case odd_down = {1, 7, 5, 3, 5, {3, 3, 2, 1, 1, 1, 1}, DR_ADD, false, false};
static const dr_conv_case vae_down = {2, 8, 6, 31, 33, {3, 3, 2, 0, 0, 1, 1}, DR_SET, false, false};
static const dr_conv_case odd_vae_down = {1,      5,     7,    3, 5, {3, 3, 2, 0, 0, 1, 1},
                                          DR_ADD, false, false};
static const dr_conv_case uneven = {2, 5, 4, 3, 7, {3, 2, 1, 2, 0, 0, 1}, DR_SET, false, false};
/* More patch rows than ref's 32 MiB of scratch hold: several chunks, cut elsewhere in f64. */
static const dr_conv_case large = {1, 110, 111, 77, 3, {3, 3, 1, 1, 1, 1, 1}, DR_SET, false, false};
static const dr_conv_case point = {2, 3, 5, 77, 65, {1, 1, 1, 0, 0, 0, 0}, DR_ADD, false, false};
/* More pixels than are gathered at a time. */
static const dr_conv_case chunks = {1, 25, 24, 7, 33, {3, 3, 1, 1, 1, 1, 1}, DR_SET, false, false};
/* Enough tiles of 4x4 pixels for backend/cpu/cpu_winograd.h, cut off at two sides. */
static const dr_conv_case tiles = {2, 27, 22, 33, 36, {3, 3, 1, 1, 1, 1, 1}, DR_ADD, false, false};

/* Several panels of narrow weights (backend/cpu/cpu_narrow.h). */
static const dr_conv_case deep = {1, 4, 3, 390, 260, {3, 3, 1, 1, 1, 1, 1}, DR_ADD, false, false};

#define SCENARIOS(op, body)                                                                        \
    {op, "1x1x1", body, &one}, {op, "3x3", body, &same}, {op, "3x3 of 4 channels", body, &first},  \
        {op, "3x3 to 4 channels", body, &last}, {op, "stride 2", body, &down},                     \
        {op, "stride 2, odd sizes", body, &odd_down},                                              \
        {op, "stride 2, padded right and bottom", body, &vae_down},                                \
        {op, "the same, odd sizes", body, &odd_vae_down}, {op, "large", body, &large},             \
        {op, "many tiles", body, &tiles}, {op, "many channels", body, &deep},                      \
        {op, "uneven kernel and padding", body, &uneven},                                          \
    {                                                                                              \
        op, "1x1", body, &point                                                                    \
    }

static const dr_op_scenario scenarios[] = {
    SCENARIOS(DR_OP_conv2d, dr_case_conv2d),
    SCENARIOS(DR_OP_conv2d_dx, dr_case_conv2d_dx),
    SCENARIOS(DR_OP_conv2d_dw, dr_case_conv2d_dw),
    {DR_OP_conv2d_dw, "fresh", fresh_weight_gradient, &chunks},
    {DR_OP_conv2d_dw, "fresh, 1x1", fresh_weight_gradient, &point},
};
const dr_op_suite dr_conv_suite = DR_OP_SUITE(scenarios);
