/*
 * Every scenario of every op, on every backend: the same numbers as ref64 within the table of
 * tolerances, the same bits for 1, 2 and 3 threads, nothing touched but the outputs.
 *
 * DR_OP_QUICK=1: one seed and one run of each scenario, for tools that make kernels slow.
 * DR_OP_MEASURE=1 prints, instead of testing, the largest errors over 10 seeds times 4: the lines
 * of tolerances.h.
 */
#include "backends.h"
#include "backend/ref/backend_ref.h"
#include "base/arena.h"
#include "dr_test.h"
#include "op_cases.h"
#include "ops/embedding.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TEST_SEEDS = 3, MEASURE_SEEDS = 10 };

static const dr_op_suite *const suites[] = {
    &dr_linear_suite,    &dr_conv_suite,      &dr_norm_suite,
    &dr_attention_suite, &dr_pointwise_suite, &dr_layout_suite,
    &dr_embedding_suite, &dr_diffusion_suite, &dr_optimizer_suite,
};
enum { SUITES = sizeof suites / sizeof suites[0] };
#define F16_LIMIT 65520.0 /* rounds to infinity */

typedef struct subject {
    const dr_op_subject *what;
    const dr_op_scenario *scenario;
} subject;

static bool has_op(const dr_backend *b, dr_op_id op)
{
    const bool has[DR_OP_COUNT] = {
#define X(name, group) b->name != NULL,
#include "ops/op_list.def"
#undef X
    };
    return has[op];
}

static dr_op_setup setup_of(const dr_op_subject *what, int threads, uint64_t seed)
{
    return (dr_op_setup){.backend = what->backend,
                         .threads = threads,
                         .seed = seed,
                         .dtype = what->dtype,
                         .rounded_to = what->dtype,
                         .narrow = what->narrow,
                         .rounded = what->narrow,
                         .wide_gradients = what->wide_gradients};
}

static bool has_parameter_gradients(dr_op_id op)
{
    return op == DR_OP_linear_dw || op == DR_OP_conv2d_dw || op == DR_OP_groupnorm_backward ||
           op == DR_OP_layernorm_backward || op == DR_OP_embedding_backward;
}

/* A subject whose gradients of parameters are narrow has a twin with wide ones: all other ops are
 * the twin's. */
static bool is_tested(const dr_op_subject *what, dr_op_id op)
{
    if (what->narrow && !what->wide_gradients && !has_parameter_gradients(op)) {
        return false;
    }
    return has_op(what->backend, op) &&
           !(what->no_optimizer && op != DR_OP_sumsq && strcmp(dr_op_group(op), "optimizer") == 0);
}

/* Errors of one output; NaN counts as infinite. */
static dr_op_tolerance errors(const dr_op_array *got, const dr_op_array *want)
{
    const size_t n = (size_t)dr_numel(&want->tensor);
    double *g = dr_op_values_after(got);
    double *w = dr_op_values_after(want);
    double diff = 0.0;
    double norm = 0.0;
    double max_diff = 0.0;
    double max_want = 0.0;
    for (size_t i = 0; i < n; i++) {
        const bool overflow = got->tensor.dtype == DR_F16 && fabs(w[i]) >= F16_LIMIT;
        if (overflow && isinf(g[i]) && (g[i] > 0.0) == (w[i] > 0.0)) {
            continue; /* no F16 number: infinity is right */
        }
        const double d = fabs(g[i] - w[i]);
        diff += d * d;
        norm += w[i] * w[i];
        max_diff = d > max_diff || isnan(d) ? d : max_diff;
        max_want = fmax(max_want, fabs(w[i]));
    }
    free(g);
    free(w);
    dr_op_tolerance e = {sqrt(diff), max_diff};
    if (norm > 0.0) {
        e = (dr_op_tolerance){sqrt(diff / norm), max_diff / max_want};
    }
    return isfinite(e.l2) ? e : (dr_op_tolerance){INFINITY, INFINITY};
}

/* The largest errors over the outputs of a scenario, with the name of the output. */
static dr_op_tolerance compare(const subject *s, uint64_t seed, const char **where)
{
    dr_op_run got;
    dr_op_run want;
    const dr_op_setup setup = setup_of(s->what, 2, seed);
    const dr_op_setup oracle = {.backend = &dr_backend_ref_f64,
                                .threads = 2,
                                .seed = seed,
                                .rounded_to = s->what->dtype,
                                .rounded = s->what->narrow,
                                .wide_gradients = s->what->wide_gradients};
    dr_op_run_execute(&got, &setup, s->scenario);
    dr_op_run_execute(&want, &oracle, s->scenario);
    dr_op_tolerance worst = {0.0, 0.0};
    for (size_t i = 0; i < want.n; i++) {
        if (!dr_op_is_output(&want.array[i])) {
            continue;
        }
        const dr_op_tolerance e = errors(&got.array[i], &want.array[i]);
        if (e.l2 >= worst.l2) {
            *where = want.array[i].name;
        }
        worst.l2 = fmax(worst.l2, e.l2);
        worst.max = fmax(worst.max, e.max);
    }
    dr_op_run_free(&got);
    dr_op_run_free(&want);
    return worst;
}

