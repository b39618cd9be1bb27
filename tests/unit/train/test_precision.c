/*
 * Types of a run's numbers; the loss scale's rules, which torch.amp.GradScaler documents (init
 * 65536, growth 2 after 2000 good steps in a row, backoff 0.5). tests/interop/precision_peers.py
 * compares with GradScaler itself.
 */
#include "train/precision.h"

#include "dr_test.h"

static const dr_precision wide = {0};
static const dr_precision bf16 = {.kind = DR_PRECISION_MIXED, .bf16 = true};
static const dr_precision fp16 = {.kind = DR_PRECISION_MIXED};
static const dr_precision full_fp16 = {.kind = DR_PRECISION_FULL, .narrow_grads = true};
static const dr_precision summed_bf16 = {.kind = DR_PRECISION_FULL, .bf16 = true};

static void every_kind_of_number_has_its_type(void **state)
{
    (void)state;
    const struct {
        dr_precision p;
        dr_dtype compute, trained, grads;
        bool masters, scales;
    } cases[] = {
        {wide, DR_F32, DR_F32, DR_F32, false, false},
        {bf16, DR_BF16, DR_F32, DR_F32, true, false},
        {fp16, DR_F16, DR_F32, DR_F32, true, true},
        {full_fp16, DR_F16, DR_F16, DR_F16, false, true},
        {summed_bf16, DR_BF16, DR_BF16, DR_F32, false, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(dr_precision_compute(cases[i].p), cases[i].compute);
        assert_int_equal(dr_precision_trained(cases[i].p), cases[i].trained);
        assert_int_equal(dr_precision_grads(cases[i].p), cases[i].grads);
        assert_int_equal(dr_precision_has_masters(cases[i].p), cases[i].masters);
        assert_int_equal(dr_precision_scales_loss(cases[i].p), cases[i].scales);
        assert_true(dr_loss_scale_init(cases[i].p).scale == (cases[i].scales ? 65536.0 : 1.0));
    }
}

static void steps(dr_loss_scale *s, int n, bool finite)
{
    for (int i = 0; i < n; i++) {
        dr_loss_scale_update(s, finite);
    }
}

static void two_thousand_good_steps_double_the_scale(void **state)
{
    (void)state;
    dr_loss_scale s = dr_loss_scale_init(fp16);
    steps(&s, 1999, true);
    assert_true(s.scale == 65536.0);
    steps(&s, 1, true);
    assert_true(s.scale == 131072.0 && s.good == 0);
    steps(&s, 1999, true);
    steps(&s, 1, false); /* the count begins again */
    assert_true(s.scale == 65536.0 && s.skipped == 1);
    steps(&s, 1999, true);
    assert_true(s.scale == 65536.0);
    steps(&s, 1, true);
    assert_true(s.scale == 131072.0);
}

static void every_overflow_halves_it(void **state)
{
    (void)state;
    dr_loss_scale s = dr_loss_scale_init(fp16);
    steps(&s, 26, false);
    assert_true(s.scale == DR_LOSS_SCALE_LEAST && s.skipped == 26);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_number_has_its_type),
        cmocka_unit_test(two_thousand_good_steps_double_the_scale),
        cmocka_unit_test(every_overflow_halves_it),
    };
    return dr_test_run("precision", tests, sizeof tests / sizeof *tests);
}
