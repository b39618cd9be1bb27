/* The log of a run: what it keeps, its rows, going on and going back. */
#include "dr_test.h"

#include "base/fault.h"
#include "base/file.h"
#include "train/report/run_log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *read_rows(const dr_run_log *l)
{
    char *path = dr_path_join(dr_run_log_folder(l), "steps.jsonl");
    char *text = NULL;
    size_t n = 0;
    assert_ok(dr_file_read(path, 1 << 20, &text, &n));
    free(path);
    return text;
}

static int count_lines(const char *text)
{
    int n = 0;
    for (const char *p = text; *p != '\0'; p++) {
        n += *p == '\n';
    }
    return n;
}

static void note(dr_run_log *l, int64_t step, double loss)
{
    dr_run_log_at(l, step, (uint32_t)((step - 1) / 2) + 1);
    dr_run_log_scalar(l, "loss", loss);
    if (step % 2 == 0) {
        dr_run_log_epoch_scalar(l, "loss/epoch", loss);
    }
    dr_run_log_flush(l);
}

static dr_run_log *new_log(const char *dir, const char *name, int64_t steps_done)
{
    dr_run_log *l = NULL;
    assert_ok(dr_run_log_create(
        &(dr_run_log_config){
            .dir = dir, .prefix = "p", .tracker = "t", .name = name, .steps_done = steps_done},
        &l));
    return l;
}

static void rows_and_series_hold_what_was_noted(void **state)
{
    (void)state;
    dr_run_log *l = new_log(dr_test_tmpdir(), NULL, 0);
    for (int i = 1; i <= 4; i++) {
        note(l, i, 0.5 / i);
    }
    char *text = read_rows(l);
    assert_int_equal(count_lines(text), 6);
    assert_non_null(strstr(text, "{\"step\": 2, \"epoch\": 1, \"time\": "));
    assert_non_null(strstr(text, "\"of\": \"epoch\", \"loss/epoch\": 0.125}"));
    free(text);
    const dr_log_series *s = dr_run_log_find(l, "loss/epoch");
    assert_int_equal(s->n, 2);
    assert_true(s->of_epochs);
    assert_int_equal(s->at[1].x, 2);
    assert_int_equal(s->at[1].step, 4);
    assert_null(dr_run_log_find(l, "lr/unet"));
    dr_run_log_destroy(l);
}

static void a_run_that_goes_on_has_no_step_twice(void **state)
{
    (void)state;
    dr_run_log *l = new_log(dr_test_tmpdir(), NULL, 0);
    for (int i = 1; i <= 5; i++) {
        note(l, i, 0.5 / i);
    }
    char name[64];
    (void)snprintf(name, sizeof name, "%s", dr_run_log_name(l));
    dr_run_log_destroy(l);
    l = new_log(dr_test_tmpdir(), name, 3);
    assert_string_equal(dr_run_log_name(l), name);
    assert_int_equal(dr_run_log_find(l, "loss")->n, 3);
    assert_int_equal(dr_run_log_find(l, "loss/epoch")->n, 1);
    note(l, 4, 7.0);
    char *text = read_rows(l);
    assert_int_equal(count_lines(text), 3 + 1 + 2);
    assert_non_null(strstr(text, "\"loss\": 7.0"));
    free(text);
    dr_run_log_destroy(l);
    l = new_log(dr_test_tmpdir(), "no such folder", 3);
    assert_string_not_equal(dr_run_log_name(l), name);
    assert_int_equal(dr_run_log_n_series(l), 0);
    dr_run_log_destroy(l);
}

static void going_back_forgets_later_steps(void **state)
{
    (void)state;
    dr_run_log *logs[] = {new_log(dr_test_tmpdir(), NULL, 0), new_log(NULL, NULL, 0)};
    for (int k = 0; k < 2; k++) {
        for (int i = 1; i <= 5; i++) {
            note(logs[k], i, 0.5 / i);
        }
        dr_run_log_rewind(logs[k], 2);
        assert_int_equal(dr_run_log_find(logs[k], "loss")->n, 2);
        assert_int_equal(dr_run_log_find(logs[k], "loss/epoch")->n, 1);
        note(logs[k], 3, 9.0);
    }
    char *text = read_rows(logs[0]);
    assert_int_equal(count_lines(text), 4);
    free(text);
    dr_run_log_destroy(logs[0]);
    dr_run_log_destroy(logs[1]);
}

static void a_full_disk_does_not_end_the_run(void **state)
{
    (void)state;
    dr_run_log *l = new_log(dr_test_tmpdir(), NULL, 0);
    note(l, 1, 1.0);
    assert_ok(dr_fault_setup("enospc:write=1", 0));
    note(l, 2, 1.0);
    assert_ok(dr_fault_setup("", 0));
    note(l, 3, 1.0);
    char *text = read_rows(l);
    assert_int_equal(count_lines(text), 2);
    free(text);
    dr_run_log_destroy(l);
}

static void no_log_takes_everything(void **state)
{
    (void)state;
    note(NULL, 2, 1.0);
    dr_run_log_text(NULL, "a", "b");
    dr_run_log_rewind(NULL, 0);
    assert_null(dr_run_log_folder(NULL));
    assert_null(dr_run_log_find(NULL, "loss"));
    dr_run_log_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_and_series_hold_what_was_noted),
        cmocka_unit_test(a_run_that_goes_on_has_no_step_twice),
        cmocka_unit_test(going_back_forgets_later_steps),
        cmocka_unit_test(a_full_disk_does_not_end_the_run),
        cmocka_unit_test(no_log_takes_everything),
    };
    return DR_TEST_MAIN("run_log", tests);
}