static bool is_quick(void)
{
    return getenv("DR_OP_QUICK") != NULL;
}

static void agrees_with_the_reference(void **state)
{
    const subject *s = *state;
    const dr_op_tolerance limit = dr_op_tolerance_of(s->what, s->scenario->op);
    const uint64_t seeds = s->what->narrow || is_quick() ? 1 : TEST_SEEDS;
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        const char *where = "";
        const dr_op_tolerance e = compare(s, seed, &where);
        if (e.l2 > limit.l2 || e.max > limit.max) {
            fail_msg("seed %d, %s: L2 error %.3g (allowed %.3g), largest %.3g (allowed %.3g)",
                     (int)seed, where, e.l2, limit.l2, e.max, limit.max);
        }
    }
}

static void threads_do_not_matter(void **state)
{
    const subject *s = *state;
    dr_op_run one;
    dr_op_setup setup = setup_of(s->what, 1, 1);
    dr_op_run_execute(&one, &setup, s->scenario);
    const int most = s->what->narrow ? 2 : 3;
    for (setup.threads = 2; setup.threads <= most; setup.threads++) {
        dr_op_run many;
        dr_op_run_execute(&many, &setup, s->scenario);
        for (size_t i = 0; i < one.n; i++) {
            assert_memory_equal(one.array[i].after, many.array[i].after,
                                dr_nbytes(&one.array[i].block));
        }
        dr_op_run_free(&many);
    }
    dr_op_run_free(&one);
}

/* after = before + (after, from zero), up to roundings of f64: 3.6e-15 where rows add one by one.
 */
static void check_sum(const dr_op_array *from_random, const dr_op_array *from_zero)
{
    double *before = dr_op_values_before(from_random);
    double *after = dr_op_values_after(from_random);
    double *added = dr_op_values_after(from_zero);
    for (int64_t i = 0; i < dr_numel(&from_random->tensor); i++) {
        assert_at_most(fabs(before[i] + added[i] - after[i]), 1e-13 * (1.0 + fabs(after[i])));
    }
    free(before);
    free(after);
    free(added);
}

static void check_sums(const dr_op_scenario *s)
{
    dr_op_setup setup = {.backend = &dr_backend_ref_f64, .threads = 2, .seed = 1};
    dr_op_run from_random;
    dr_op_run from_zero;
    dr_op_run_execute(&from_random, &setup, s);
    setup.zero_gradients = true;
    dr_op_run_execute(&from_zero, &setup, s);
    for (size_t i = 0; i < from_random.n; i++) {
        if (from_random.array[i].role == DR_OP_ACCUMULATED) {
            check_sum(&from_random.array[i], &from_zero.array[i]);
        }
    }
    dr_op_run_free(&from_random);
    dr_op_run_free(&from_zero);
}

static void accumulated_outputs_are_added_to(void **state)
{
    (void)state;
    for (size_t g = 0; g < SUITES; g++) {
        for (size_t i = 0; i < suites[g]->n; i++) {
            check_sums(&suites[g]->scenario[i]);
        }
    }
}

/* Ids 0, 0, 2, 6: the table needs 7 rows. */
static void look_up(dr_op_run *r, const void *params)
{
    const int64_t *rows = params;
    const dr_embedding_args a = {
        .ids = dr_op_ids(r, "ids", 8, 2, DR_DIMS(1, 4)),
        .tokens = dr_op_tensor(r, DR_OP_INPUT, "tokens", 1.0, 2, DR_DIMS(*rows, 3)),
        .positions = dr_op_tensor(r, DR_OP_INPUT, "positions", 1.0, 2, DR_DIMS(4, 3)),
        .y = dr_op_tensor(r, DR_OP_SET, "y", 1.0, 3, DR_DIMS(1, 4, 3))};
    assert_ok(dr_embedding(&r->cx, &a));
}

static void ref_refuses_ids_out_of_range(void **state)
{
    (void)state;
    static const int64_t six = 6;
    static const int64_t seven = 7;
    const dr_op_scenario fits = {DR_OP_embedding, "7 rows", look_up, &seven};
    const dr_op_scenario exceeds = {DR_OP_embedding, "6 rows", look_up, &six};
    const dr_op_setup setup = {.backend = &dr_backend_ref_f32, .threads = 2, .seed = 1};
    static dr_op_run r; /* survives the jump out of the panic */
    dr_op_run_execute(&r, &setup, &fits);
    dr_op_run_free(&r);
    assert_panics(dr_op_run_execute(&r, &setup, &exceeds));
    dr_op_run_free(&r);
    dr_pool_destroy(r.cx.pool);
}

