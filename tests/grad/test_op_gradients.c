/*
 * Backward ops against central differences of their forward ops, in f64 with ref64.
 *
 * A pair shares its parameters: the forward maps inputs to outputs, the backward bodies name their
 * results "d<input>" and take "d<output>". With L = sum of d<output> times output, element i of
 * d<input> must be (L(input_i + h) - L(input_i - h)) / 2h.
 */
#include "backend/ref/backend_ref.h"
#include "base/arena.h"
#include "dr_test.h"
#include "op_cases.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

typedef void (*body)(dr_op_run *r, const void *params);
typedef struct pair {
    const char *name;
    body forward;
    body backward[2]; /* the second may be NULL */
    const void *params;
} pair;

/* h balances h^2/6 times the third derivative against 1e-16/h. */
static const double step = 1e-5;
enum { MAX_CHECKED = 40 }; /* elements per gradient, spread over it */
/* Measured with DR_OP_MEASURE=1: 6.8e-10 at most (attention dk), times 4. */
static const double limit = 2.7e-9;

static void run(dr_op_run *r, const pair *p, body b, const dr_op_setup *change)
{
    dr_op_setup setup = *change;
    setup.backend = &dr_backend_ref_f64;
    setup.threads = 1;
    setup.seed = 7;
    setup.zero_gradients = true;
    const dr_op_scenario s = {.name = p->name, .body = b, .params = p->params};
    dr_op_run_execute(r, &setup, &s);
}

static const dr_op_array *find(const dr_op_run *r, const char *prefix, const char *name)
{
    char full[64];
    (void)snprintf(full, sizeof full, "%s%s", prefix, name);
    return dr_op_find(r, full);
}

/* Sum of d<output> times output, over the outputs whose gradient the backward run was given. */
static double loss(const dr_op_run *forward, const dr_op_run *backward)
{
    double sum = 0.0;
    for (size_t i = 0; i < forward->n; i++) {
        const dr_op_array *out = &forward->array[i];
        const dr_op_array *gradient = find(backward, "d", out->name);
        if (!dr_op_is_output(out) || gradient == NULL || gradient->role != DR_OP_INPUT) {
            continue;
        }
        double *y = dr_op_values_after(out);
        double *dy = dr_op_values_before(gradient);
        for (int64_t j = 0; j < dr_numel(&out->tensor); j++) {
            sum += y[j] * dy[j];
        }
        free(y);
        free(dy);
    }
    return sum;
}

static double difference(const pair *p, const dr_op_run *backward, const char *input, int64_t at)
{
    double value[2];
    for (int side = 0; side < 2; side++) {
        dr_op_run r;
        run(&r, p, p->forward,
            &(dr_op_setup){.nudged = input, .nudged_index = at, .nudge = side == 0 ? step : -step});
        value[side] = loss(&r, backward);
        dr_op_run_free(&r);
    }
    return (value[0] - value[1]) / (2.0 * step);
}

/* Relative L2 error of the checked elements of one gradient. */
static double gradient_error(const pair *p, const dr_op_run *backward, const dr_op_array *gradient)
{
    const char *input = gradient->name + 1;
    const int64_t n = dr_numel(&gradient->tensor);
    const int64_t stride = n <= MAX_CHECKED ? 1 : n / MAX_CHECKED;
    double *got = dr_op_values_after(gradient);
    double diff = 0.0;
    double norm = 0.0;
    for (int64_t i = 0; i < n; i += stride) {
        const double want = difference(p, backward, input, i);
        diff += (got[i] - want) * (got[i] - want);
        norm += want * want;
    }
    free(got);
    return sqrt(diff / norm);
}

static void equals_finite_differences(void **state)
{
    const pair *p = *state;
    size_t checked = 0;
    for (int b = 0; b < 2 && p->backward[b] != NULL; b++) {
        dr_op_run backward;
        run(&backward, p, p->backward[b], &(dr_op_setup){0});
        for (size_t i = 0; i < backward.n; i++) {
            const dr_op_array *a = &backward.array[i];
            if (!dr_op_is_output(a) || a->name[0] != 'd') {
                continue;
            }
            const double error = gradient_error(p, &backward, a);
            checked++;
            if (getenv("DR_OP_MEASURE") != NULL) {
                print_message("%s %s: %.2g\n", p->name, a->name, error);
            }
            if (!(error <= limit)) {
                fail_msg("%s %s: relative error %.3g, allowed %.3g", p->name, a->name, error,
                         limit);
            }
        }
        dr_op_run_free(&backward);
    }
    assert_true(checked > 0);
}
static const dr_linear_case linear = {.rows = 7, .in = 13, .out = 5};
static const dr_conv_case conv_3x3 = {1, 5, 4, 3, 4, {3, 3, 1, 1, 1, 1, 1}, DR_SET, false, false};
static const dr_conv_case conv_strided = {2,      7,     6,    3, 2, {3, 3, 2, 1, 1, 1, 1},
                                          DR_SET, false, false};
