#include "dr_test.h"

#include "base/str.h"

#include <math.h>

static void float_repr_is_pythons(void **state)
{
    (void)state;
    /* Expected texts: repr() of CPython 3.11 */
    static const struct {
        double v;
        const char *text;
    } cases[] = {{1e-6, "1e-06"},
                 {2e-6, "2e-06"},
                 {1e-4, "0.0001"},
                 {1.0, "1.0"},
                 {0.1, "0.1"},
                 {1e16, "1e+16"},
                 {123.5, "123.5"},
                 {1e-5, "1e-05"},
                 {1e15, "1000000000000000.0"},
                 {0.3, "0.3"},
                 {0.1 + 0.2, "0.30000000000000004"},
                 {(double)INFINITY, "inf"},
                 {(double)-INFINITY, "-inf"},
                 {(double)NAN, "nan"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char buf[32];
        dr_float_repr(cases[i].v, buf);
        assert_string_equal(buf, cases[i].text);
    }
}

static void numbers_are_whole_strings(void **state)
{
    (void)state;
    int64_t i = 0;
    double d = 0.0;
    assert_true(dr_parse_i64("-12", &i) && i == -12);
    assert_false(dr_parse_i64("12x", &i));
    assert_false(dr_parse_i64("", &i));
    assert_false(dr_parse_i64("99999999999999999999", &i));
    assert_true(dr_parse_f64("1e-6", &d) && d == 1e-6);
    assert_false(dr_parse_f64("nan", &d));
    assert_false(dr_parse_f64("1e-6 ", &d));
}

static void edit_distance_counts_edits(void **state)
{
    (void)state;
    assert_int_equal(dr_edit_distance("resolution", "resolutoin"), 2);
    assert_int_equal(dr_edit_distance("seed", "sed"), 1);
    assert_int_equal(dr_edit_distance("", "abc"), 3);
}

static void strings_grow_and_lists_sort(void **state)
{
    (void)state;
    dr_str s = {0};
    for (int i = 0; i < 100; i++) {
        dr_str_printf(&s, "%d,", i);
    }
    assert_int_equal(s.len, 290);
    dr_str_free(&s);
    dr_strv v = {0};
    dr_strv_push(&v, "b");
    dr_strv_push(&v, "B");
    dr_strv_push(&v, "a");
    dr_strv_sort(&v);
    assert_string_equal(v.at[0], "B");
    dr_strv_free(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(float_repr_is_pythons),
        cmocka_unit_test(numbers_are_whole_strings),
        cmocka_unit_test(edit_distance_counts_edits),
        cmocka_unit_test(strings_grow_and_lists_sort),
    };
    return DR_TEST_MAIN("str", tests);
}
