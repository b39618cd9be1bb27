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

void dr_case_checksum(dr_op_run *r, const void *params)
{
    const dr_grid_case *c = params;
    const dr_checksum_args a = {
        .x = dr_op_typed(r, DR_OP_INPUT, "x", c->variant ? DR_BF16 : DR_F32, 1, &c->c),
        .out = dr_op_typed(r, DR_OP_ACCUMULATED, "out", DR_F64, 1, DR_DIMS(DR_CHECKSUM_PARTS))};
    assert_ok(dr_checksum(&r->cx, &a));
}

/* Three steps from empty moments, gradients scaled by one half. */
void dr_case_adamw(dr_op_run *r, const void *params)
{
    static const char *const gradient[] = {"g1", "g2", "g3"};
    const dr_grid_case *c = params;
    dr_adamw_args a = {.lr = 1e-3,
                       .beta1 = 0.9,
                       .beta2 = 0.999,
                       .eps = 1e-8,
                       .weight_decay = 0.01,
                       .grad_scale = 0.5,
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

void dr_case_lerp(dr_op_run *r, const void *params)
{
    const dr_grid_case *c = params;
    const dr_lerp_args a = {.weight = c->variant ? 0.7 : 0.1,
                            .x = dr_op_tensor(r, DR_OP_INPUT, "x", 1.0, 1, &c->c),
                            .y = dr_op_tensor(r, DR_OP_CHANGED, "y", 1.0, 1, &c->c)};
    assert_ok(dr_lerp(&r->cx, &a));
}

/* The sign of a sum near zero may differ between types: numbers are far from it. */
void dr_case_lion(dr_op_run *r, const void *params)
{
    const dr_grid_case *c = params;
    const dr_lion_args a = {
        .lr = 1e-3,
        .beta1 = 0.9,
        .beta2 = 0.99,
        .rate = 0.01,
        .weight_decay = 0.1,
        .grad_scale = 0.5,
        .s_keep = 0.995,
        .s_rate = 0.005,
        .p = dr_op_tensor(r, DR_OP_CHANGED, "p", 1.0, 1, &c->c),
        .m = dr_op_tensor(r, DR_OP_CHANGED, "m", 0.1, 1, &c->c),
        .g = dr_op_tensor(r, DR_OP_INPUT, "g", 0.1, 1, &c->c),
        .s = c->variant ? dr_op_tensor(r, DR_OP_CHANGED, "s", 0.1, 1, &c->c) : NULL,
        .sums =
            c->variant ? dr_op_typed(r, DR_OP_ACCUMULATED, "sums", DR_F64, 1, DR_DIMS(3)) : NULL};
    assert_ok(dr_lion(&r->cx, &a));
}

void dr_case_momentum(dr_op_run *r, const void *params)
{
    const dr_grid_case *c = params;
    dr_momentum_args a = {.lr = 1e-2,
                          .momentum = 0.9,
                          .dampening = 0.1,
                          .weight_decay = 0.01,
                          .grad_scale = 0.5,
                          .nesterov = c->variant,
                          .first = true,
                          .p = dr_op_tensor(r, DR_OP_CHANGED, "p", 1.0, 1, &c->c),
                          .m = dr_op_tensor(r, DR_OP_CHANGED, "m", 1.0, 1, &c->c),
                          .g = dr_op_tensor(r, DR_OP_INPUT, "g", 0.1, 1, &c->c)};
    assert_ok(dr_momentum(&r->cx, &a));
    a.first = false;
    assert_ok(dr_momentum(&r->cx, &a));
}

/* Second moments are squares: an input of them is made by a first call from zero. They are large
 * enough for F16. */
void dr_case_dadapt(dr_op_run *r, const void *params)
{
    const dr_grid_case *c = params;
    const bool prodigy = c->h == DR_DADAPT_PRODIGY;
    dr_dadapt_args a = {.kind = (dr_dadapt_kind)c->h,
                        .grad_scale = 0.5,
                        .l2 = 0.01,
                        .eps = 1e-3,
                        .m_keep = 0.9,
                        .m_rate = 0.1,
                        .v_keep = 0.9,
                        .v_rate = 0.1,
                        .s_keep = 0.9995,
                        .s_rate = 0.0005,
                        .p = dr_op_tensor(r, DR_OP_INPUT, "p", 1.0, 1, &c->c),
                        .g = dr_op_tensor(r, DR_OP_INPUT, "g1", 1.0, 1, &c->c),
                        .p0 = prodigy ? dr_op_tensor(r, DR_OP_INPUT, "p0", 1.0, 1, &c->c) : NULL,
                        .m = dr_op_tensor(r, DR_OP_CHANGED, "m", 1.0, 1, &c->c),
                        .v = dr_op_tensor(r, DR_OP_CHANGED, "v", 1.0, 1, &c->c),
                        .s = dr_op_tensor(r, DR_OP_CHANGED, "s", 1.0, 1, &c->c),
                        .sums = dr_op_typed(r, DR_OP_ACCUMULATED, "sums", DR_F64, 1, DR_DIMS(3))};
    assert_ok(dr_zero(&r->cx, a.v));
    assert_ok(dr_dadapt(&r->cx, &a));
    a.g = dr_op_tensor(r, DR_OP_INPUT, "g2", 1.0, 1, &c->c);
    assert_ok(dr_dadapt(&r->cx, &a));
}

/* v of one AdamW step: squares. */
static dr_tensor *second_moment(dr_op_run *r, int64_t n)
{
    dr_tensor *v = dr_op_tensor(r, DR_OP_SAVED, "v", 1.0, 1, &n);
    const dr_adamw_args a = {.beta2 = 0.9,
                             .grad_scale = 1.0,
                             .eps = 1.0,
                             .step = 1,
                             .p = dr_op_tensor(r, DR_OP_SAVED, "unused1", 1.0, 1, &n),
                             .m = dr_op_tensor(r, DR_OP_SAVED, "unused2", 1.0, 1, &n),
                             .v = v,
                             .g = dr_op_tensor(r, DR_OP_INPUT, "root", 1.0, 1, &n)};
    assert_ok(dr_zero(&r->cx, a.p));
    assert_ok(dr_zero(&r->cx, a.m));
    assert_ok(dr_zero(&r->cx, v));
    assert_ok(dr_adamw(&r->cx, &a));
    return v;
}

void dr_case_adam_apply(dr_op_run *r, const void *params)
{
    const dr_grid_case *c = params;
    const dr_adam_apply_args a = {.decay = 1e-3,
                                  .rate = 1e-2,
                                  .eps = 1e-3,
                                  .p = dr_op_tensor(r, DR_OP_CHANGED, "p", 1.0, 1, &c->c),
                                  .m = dr_op_tensor(r, DR_OP_INPUT, "m", 0.1, 1, &c->c),
                                  .v = second_moment(r, c->c)};
    assert_ok(dr_adam_apply(&r->cx, &a));
}

void dr_case_schedule_free(dr_op_run *r, const void *params)
{
    const dr_grid_case *c = params;
    const dr_schedule_free_args a = {.lr = 1e-2,
                                     .beta2 = 0.999,
                                     .eps = 1e-3,
                                     .correction = 0.3,
                                     .weight_decay = 0.01,
                                     .average = 0.25,
                                     .y_rate = -3e-3,
                                     .grad_scale = 0.5,
                                     .normalized = !c->variant,
                                     .y = dr_op_tensor(r, DR_OP_CHANGED, "y", 1.0, 1, &c->c),
                                     .z = dr_op_tensor(r, DR_OP_CHANGED, "z", 1.0, 1, &c->c),
                                     .v = c->variant ? NULL : second_moment(r, c->c),
                                     .g = dr_op_tensor(r, DR_OP_INPUT, "g", 0.1, 1, &c->c)};
    assert_ok(dr_schedule_free(&r->cx, &a));
}

/* n x h x w x c; w = 0: not factored, c elements. */
static int64_t factored_size(const dr_grid_case *c)
{
    return c->w == 0 ? c->c : c->n * c->h * c->w * c->c;
}

/* Moments of one step from zero. */
static dr_factored factors(dr_op_run *r, const dr_grid_case *c, dr_op_role role, const dr_tensor *g)
{
    dr_factored f = {.outer = c->n, .a = c->h, .b = c->w, .inner = c->c};
    if (c->w == 0) {
        f.v = dr_op_tensor(r, role, "v", 1.0, 1, &c->c);
        assert_ok(dr_zero(&r->cx, f.v));
    } else {
        f.row = dr_op_tensor(r, role, "row", 1.0, 1, DR_DIMS(c->n * c->h * c->c));
        f.col = dr_op_tensor(r, role, "col", 1.0, 1, DR_DIMS(c->n * c->w * c->c));
        assert_ok(dr_zero(&r->cx, f.row));
        assert_ok(dr_zero(&r->cx, f.col));
    }
    const dr_adafactor_moments_args a = {
        .grad_scale = 0.5, .keep = 0.4, .eps = 1e-3, .g = g, .f = f};
    assert_ok(dr_adafactor_moments(&r->cx, &a));
    return f;
}

void dr_case_adafactor_moments(dr_op_run *r, const void *params)
{
    const dr_grid_case *c = params;
    const int64_t n = factored_size(c);
    (void)factors(r, c, DR_OP_CHANGED, dr_op_tensor(r, DR_OP_INPUT, "g", 1.0, 1, &n));
}

void dr_case_adafactor_sums(dr_op_run *r, const void *params)
{
    const dr_grid_case *c = params;
    const int64_t n = factored_size(c);
    const dr_tensor *g = dr_op_tensor(r, DR_OP_INPUT, "g", 1.0, 1, &n);
    const dr_adafactor_sums_args a = {.grad_scale = 0.5,
                                      .g = g,
                                      .p = dr_op_tensor(r, DR_OP_INPUT, "p", 1.0, 1, &n),
                                      .f = factors(r, c, DR_OP_SAVED, g),
                                      .sums =
                                          dr_op_typed(r, DR_OP_SET, "sums", DR_F64, 1, DR_DIMS(3))};
    assert_ok(dr_adafactor_sums(&r->cx, &a));
}

void dr_case_adafactor_apply(dr_op_run *r, const void *params)
{
    const dr_grid_case *c = params;
    const int64_t n = factored_size(c);
    const dr_tensor *g = dr_op_tensor(r, DR_OP_INPUT, "g", 1.0, 1, &n);
    const dr_adafactor_apply_args a = {
        .grad_scale = 0.5,
        .lr = 1e-2,
        .least_scale = 1e-3,
        .clip = 0.1,
        .beta1 = 0.9,
        .weight_decay = 0.1,
        .scale_parameter = true,
        .g = g,
        .p = dr_op_tensor(r, DR_OP_CHANGED, "p", 1.0, 1, &n),
        .m = c->variant ? dr_op_tensor(r, DR_OP_CHANGED, "m", 1e-3, 1, &n) : NULL,
        .f = factors(r, c, DR_OP_SAVED, g),
        .sums = dr_op_typed(r, DR_OP_SAVED, "sums", DR_F64, 1, DR_DIMS(3))};
    const dr_adafactor_sums_args sums = {
        .grad_scale = 0.5, .g = g, .p = a.p, .f = a.f, .sums = a.sums};
    assert_ok(dr_adafactor_sums(&r->cx, &sums));
    assert_ok(dr_adafactor_apply(&r->cx, &a));
}

/*
 * Two steps from states of zero. A code may fall to either side of a middle, so coded states are
 * not compared themselves: the second step shows them through p.
 */
void dr_case_blockwise(dr_op_run *r, const void *params)
{
    const dr_grid_case *c = params;
    const int64_t blocks = (c->c + DR_BLOCKWISE_BLOCK - 1) / DR_BLOCKWISE_BLOCK;
    const bool adam = c->h == DR_BLOCKWISE_ADAM;
    const dr_dtype type = c->variant ? r->cx.backend->compute : DR_U8;
    dr_blockwise_args a = {.kind = (dr_blockwise_kind)c->h,
                           .lr = 1e-3,
                           .beta1 = 0.9,
                           .beta2 = 0.999,
                           .eps = 1e-8,
                           .weight_decay = 0.01,
                           .grad_scale = 0.5,
                           .step = 1,
                           .p = dr_op_tensor(r, DR_OP_CHANGED, "p", 1.0, 1, &c->c),
                           .g = dr_op_tensor(r, DR_OP_INPUT, "g1", 0.1, 1, &c->c),
                           .state1 = dr_op_typed(r, DR_OP_SAVED, "state1", type, 1, &c->c),
                           .state2 =
                               adam ? dr_op_typed(r, DR_OP_SAVED, "state2", type, 1, &c->c) : NULL};
    assert_ok(dr_zero(&r->cx, a.state1));
    if (!c->variant) {
        a.absmax1 = dr_op_typed(r, DR_OP_SAVED, "absmax1", DR_F32, 1, &blocks);
        assert_ok(dr_zero(&r->cx, a.absmax1));
    }
    if (adam) {
        assert_ok(dr_zero(&r->cx, a.state2));
    }
    if (adam && !c->variant) {
        a.absmax2 = dr_op_typed(r, DR_OP_SAVED, "absmax2", DR_F32, 1, &blocks);
        assert_ok(dr_zero(&r->cx, a.absmax2));
    }
    assert_ok(dr_blockwise(&r->cx, &a));
    a.step = 2;
    a.g = dr_op_tensor(r, DR_OP_INPUT, "g2", 0.1, 1, &c->c);
    assert_ok(dr_blockwise(&r->cx, &a));
}

static const dr_grid_case one = {.c = 1};
static const dr_grid_case odd = {.c = 77};
static const dr_grid_case large = {.c = 10007};
static const dr_grid_case other = {.c = 77, .variant = true};
static const dr_grid_case blocks = {.c = 65600};
static const dr_grid_case other_blocks = {.c = 65600, .variant = true};
static const dr_grid_case dadapt_adam = {.c = 10007, .h = DR_DADAPT_ADAM};
static const dr_grid_case dadapt_preprint = {.c = 10007, .h = DR_DADAPT_PREPRINT};
static const dr_grid_case matrix = {.n = 1, .h = 7, .w = 1031, .c = 1};
static const dr_grid_case kernels = {.n = 5, .h = 3, .w = 3, .c = 530};
static const dr_grid_case point = {.n = 6, .h = 1, .w = 1, .c = 5, .variant = true};
static const dr_grid_case whole = {.c = 65600, .variant = true};
static const dr_grid_case block_lion = {.c = 1000, .h = DR_BLOCKWISE_LION};
static const dr_grid_case block_momentum = {.c = 1000, .h = DR_BLOCKWISE_MOMENTUM};
static const dr_grid_case block_plain = {.c = 1000, .variant = true};
static const dr_grid_case block_plain_lion = {.c = 77, .h = DR_BLOCKWISE_LION, .variant = true};

#define SIZES(op, body)                                                                            \
    {op, "1", body, &one}, {op, "77", body, &odd},                                                 \
    {                                                                                              \
        op, "10007", body, &large                                                                  \
    }

static const dr_op_scenario scenarios[] = {
    SIZES(DR_OP_sumsq, dr_case_sumsq),
    SIZES(DR_OP_checksum, dr_case_checksum),
    {DR_OP_checksum, "77 of BF16", dr_case_checksum, &other},
    {DR_OP_checksum, "65600 of BF16", dr_case_checksum, &other_blocks},
    SIZES(DR_OP_adamw, dr_case_adamw),
    SIZES(DR_OP_lerp, dr_case_lerp),
    {DR_OP_lerp, "from the other end", dr_case_lerp, &other},
    SIZES(DR_OP_lion, dr_case_lion),
    {DR_OP_lion, "with sums", dr_case_lion, &other},
    {DR_OP_lion, "with sums of several blocks", dr_case_lion, &other_blocks},
    SIZES(DR_OP_momentum, dr_case_momentum),
    {DR_OP_momentum, "nesterov", dr_case_momentum, &other},
    SIZES(DR_OP_dadapt, dr_case_dadapt),
    {DR_OP_dadapt, "prodigy, several blocks", dr_case_dadapt, &blocks},
    {DR_OP_dadapt, "adam", dr_case_dadapt, &dadapt_adam},
    {DR_OP_dadapt, "preprint", dr_case_dadapt, &dadapt_preprint},
    SIZES(DR_OP_adam_apply, dr_case_adam_apply),
    SIZES(DR_OP_schedule_free, dr_case_schedule_free),
    {DR_OP_schedule_free, "plain", dr_case_schedule_free, &other},
    {DR_OP_adafactor_moments, "matrix", dr_case_adafactor_moments, &matrix},
    {DR_OP_adafactor_moments, "convolution", dr_case_adafactor_moments, &kernels},
    {DR_OP_adafactor_moments, "1x1 convolution", dr_case_adafactor_moments, &point},
    {DR_OP_adafactor_moments, "vector", dr_case_adafactor_moments, &odd},
    {DR_OP_adafactor_sums, "matrix", dr_case_adafactor_sums, &matrix},
    {DR_OP_adafactor_sums, "convolution", dr_case_adafactor_sums, &kernels},
    {DR_OP_adafactor_sums, "vector", dr_case_adafactor_sums, &whole},
    {DR_OP_adafactor_apply, "matrix", dr_case_adafactor_apply, &matrix},
    {DR_OP_adafactor_apply, "convolution", dr_case_adafactor_apply, &kernels},
    {DR_OP_adafactor_apply, "1x1 convolution, momentum", dr_case_adafactor_apply, &point},
    {DR_OP_adafactor_apply, "vector, momentum", dr_case_adafactor_apply, &whole},
    SIZES(DR_OP_blockwise, dr_case_blockwise),
    {DR_OP_blockwise, "lion", dr_case_blockwise, &block_lion},
    {DR_OP_blockwise, "momentum", dr_case_blockwise, &block_momentum},
    {DR_OP_blockwise, "plain states", dr_case_blockwise, &block_plain},
    {DR_OP_blockwise, "lion, plain state", dr_case_blockwise, &block_plain_lion},
};
const dr_op_suite dr_optimizer_suite = DR_OP_SUITE(scenarios);
