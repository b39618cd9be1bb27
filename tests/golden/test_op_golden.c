/*
 * The ref backend against PyTorch: data/op_vectors.h, written by tests/golden/op_vectors.py.
 * Every vector must be used by a case, and every output of a case must have a vector.
 */
#include "backend/ref/backend_ref.h"
#include "data/op_vectors.h"
#include "dr_test.h"
#include "op_cases.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VECTORS = sizeof dr_op_vectors / sizeof dr_op_vectors[0] };
static bool used[VECTORS];

/*
 * Accepted error over the largest number of a full array, or over the RMS of a summarised one.
 * Measured with DR_OP_MEASURE=1 (glibc 2.36, 2026-11-22), times 4:
 * f64 2.2e-15 at most; timestep embedding 6.0e-8: f32 inside, torch's exp and sin differ from
 * glibc's in the last place; three f32 AdamW steps 9.4e-8 (m; p is equal): torch's lerp uses FMA.
 */
#define F64_LIMIT       9e-15
#define TIME_LIMIT      2.4e-7
#define ADAMW_F32_LIMIT 3.8e-7

typedef struct golden_case {
    const char *name;   /* "<name>.<tensor>" is the key of inputs and vectors */
    const char *suffix; /* of the vectors' names */
    double limit;
    void (*body)(dr_op_run *r, const void *params);
    const void *params;
} golden_case;

static double max_abs(const double *x, size_t n)
{
    double max = 0.0;
    for (size_t i = 0; i < n; i++) {
        max = fmax(max, fabs(x[i]));
    }
    return max;
}

/* As numbers_of() in op_vectors.py. */
static void summarise(const double *x, size_t n, double out[7])
{
    double sum = 0.0;
    double squares = 0.0;
    for (size_t i = 0; i < n; i++) {
        sum += x[i];
        squares += x[i] * x[i];
    }
    out[0] = sum / (double)n;
    out[1] = sqrt(squares);
    memcpy(out + 2, x, 4 * sizeof *x);
    out[6] = x[n - 1];
}

static double error_of(const double *got, const struct dr_op_vector *want)
{
    double worst = 0.0;
    if (want->n <= DR_OP_VECTOR_FULL) {
        for (size_t i = 0; i < want->n; i++) {
            worst = fmax(worst, fabs(got[i] - want->number[i]));
        }
        const double max = max_abs(want->number, want->n);
        return max > 0.0 ? worst / max : worst;
    }
    double summary[7];
    summarise(got, want->n, summary);
    const double rms = want->number[1] / sqrt((double)want->n);
    for (size_t i = 0; i < 7; i++) {
        const double scale = i == 1 ? want->number[1] : rms;
        worst = fmax(worst, fabs(summary[i] - want->number[i]) / scale);
    }
    return worst;
}

static const struct dr_op_vector *find_vector(const char *name)
{
    for (size_t i = 0; i < VECTORS; i++) {
        if (strcmp(dr_op_vectors[i].name, name) == 0) {
            used[i] = true;
            return &dr_op_vectors[i];
        }
    }
    fail_msg("data/op_vectors.h has no %s: run tests/golden/op_vectors.py", name);
    return NULL;
}

static void check_output(const golden_case *c, const dr_op_array *a)
{
    char name[128];
    (void)snprintf(name, sizeof name, "%s.%s%s", c->name, a->name, c->suffix);
    const struct dr_op_vector *want = find_vector(name);
    assert_int_equal(dr_numel(&a->tensor), want->n);
    double *got = dr_op_values_after(a);
    const double error = error_of(got, want);
    free(got);
    if (getenv("DR_OP_MEASURE") != NULL) {
        print_message("%s: %.2g\n", name, error);
    }
    if (!(error <= c->limit)) {
        fail_msg("%s: error %.3g, allowed %.3g", name, error, c->limit);
    }
}

static void equals_pytorch(void **state)
{
    const golden_case *c = *state;
    const dr_op_scenario scenario = {.name = c->name, .body = c->body, .params = c->params};
    const bool single = c->suffix[0] != '\0';
    const dr_op_setup setup = {.backend = single ? &dr_backend_ref_f32 : &dr_backend_ref_f64,
                               .threads = 2,
                               .golden = c->name};
    dr_op_run r;
    dr_op_run_execute(&r, &setup, &scenario);
    for (size_t i = 0; i < r.n; i++) {
        if (dr_op_is_output(&r.array[i])) {
            check_output(c, &r.array[i]);
        }
    }
    dr_op_run_free(&r);
}

static void every_vector_was_used(void **state)
{
    (void)state;
    for (size_t i = 0; i < VECTORS; i++) {
        if (!used[i]) {
            fail_msg("no case computes %s", dr_op_vectors[i].name);
        }
    }
}

static const dr_linear_case linear_small = {.rows = 5, .in = 7, .out = 3};
static const dr_linear_case linear_large = {.rows = 77, .in = 96, .out = 130};
static const dr_conv_case conv_3x3 = {1, 4, 5, 3, 2, {3, 3, 1, 1, 1, 1, 1}, DR_SET, false, false};
static const dr_conv_case conv_strided = {2,      7,     6,    3, 4, {3, 3, 2, 1, 1, 1, 1},
                                          DR_SET, false, false};