static const dr_conv_case conv_asymmetric = {2,      6,     7,    3, 2, {3, 3, 2, 0, 0, 1, 1},
                                             DR_SET, false, false};
static const dr_conv_case conv_uneven = {1,      5,     4,    2, 3, {3, 2, 1, 2, 0, 0, 1},
                                         DR_SET, false, false};
static const dr_conv_case conv_1x1 = {2, 3, 3, 5, 4, {1, 1, 1, 0, 0, 0, 0}, DR_SET, false, false};
static const dr_groupnorm_case group = {2, 3, 3, 12, 3, 1e-6F, false, DR_SET, false, false};
static const dr_groupnorm_case group_silu = {2, 5, 3, 8, 4, 1e-5F, true, DR_SET, false, false};
static const dr_layernorm_case layer = {5, 17, 1e-5F, DR_SET, false, false};
static const dr_attention_case self = {2, 7, 7, 5, 2, false, false};
static const dr_attention_case cross = {1, 5, 11, 8, 3, false, false};
static const dr_attention_case causal = {2, 9, 9, 4, 2, true, false};
static const dr_activation_case silu = {DR_ACT_SILU, 40, DR_SET, false};
static const dr_activation_case gelu = {DR_ACT_GELU, 40, DR_SET, false};
static const dr_activation_case quick_gelu = {DR_ACT_QUICK_GELU, 40, DR_SET, false};
static const dr_activation_case relu = {DR_ACT_RELU, 40, DR_SET, false};
static const dr_activation_case tanh3 = {DR_ACT_TANH3, 40, DR_SET, false};
static const dr_grid_case geglu = {.h = 4, .c = 9};
static const dr_grid_case rows = {.n = 3, .h = 5, .c = 7};
static const dr_grid_case grid = {.n = 2, .h = 2, .w = 3, .c = 3, .c2 = 4};
static const dr_grid_case words = {.n = 2, .h = 5, .w = 6, .c = 3};

static const pair pairs[] = {
    {"linear", dr_case_linear, {dr_case_linear_dx, dr_case_linear_dw}, &linear},
    {"conv 3x3", dr_case_conv2d, {dr_case_conv2d_dx, dr_case_conv2d_dw}, &conv_3x3},
    {"conv stride 2", dr_case_conv2d, {dr_case_conv2d_dx, dr_case_conv2d_dw}, &conv_strided},
    {"conv padded right and bottom",
     dr_case_conv2d,
     {dr_case_conv2d_dx, dr_case_conv2d_dw},
     &conv_asymmetric},
    {"conv uneven", dr_case_conv2d, {dr_case_conv2d_dx, dr_case_conv2d_dw}, &conv_uneven},
    {"conv 1x1", dr_case_conv2d, {dr_case_conv2d_dx, dr_case_conv2d_dw}, &conv_1x1},
    {"groupnorm", dr_case_groupnorm, {dr_case_groupnorm_backward}, &group},
    {"groupnorm + SiLU", dr_case_groupnorm, {dr_case_groupnorm_backward}, &group_silu},
    {"layernorm", dr_case_layernorm, {dr_case_layernorm_backward}, &layer},
    {"attention self", dr_case_attention, {dr_case_attention_backward}, &self},
    {"attention cross", dr_case_attention, {dr_case_attention_backward}, &cross},
    {"attention causal", dr_case_attention, {dr_case_attention_backward}, &causal},
    {"silu", dr_case_activation, {dr_case_activation_backward}, &silu},
    {"gelu", dr_case_activation, {dr_case_activation_backward}, &gelu},
    {"quick_gelu", dr_case_activation, {dr_case_activation_backward}, &quick_gelu},
    {"relu", dr_case_activation, {dr_case_activation_backward}, &relu},
    {"tanh3", dr_case_activation, {dr_case_activation_backward}, &tanh3},
    {"geglu", dr_case_geglu, {dr_case_geglu_backward}, &geglu},
    {"add_rows, sum_rows", dr_case_add_rows, {dr_case_sum_rows}, &rows},
    {"concat, split", dr_case_concat, {dr_case_split}, &grid},
    {"upsample2x", dr_case_upsample2x, {dr_case_upsample2x_backward}, &grid},
    {"embedding", dr_case_embedding, {dr_case_embedding_backward}, &words},
    {"mse, masked", dr_case_mse, {dr_case_mse}, &grid},
    {"mse", dr_case_mse, {dr_case_mse}, &words},
};
enum { PAIRS = sizeof pairs / sizeof pairs[0] };

int main(void)
{
    struct CMUnitTest tests[PAIRS];
    for (size_t i = 0; i < PAIRS; i++) {
        tests[i] = (struct CMUnitTest){.name = pairs[i].name,
                                       .test_func = equals_finite_differences,
                                       .initial_state = (void *)(uintptr_t)&pairs[i]};
    }
    return dr_test_run("op_gradients", tests, PAIRS);
}
