/*
 * Learning-rate factors: the table of spec sdscripts.md 7.2 (measured there with sd-scripts), and
 * vectors of diffusers (tests/golden/lr_vectors.py).
 */
#include "dr_test.h"
#include "lr_vectors.h"
#include "train/optim/lr_schedule.h"

#include <math.h>
#include <string.h>

static dr_lr_kind kind_of(const char *name)
{
    dr_lr_kind kind = DR_LR_COUNT;
    assert_true(dr_lr_kind_from_name(name, &kind));
    return kind;
}

/* T = 100 updates, warm-up 10, one process. */
static void table_of_the_specification(void **state)
{
    (void)state;
    static const struct {
        int64_t k;
        double linear, cosine, restarts3, poly2;
    } rows[] = {
        {0, 0, 0, 0, 0},
        {1, .1, .1, .1, .1},
        {5, .5, .5, .5, .5},
        {10, 1, 1, 1, 1},
        {11, .988889, .999695, .997261, .977923},
        {55, .5, .5, .5, .25075},
        {99, .011111, .000305, .002739, .001123},
    };
    const dr_lr_schedule base = {
        .total_steps = 100, .warmup_steps = 10, .cycles = 3, .power = 2.0, .base_lr = 1e-4};
    static const dr_lr_kind kinds[] = {DR_LR_LINEAR, DR_LR_COSINE, DR_LR_COSINE_WITH_RESTARTS,
                                       DR_LR_POLYNOMIAL};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const double want[] = {rows[i].linear, rows[i].cosine, rows[i].restarts3, rows[i].poly2};
        for (size_t k = 0; k < 4; k++) {
            dr_lr_schedule s = base;
            s.kind = kinds[k];
            assert_ok(dr_lr_schedule_check(&s));
            /* the table has six decimals */
            assert_at_most(fabs(dr_lr_factor(&s, rows[i].k) - want[k]), 0.5000001e-6);
        }
    }
}

/* The same formulas in Python doubles; cos() and pow() may differ in the last places. */
static void vectors_of_diffusers(void **state)
{
    (void)state;
    int seen[DR_LR_COUNT] = {0};
    for (size_t i = 0; i < sizeof lr_vectors / sizeof *lr_vectors; i++) {
        const lr_vector *v = &lr_vectors[i];
        const dr_lr_schedule s = {.kind = kind_of(v->name),
                                  .total_steps = v->total,
                                  .warmup_steps = v->warmup,
                                  .cycles = v->cycles,
                                  .power = v->power,
                                  .base_lr = v->base_lr,
                                  .decay_steps = v->decay,
                                  .timescale = v->timescale,
                                  .min_ratio = v->least,
                                  .rules = v->rules};
        assert_ok(dr_lr_schedule_check(&s));
        seen[s.kind]++;
        for (int step = 0; step < LR_STEPS; step++) {
            const double error = fabs(dr_lr_factor(&s, step) - v->factor[step]);
            if (!(error <= 1e-15)) {
                print_error("%s, %d of %d steps, warm-up %d, step %d: %.17g, expected %.17g\n",
                            v->name, LR_STEPS, v->total, v->warmup, step, dr_lr_factor(&s, step),
                            v->factor[step]);
            }
            assert_at_most(error, 1e-15);
        }
    }
    for (int k = 0; k < DR_LR_COUNT; k++) {
        assert_true(seen[k] > 0 || k == DR_LR_ADAFACTOR);
    }
}

static void names(void **state)
{
    (void)state;
    dr_lr_kind kind = DR_LR_COUNT;
    assert_int_equal(kind_of("linear"), DR_LR_LINEAR);
    assert_int_equal(kind_of("constant"), DR_LR_CONSTANT);
    assert_int_equal(kind_of("constant_with_warmup"), DR_LR_CONSTANT_WITH_WARMUP);
    assert_int_equal(kind_of("cosine_with_restarts"), DR_LR_COSINE_WITH_RESTARTS);
    assert_false(dr_lr_kind_from_name("cosin", &kind));
    assert_false(dr_lr_kind_from_name("", &kind));
    assert_false(dr_lr_kind_from_name("Linear", &kind));
    assert_int_equal(kind, DR_LR_COUNT);
}

static void what_the_peer_refuses(void **state)
{
    (void)state;
    dr_lr_schedule s = {.kind = DR_LR_CONSTANT, .total_steps = 10, .warmup_steps = 1};
    assert_error(dr_lr_schedule_check(&s), DR_INVALID, "constant_with_warmup");
    s.warmup_steps = 0;
    assert_ok(dr_lr_schedule_check(&s));
    s = (dr_lr_schedule){
        .kind = DR_LR_POLYNOMIAL, .total_steps = 10, .cycles = 1, .power = 1.0, .base_lr = 1e-7};
    assert_error(dr_lr_schedule_check(&s), DR_INVALID, "found 1e-07");
    static const char *const bad[] = {NULL,    "",       "1:10",     "1:10,", "1:10,0.1:5,0.01",
                                      "a:1,2", "1:-2,1", "1:10;0.1", "nan",   "0.5,1:10"};
    dr_lr_schedule piecewise = {.kind = DR_LR_PIECEWISE_CONSTANT, .total_steps = 10};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        piecewise.rules = bad[i];
        assert_error(dr_lr_schedule_check(&piecewise), DR_INVALID, "step_rules");
    }
    dr_lr_schedule stable = {
        .kind = DR_LR_WARMUP_STABLE_DECAY, .total_steps = 10, .warmup_steps = 4, .decay_steps = 7};
    assert_error(dr_lr_schedule_check(&stable), DR_INVALID, "more than the run's 10");
    s.base_lr = NAN;
    assert_error(dr_lr_schedule_check(&s), DR_INVALID, "must be larger");
    s.base_lr = 1.1e-7;
    assert_ok(dr_lr_schedule_check(&s));
}

/* diffusers divides by T - w: with T = w its factor at the last step is 0/0, an exception. */
static void a_run_of_warmup_only_stays_finite(void **state)
{
    (void)state;
    for (int kind = 0; kind < DR_LR_COUNT; kind++) {
        const dr_lr_schedule s = {.kind = (dr_lr_kind)kind,
                                  .total_steps = 10,
                                  .warmup_steps = 10,
                                  .cycles = 2,
                                  .power = 2.0,
                                  .base_lr = 1e-4,
                                  .rules = "0.5:3,1"};
        for (int64_t step = 0; step <= 12; step++) {
            const double f = dr_lr_factor(&s, step);
            assert_true(f >= 0.0 && f <= 1.0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_of_the_specification),
        cmocka_unit_test(vectors_of_diffusers),
        cmocka_unit_test(names),
        cmocka_unit_test(what_the_peer_refuses),
        cmocka_unit_test(a_run_of_warmup_only_stays_finite),
    };
    return DR_TEST_MAIN("lr_schedule", tests);
}
