#include "dr_test.h"

#include "launcher/decide.h"

#include <string.h>

static const dr_restart_rules progress = {
    .policy = DR_RESTART_PROGRESS, .max_restarts = 3, .delay_s = 1.0};

static dr_outcome failed(int code, int64_t step, int64_t state_step)
{
    return (dr_outcome){
        .code = code, .n_ranks = 4, .joined = true, .step = step, .state_step = state_step};
}

static void success_and_requests_end_it(void **state)
{
    (void)state;
    dr_history h = {0};
    dr_outcome o = failed(0, 9, 0);
    assert_false(dr_decide(&progress, &h, &o).restart);
    o = failed(75, 9, 9);
    assert_int_equal(dr_decide(&progress, &h, &o).code, 75);
    o = failed(143, 9, 0);
    o.stopped = true;
    assert_int_equal(dr_decide(&progress, &h, &o).code, 143);
    const dr_restart_rules none = {.policy = DR_RESTART_PROGRESS};
    o = failed(137, 9, 0);
    dr_decision d = dr_decide(&none, &h, &o);
    assert_true(!d.restart && d.code == 137);
}

static void what_would_come_again_is_not_tried(void **state)
{
    (void)state;
    static const int codes[] = {64, 65, 73, 76, 78};
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        dr_history h = {0};
        dr_outcome o = failed(codes[i], 5, 5);
        dr_decision d = dr_decide(&progress, &h, &o);
        assert_true(!d.restart && d.code == codes[i]);
    }
    dr_history h = {0};
    dr_outcome o = failed(137, 5, 5);
    o.out_of_memory = true;
    assert_false(dr_decide(&progress, &h, &o).restart);
}

static void a_crash_loop_is_refused(void **state)
{
    (void)state;
    dr_history h = {0};
    dr_outcome o = failed(137, 3, 2);
    assert_true(dr_decide(&progress, &h, &o).restart);
    dr_decision d = dr_decide(&progress, &h, &o); /* the same step, no new state */
    assert_true(!d.restart && d.code == 70);
    assert_non_null(strstr(d.why, "came no further"));
    h = (dr_history){0};
    o = failed(137, 0, 0);
    assert_int_equal(dr_decide(&progress, &h, &o).code, 70); /* before the first step */
    h = (dr_history){0};
    o.joined = false; /* a start that failed is tried once more */
    assert_true(dr_decide(&progress, &h, &o).restart);
    assert_int_equal(dr_decide(&progress, &h, &o).code, 70);
}

static void restarts_that_saved_do_not_count(void **state)
{
    (void)state;
    dr_history h = {0};
    for (int i = 1; i <= 20; i++) {
        dr_outcome o = failed(137, 2 * i, i);
        assert_true(dr_decide(&progress, &h, &o).restart);
    }
    assert_int_equal(h.used, 0);
    for (int i = 1; i <= 3; i++) { /* further, but nothing saved */
        dr_outcome o = failed(137, 40 + i, 20);
        assert_true(dr_decide(&progress, &h, &o).restart);
    }
    dr_outcome o = failed(137, 50, 20);
    assert_int_equal(dr_decide(&progress, &h, &o).code, 70);
}

static void pauses_double(void **state)
{
    (void)state;
    dr_restart_rules rules = progress;
    rules.policy = DR_RESTART_ALWAYS;
    rules.max_restarts = 100;
    dr_history h = {0};
    static const double want[] = {1, 2, 4, 8, 16, 32, 60, 60};
    dr_outcome o = failed(137, 1, 0);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        dr_decision d = dr_decide(&rules, &h, &o);
        assert_true(d.restart);
        assert_true(d.delay_s >= want[i] && d.delay_s <= want[i]);
    }
}

static void ranks_shrink_to_the_least(void **state)
{
    (void)state;
    dr_restart_rules rules = progress;
    rules.least_ranks = 3;
    dr_history h = {0};
    dr_outcome o = failed(137, 1, 1);
    assert_int_equal(dr_decide(&rules, &h, &o).n_ranks, 4); /* nothing is lost */
    o = failed(69, 2, 2);
    assert_int_equal(dr_decide(&rules, &h, &o).n_ranks, 3); /* a device is gone */
    o = failed(137, 3, 3);
    o.n_lost = 2; /* a host with two ranks */
    dr_decision d = dr_decide(&rules, &h, &o);
    assert_true(!d.restart && d.code == 75);
    rules.least_ranks = 0;
    assert_int_equal(dr_decide(&rules, &h, &o).n_ranks, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(success_and_requests_end_it),
        cmocka_unit_test(what_would_come_again_is_not_tried),
        cmocka_unit_test(a_crash_loop_is_refused),
        cmocka_unit_test(restarts_that_saved_do_not_count),
        cmocka_unit_test(pauses_double),
        cmocka_unit_test(ranks_shrink_to_the_least),
    };
    return DR_TEST_MAIN("decide", tests);
}
