#include "dr_test.h"

#include "data/pytext.h"

#include <string.h>

/* Expectations are what CPython 3.11 answers; tests/interop/data_peers.py asks it at random. */
static void int_follows_python(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool good;
        int64_t value;
    } cases[] = {
        {"20", true, 20},
        {"+5", true, 5},
        {" 3", true, 3},
        {"\xd9\xa3", true, 3},                  /* ARABIC-INDIC DIGIT THREE */
        {"\xef\xbc\x91\xef\xbc\x90", true, 10}, /* FULLWIDTH 1 0 */
        {"\xe3\x80\x80"
         "5\xc2\x85",
         true, 5}, /* ideographic space, next line */
        {"-1", true, -1},
        {"007", true, 7},
        {"99999999999999999999", true, INT64_MAX},
        {"-99999999999999999999", true, INT64_MIN},
        {"9223372036854775807", true, INT64_MAX},
        {"", false, 0},
        {"+", false, 0},
        {"- 5", false, 0},
        {"abc", false, 0},
        {"5x", false, 0},
        {"1.0", false, 0},
        {"\x1c"
         "5",
         false, 0}, /* separators are not stripped */
        {"\xd9\xa3\x1c", false, 0},
        {"\xc2\xb2", false, 0}, /* SUPERSCRIPT TWO is no decimal digit */
        {"5\xff", false, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t value = 0;
        bool good = dr_py_int(cases[i].text, strlen(cases[i].text), &value);
        if (good != cases[i].good || (good && value != cases[i].value)) {
            fail_msg("case %zu: %s -> %d, %lld", i, cases[i].text, good, (long long)value);
        }
    }
}

static void strip_removes_unicode_spaces(void **state)
{
    (void)state;
    const char *s = " \t\xe3\x80\x80"
                    "a b\xc2\xa0\n";
    size_t n = strlen(s);
    dr_py_strip(&s, &n);
    assert_int_equal(n, 3);
    assert_memory_equal(s, "a b", 3);
    s = " \n";
    n = 2;
    dr_py_strip(&s, &n);
    assert_int_equal(n, 0);
}

static void utf8_check_finds_the_first_bad_byte(void **state)
{
    (void)state;
    assert_int_equal(dr_py_utf8_check("a\xc3\xa4\xf0\x9f\x90\xb6", 7), 7);
    assert_int_equal(dr_py_utf8_check("caf\xe9 x", 6), 3);
    assert_int_equal(dr_py_utf8_check("\xc0\x80", 2), 0);         /* overlong */
    assert_int_equal(dr_py_utf8_check("a\xed\xa0\x80", 4), 1);    /* surrogate */
    assert_int_equal(dr_py_utf8_check("\xf4\x90\x80\x80", 4), 0); /* beyond U+10FFFF */
    assert_int_equal(dr_py_utf8_check("ab\xe2\x82", 4), 2);       /* cut off */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(int_follows_python),
        cmocka_unit_test(strip_removes_unicode_spaces),
        cmocka_unit_test(utf8_check_finds_the_first_bad_byte),
    };
    return DR_TEST_MAIN("pytext", tests);
}