/* An op that a backend lacks is refused with its name, while the step is planned. */
static void missing_ops_are_refused(void **state)
{
    (void)state;
    size_t n;
    const dr_op_subject *subjects = dr_op_subjects(&n);
    for (size_t b = 0; b < n; b++) {
        dr_context cx;
        dr_pool *dry = dr_pool_create_dry();
        dr_context_init(&cx, subjects[b].backend, dry, 1);
        for (int op = 0; op < DR_OP_COUNT; op++) {
            dr_dispatch d;
            if (!has_op(subjects[b].backend, (dr_op_id)op)) {
                print_message("%s lacks %s\n", subjects[b].name, dr_op_name((dr_op_id)op));
                assert_int_equal(dr_dispatch_begin(&cx, (dr_op_id)op, false, NULL, &d),
                                 DR_UNSUPPORTED);
                assert_non_null(strstr(dr_error_message(), dr_op_name((dr_op_id)op)));
            }
        }
        dr_pool_destroy(dry);
    }
}

static void every_op_has_a_scenario(void **state)
{
    (void)state;
    size_t count[DR_OP_COUNT] = {0};
    for (size_t g = 0; g < SUITES; g++) {
        for (size_t i = 0; i < suites[g]->n; i++) {
            count[suites[g]->scenario[i].op]++;
        }
    }
    for (int op = 0; op < DR_OP_COUNT; op++) {
        if (count[op] == 0) {
            fail_msg("no scenario for op %s in tests/ops/cases_*.c", dr_op_name((dr_op_id)op));
        }
    }
}

static void measure_op(const dr_op_subject *what, dr_op_id op)
{
    dr_op_tolerance worst = {0.0, 0.0};
    for (size_t g = 0; g < SUITES; g++) {
        for (size_t i = 0; i < suites[g]->n; i++) {
            const subject s = {what, &suites[g]->scenario[i]};
            for (uint64_t seed = 1;
                 seed <= MEASURE_SEEDS && s.scenario->op == op && is_tested(what, op); seed++) {
                const char *where;
                const dr_op_tolerance e = compare(&s, seed, &where);
                worst.l2 = fmax(worst.l2, e.l2);
                worst.max = fmax(worst.max, e.max);
            }
        }
    }
    print_message("    X(%s, %.1e, %.1e)\n", dr_op_name(op), 4.0 * worst.l2, 4.0 * worst.max);
}

static int measure(void)
{
    size_t n;
    const dr_op_subject *subjects = dr_op_subjects(&n);
    for (size_t b = 0; b < n; b++) {
        print_message("%s:\n", subjects[b].name);
        for (int op = 0; op < DR_OP_COUNT; op++) {
            measure_op(&subjects[b], (dr_op_id)op);
        }
    }
    dr_op_subjects_close();
    return 0;
}

/* Names live as long as the program's arena. */
static struct CMUnitTest make_test(dr_arena *names, const char *what, CMUnitTestFunction function,
                                   subject *s)
{
    return (struct CMUnitTest){.name = dr_arena_printf(names, "%s %s (%s) %s", s->what->name,
                                                       dr_op_name(s->scenario->op),
                                                       s->scenario->name, what),
                               .test_func = function,
                               .initial_state = s};
}

int main(void)
{
    if (getenv("DR_OP_MEASURE") != NULL) {
        return measure();
    }
    dr_arena arena;
    dr_arena_init(&arena);
    struct CMUnitTest *tests = NULL;
    size_t n = 0;
    size_t n_subjects;
    const dr_op_subject *subjects = dr_op_subjects(&n_subjects);
    for (size_t b = 0; b < n_subjects; b++) {
        for (size_t g = 0; g < SUITES; g++) {
            for (size_t i = 0; i < suites[g]->n; i++) {
                if (!is_tested(&subjects[b], suites[g]->scenario[i].op)) {
                    continue; /* missing_ops_are_refused says so */
                }
                subject *s = dr_arena_alloc(&arena, sizeof *s);
                *s = (subject){&subjects[b], &suites[g]->scenario[i]};
                tests = dr_xrealloc(tests, n + 2, sizeof *tests);
                tests[n++] = make_test(&arena, "agrees", agrees_with_the_reference, s);
                if (!is_quick()) {
                    tests[n++] = make_test(&arena, "is deterministic", threads_do_not_matter, s);
                }
            }
        }
    }
    tests = dr_xrealloc(tests, n + 4, sizeof *tests);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(missing_ops_are_refused);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(accumulated_outputs_are_added_to);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(ref_refuses_ids_out_of_range);
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(every_op_has_a_scenario);
    const int rc = dr_test_run("op_backends", tests, n);
    free(tests);
    dr_op_subjects_close();
    dr_arena_deinit(&arena);
    return rc;
}