static const dr_conv_case conv_asymmetric = {2,      6,     6,    3, 4, {3, 3, 2, 0, 0, 1, 1},
                                             DR_SET, false, false};
static const dr_conv_case conv_1x1 = {2, 3, 3, 5, 4, {1, 1, 1, 0, 0, 0, 0}, DR_SET, false, false};
static const dr_conv_case conv_uneven = {1,      5,     4,    2, 3, {3, 2, 1, 2, 0, 0, 1},
                                         DR_SET, false, false};
static const dr_conv_case conv_wide = {2,      8,     8,    40, 70, {3, 3, 1, 1, 1, 1, 1},
                                       DR_SET, false, false};
static const dr_groupnorm_case group_plain = {2, 3, 2, 4, 2, 1e-6F, false, DR_SET, false, false};
static const dr_groupnorm_case group_silu = {2, 3, 5, 64, 32, 1e-5F, true, DR_SET, false, false};
static const dr_layernorm_case layer = {9, 33, 1e-5F, DR_SET, false, false};
static const dr_attention_case self = {2, 5, 5, 4, 2, false, false};
static const dr_attention_case cross = {2, 17, 77, 40, 3, false, false};
static const dr_attention_case causal = {2, 33, 33, 16, 2, true, false};
static const dr_activation_case silu = {DR_ACT_SILU, 40, DR_SET, false};
static const dr_activation_case gelu = {DR_ACT_GELU, 40, DR_SET, false};
static const dr_activation_case quick_gelu = {DR_ACT_QUICK_GELU, 40, DR_SET, false};
static const dr_activation_case relu = {DR_ACT_RELU, 40, DR_SET, false};
static const dr_activation_case tanh3 = {DR_ACT_TANH3, 40, DR_SET, false};
static const dr_grid_case geglu = {.h = 4, .c = 5};
static const dr_grid_case add = {.c = 33};
static const dr_grid_case scale = {.c = 33, .variant = true};
static const dr_grid_case rows = {.n = 2, .h = 5, .c = 3};
static const dr_grid_case concat = {.n = 2, .h = 2, .w = 2, .c = 3, .c2 = 2};
static const dr_grid_case upsample = {.n = 2, .h = 2, .w = 3, .c = 2};
static const dr_grid_case embedding = {.n = 2, .h = 3, .w = 7, .c = 5};
static const dr_grid_case time_6 = {.n = 4, .c = 6};
static const dr_grid_case time_320 = {.n = 4, .c = 320};
static const dr_grid_case latents = {.n = 3, .h = 2, .w = 2, .c = 4};
static const dr_grid_case masked = {.n = 3, .h = 2, .w = 2, .c = 4, .c2 = 1};
static const dr_grid_case posterior = {.n = 2, .h = 2, .w = 2, .c = 4};
static const dr_grid_case posterior_mean = {.n = 2, .h = 2, .w = 2, .c = 4, .variant = true};
static const dr_grid_case thousand = {.c = 1000};
static const dr_grid_case forty = {.c = 40};

