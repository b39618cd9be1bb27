#include "dr_test.h"

#include <string.h>

static dr_status fails(void)
{
    DR_FAIL(DR_FORMAT, "thing %d is wrong", 7);
}

static dr_status passes_on(void)
{
    DR_TRY(fails());
    return DR_OK;
}

static void record_keeps_message_and_trace(void **state)
{
    (void)state;
    assert_error(passes_on(), DR_FORMAT, "thing 7 is wrong");
    char trace[256];
    dr_error_trace(trace, sizeof trace);
    assert_non_null(strstr(trace, " < "));
    assert_int_equal(dr_error_prefix(DR_FORMAT, "file %s", "a"), DR_FORMAT);
    assert_string_equal(dr_error_message(), "file a: thing 7 is wrong");
}

static void every_status_has_a_documented_exit_code(void **state)
{
    (void)state;
    assert_int_equal(dr_status_exit_code(DR_OK), 0);
    for (int st = 1; st < DR_STATUS_COUNT; st++) {
        int code = dr_status_exit_code((dr_status)st);
        assert_in_range(code, 64, 78);
        assert_int_not_equal(code, 77); /* reserved: a skipped test */
    }
}

static void record_travels_between_threads(void **state)
{
    (void)state;
    dr_error_copy copy;
    (void)fails();
    dr_error_export(&copy);
    dr_error_clear();
    assert_string_equal(dr_error_message(), "");
    dr_error_import(&copy);
    assert_string_equal(dr_error_message(), "thing 7 is wrong");
}

static void broken_contract_panics(void **state)
{
    (void)state;
    assert_panics(DR_CHECK(1 + 1 == 3, "arithmetic"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(record_keeps_message_and_trace),
        cmocka_unit_test(every_status_has_a_documented_exit_code),
        cmocka_unit_test(record_travels_between_threads),
        cmocka_unit_test(broken_contract_panics),
    };
    return DR_TEST_MAIN("status", tests);
}
