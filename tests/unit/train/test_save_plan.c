/*
 * Names and numbers of saves: the worked examples of spec sdscripts.md 8.2 (measured there with
 * sd-scripts).
 */
#include "dr_test.h"
#include "train/save_plan.h"

static void assert_name(const char *name, dr_save_kind kind, int64_t number, const char *want)
{
    dr_str s = {0};
    dr_save_name(&(dr_save_options){.name = name}, kind, number, &s);
    assert_string_equal(dr_str_get(&s), want);
    dr_str_free(&s);
}

static void names(void **state)
{
    (void)state;
    assert_name("sks", DR_SAVE_EPOCH, 3, "sks-000003");
    assert_name("sks", DR_SAVE_STEP, 120, "sks-step00000120");
    assert_name("sks", DR_SAVE_LAST, 0, "sks");
    assert_name(NULL, DR_SAVE_EPOCH, 3, "epoch-000003");
    assert_name(NULL, DR_SAVE_STEP, 120, "at-step00000120");
    assert_name(NULL, DR_SAVE_LAST, 0, "last");
}

static void epochs(void **state)
{
    (void)state;
    const dr_save_options o = {.every_n_epochs = 3, .last_n_epochs = 2};
    assert_true(dr_save_due_at_epoch(&o, 9, 13));
    assert_false(dr_save_due_at_epoch(&o, 10, 13));
    assert_false(dr_save_due_at_epoch(&o, 12, 12)); /* the last is saved under the plain name */
    assert_int_equal(dr_save_expired_epoch(&o, 9, 13, false), 3);
    assert_int_equal(dr_save_expired_epoch(&o, 12, 13, false), 6);
    assert_int_equal(dr_save_expired_epoch(&o, 6, 13, false), -1);
    const dr_save_options states = {
        .every_n_epochs = 1, .last_n_epochs = 3, .last_n_epochs_state = 1};
    assert_int_equal(dr_save_expired_epoch(&states, 4, 9, false), 1);
    assert_int_equal(dr_save_expired_epoch(&states, 4, 9, true), 3);
    assert_int_equal(dr_save_expired_epoch(&(dr_save_options){.every_n_epochs = 1}, 4, 9, true),
                     -1);
}

static void ratio(void **state)
{
    (void)state;
    assert_int_equal(dr_save_epoch_interval(&(dr_save_options){.n_epoch_ratio = 4}, 10), 2);
    assert_int_equal(dr_save_epoch_interval(&(dr_save_options){.n_epoch_ratio = 20}, 10), 1);
    assert_int_equal(dr_save_epoch_interval(&(dr_save_options){0}, 10), 0);
}

static void steps(void **state)
{
    (void)state;
    const dr_save_options o = {.every_n_steps = 10, .last_n_steps = 30};
    assert_true(dr_save_due_at_step(&o, 60));
    assert_false(dr_save_due_at_step(&o, 61));
    assert_int_equal(dr_save_expired_step(&o, 40, false), -1); /* there is no step 0 */
    assert_int_equal(dr_save_expired_step(&o, 50, false), 10);
    assert_int_equal(dr_save_expired_step(&o, 60, false), 20);
    const dr_save_options states = {
        .every_n_steps = 10, .last_n_steps = 30, .last_n_steps_state = 10};
    assert_int_equal(dr_save_expired_step(&states, 60, true), 40);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(epochs),
        cmocka_unit_test(ratio),
        cmocka_unit_test(steps),
    };
    return DR_TEST_MAIN("save_plan", tests);
}