static const golden_case cases[] = {
    {"linear.small", "", F64_LIMIT, dr_case_linear, &linear_small},
    {"linear.small", "", F64_LIMIT, dr_case_linear_dx, &linear_small},
    {"linear.small", "", F64_LIMIT, dr_case_linear_dw, &linear_small},
    {"linear.large", "", F64_LIMIT, dr_case_linear, &linear_large},
    {"linear.large", "", F64_LIMIT, dr_case_linear_dx, &linear_large},
    {"linear.large", "", F64_LIMIT, dr_case_linear_dw, &linear_large},
    {"conv2d.3x3", "", F64_LIMIT, dr_case_conv2d, &conv_3x3},
    {"conv2d.3x3", "", F64_LIMIT, dr_case_conv2d_dx, &conv_3x3},
    {"conv2d.3x3", "", F64_LIMIT, dr_case_conv2d_dw, &conv_3x3},
    {"conv2d.strided", "", F64_LIMIT, dr_case_conv2d, &conv_strided},
    {"conv2d.strided", "", F64_LIMIT, dr_case_conv2d_dx, &conv_strided},
    {"conv2d.strided", "", F64_LIMIT, dr_case_conv2d_dw, &conv_strided},
    {"conv2d.asymmetric", "", F64_LIMIT, dr_case_conv2d, &conv_asymmetric},
    {"conv2d.asymmetric", "", F64_LIMIT, dr_case_conv2d_dx, &conv_asymmetric},
    {"conv2d.asymmetric", "", F64_LIMIT, dr_case_conv2d_dw, &conv_asymmetric},
    {"conv2d.1x1", "", F64_LIMIT, dr_case_conv2d, &conv_1x1},
    {"conv2d.1x1", "", F64_LIMIT, dr_case_conv2d_dx, &conv_1x1},
    {"conv2d.1x1", "", F64_LIMIT, dr_case_conv2d_dw, &conv_1x1},
    {"conv2d.uneven", "", F64_LIMIT, dr_case_conv2d, &conv_uneven},
    {"conv2d.uneven", "", F64_LIMIT, dr_case_conv2d_dx, &conv_uneven},
    {"conv2d.uneven", "", F64_LIMIT, dr_case_conv2d_dw, &conv_uneven},
    {"conv2d.wide", "", F64_LIMIT, dr_case_conv2d, &conv_wide},
    {"conv2d.wide", "", F64_LIMIT, dr_case_conv2d_dx, &conv_wide},
    {"conv2d.wide", "", F64_LIMIT, dr_case_conv2d_dw, &conv_wide},
    {"groupnorm.plain", "", F64_LIMIT, dr_case_groupnorm, &group_plain},
    {"groupnorm.plain", "", F64_LIMIT, dr_case_groupnorm_backward, &group_plain},
    {"groupnorm.silu", "", F64_LIMIT, dr_case_groupnorm, &group_silu},
    {"groupnorm.silu", "", F64_LIMIT, dr_case_groupnorm_backward, &group_silu},
    {"layernorm", "", F64_LIMIT, dr_case_layernorm, &layer},
    {"layernorm", "", F64_LIMIT, dr_case_layernorm_backward, &layer},
    {"attention.self", "", F64_LIMIT, dr_case_attention, &self},
    {"attention.self", "", F64_LIMIT, dr_case_attention_backward, &self},
    {"attention.cross", "", F64_LIMIT, dr_case_attention, &cross},
    {"attention.cross", "", F64_LIMIT, dr_case_attention_backward, &cross},
    {"attention.causal", "", F64_LIMIT, dr_case_attention, &causal},
    {"attention.causal", "", F64_LIMIT, dr_case_attention_backward, &causal},
    {"activation.silu", "", F64_LIMIT, dr_case_activation, &silu},
    {"activation.silu", "", F64_LIMIT, dr_case_activation_backward, &silu},
    {"activation.gelu", "", F64_LIMIT, dr_case_activation, &gelu},
    {"activation.gelu", "", F64_LIMIT, dr_case_activation_backward, &gelu},
    {"activation.quick_gelu", "", F64_LIMIT, dr_case_activation, &quick_gelu},
    {"activation.quick_gelu", "", F64_LIMIT, dr_case_activation_backward, &quick_gelu},
    {"activation.relu", "", F64_LIMIT, dr_case_activation, &relu},
    {"activation.relu", "", F64_LIMIT, dr_case_activation_backward, &relu},
    {"activation.tanh3", "", F64_LIMIT, dr_case_activation, &tanh3},
    {"activation.tanh3", "", F64_LIMIT, dr_case_activation_backward, &tanh3},
    {"geglu", "", F64_LIMIT, dr_case_geglu, &geglu},
    {"geglu", "", F64_LIMIT, dr_case_geglu_backward, &geglu},
    {"add", "", F64_LIMIT, dr_case_add, &add},
    {"add", "", F64_LIMIT, dr_case_add, &scale},
    {"rows", "", F64_LIMIT, dr_case_add_rows, &rows},
    {"rows", "", F64_LIMIT, dr_case_sum_rows, &rows},
    {"concat", "", F64_LIMIT, dr_case_concat, &concat},
    {"concat", "", F64_LIMIT, dr_case_split, &concat},
    {"upsample2x", "", F64_LIMIT, dr_case_upsample2x, &upsample},
    {"upsample2x", "", F64_LIMIT, dr_case_upsample2x_backward, &upsample},
    {"embedding", "", F64_LIMIT, dr_case_embedding, &embedding},
    {"embedding", "", F64_LIMIT, dr_case_embedding_backward, &embedding},
    {"timestep_embedding.6", "", TIME_LIMIT, dr_case_timestep_embedding, &time_6},
    {"timestep_embedding.320", "", TIME_LIMIT, dr_case_timestep_embedding, &time_320},
    {"mix", "", F64_LIMIT, dr_case_mix, &latents},
    {"mse", "", F64_LIMIT, dr_case_mse, &latents},
    {"mse.masked", "", F64_LIMIT, dr_case_mse, &masked},
    {"posterior_sample", "", F64_LIMIT, dr_case_posterior_sample, &posterior},
    {"posterior_sample", "", F64_LIMIT, dr_case_posterior_sample, &posterior_mean},
    {"sumsq", "", F64_LIMIT, dr_case_sumsq, &thousand},
    {"adamw", "", F64_LIMIT, dr_case_adamw, &forty},
    {"adamw", ".F32", ADAMW_F32_LIMIT, dr_case_adamw, &forty},
};
enum { CASES = sizeof cases / sizeof cases[0] };

int main(void)
{
    struct CMUnitTest tests[CASES + 1];
    for (size_t i = 0; i < CASES; i++) {
        tests[i] = (struct CMUnitTest){.name = cases[i].name,
                                       .test_func = equals_pytorch,
                                       .initial_state = (void *)(uintptr_t)&cases[i]};
    }
    tests[CASES] = (struct CMUnitTest)cmocka_unit_test(every_vector_was_used);
    return dr_test_run("op_golden", tests, CASES + 1);
}
