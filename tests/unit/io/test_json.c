#include "dr_test.h"

#include "base/file.h"
#include "io/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static dr_json_doc *parse(const char *text)
{
    dr_json_doc *d = NULL;
    assert_ok(dr_json_parse(&d, "config.json", text, strlen(text)));
    return d;
}

static void values_are_found_by_path(void **state)
{
    (void)state;
    dr_json_doc *d = parse("{\"a\": {\"b\": [1, 2.5, \"x\", true]}, \"i\": 3, \"n\": null}");
    int64_t i = 0;
    double f = 0.0;
    const char *s = NULL;
    bool b = false;
    assert_ok(dr_json_get_int(d, "a/b/0", &i, NULL));
    assert_int_equal(i, 1);
    assert_ok(dr_json_get_double(d, "a/b/1", &f, NULL));
    assert_true(f == 2.5);
    assert_ok(dr_json_get_double(d, "i", &f, NULL));
    assert_true(f == 3.0);
    assert_ok(dr_json_get_string(d, "a/b/2", &s, NULL));
    assert_string_equal(s, "x");
    assert_ok(dr_json_get_bool(d, "a/b/3", &b, NULL));
    assert_true(b);
    assert_int_equal(dr_json_kind_of(d, "a/b"), DR_JSON_LIST);
    assert_int_equal(dr_json_kind_of(d, ""), DR_JSON_OBJECT);
    assert_int_equal(dr_json_kind_of(d, "a/b/4"), DR_JSON_ABSENT);
    assert_int_equal(dr_json_kind_of(d, "a/b/-1"), DR_JSON_ABSENT);
    assert_int_equal(dr_json_kind_of(d, "i/x"), DR_JSON_ABSENT);
    assert_int_equal(dr_json_kind_of(d, "n"), DR_JSON_NULL);
    dr_json_close(d);
}

static void absent_and_null_leave_the_default(void **state)
{
    (void)state;
    dr_json_doc *d = parse("{\"n\": null}");
    int64_t i = 7;
    bool found = true;
    assert_ok(dr_json_get_int(d, "n", &i, &found));
    assert_false(found);
    found = true;
    assert_ok(dr_json_get_int(d, "missing", &i, &found));
    assert_false(found);
    assert_int_equal(i, 7);
    dr_json_ints list = {0};
    assert_ok(dr_json_get_ints(d, "missing", &list, &found));
    assert_null(list.at);
    dr_strv words = {0};
    assert_ok(dr_json_get_strings(d, "n", &words, &found));
    assert_int_equal(words.n, 0);
    assert_error(dr_json_get_int(d, "missing", &i, NULL), DR_FORMAT,
                 "config.json: key 'missing' is missing; expected an integer");
    assert_error(dr_json_get_ints(d, "n", &list, NULL), DR_FORMAT, "expected a list of integers");
    dr_json_close(d);
}

static void wrong_kinds_are_named(void **state)
{
    (void)state;
    dr_json_doc *d = parse("{\"s\": \"1\", \"f\": 1.0, \"l\": [1, \"a\"], \"o\": {}}");
    int64_t i = 0;
    double f = 0.0;
    bool b = false;
    bool found = false;
    const char *s = NULL;
    dr_json_ints ints = {0};
    dr_strv words = {0};
    assert_error(dr_json_get_int(d, "s", &i, &found), DR_FORMAT,
                 "config.json: key 's' is a string, expected an integer");
    assert_error(dr_json_get_int(d, "f", &i, NULL), DR_FORMAT, "is a real number");
    assert_error(dr_json_get_double(d, "o", &f, NULL), DR_FORMAT, "an object, expected a number");
    assert_error(dr_json_get_bool(d, "f", &b, NULL), DR_FORMAT, "expected true or false");
    assert_error(dr_json_get_string(d, "l", &s, NULL), DR_FORMAT, "a list, expected a string");
    assert_error(dr_json_get_ints(d, "s", &ints, NULL), DR_FORMAT, "expected a list of integers");
    assert_error(dr_json_get_ints(d, "l", &ints, NULL), DR_FORMAT,
                 "element 1 of key 'l' is a string, expected a list of integers");
    assert_error(dr_json_get_strings(d, "l", &words, NULL), DR_FORMAT, "element 0 of key 'l'");
    assert_null(ints.at);
    dr_json_close(d);
}

static void lists_are_copied(void **state)
{
    (void)state;
    dr_json_doc *d = parse("{\"c\": [320, 640, 1280], \"w\": [\"a\", \"b\"], \"e\": []}");
    dr_json_ints ints = {0};
    dr_json_ints empty = {0};
    dr_strv words = {0};
    assert_ok(dr_json_get_ints(d, "c", &ints, NULL));
    assert_ok(dr_json_get_ints(d, "e", &empty, NULL));
    assert_ok(dr_json_get_strings(d, "w", &words, NULL));
    dr_json_close(d);
    assert_int_equal(ints.n, 3);
    assert_int_equal(ints.at[2], 1280);
    assert_int_equal(empty.n, 0);
    assert_string_equal(words.at[1], "b");
    dr_json_ints_free(&ints);
    dr_json_ints_free(&empty);
    dr_strv_free(&words);
}

static void bad_text_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } bad[] = {
        {"", "not valid JSON at line 1"},
        {"{\"a\": 1,}", "not valid JSON at line 1, column 9"},
        {"{\"a\": 1} x", "end of file expected"},
        {"{\"a\": 1, \"a\": 2}", "duplicate object key"},
        {"{\"a\": \"\\u0000\"}", "not allowed"},
        {"{\"a\": 99999999999999999999}", "too big integer"},
        {"{\"a\": \"\xff\"}", "unable to decode byte 0xff"},
        {"{\"a\": 1", "config.json: not valid JSON"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        dr_json_doc *d = NULL;
        assert_error(dr_json_parse(&d, "config.json", bad[i].text, strlen(bad[i].text)), DR_FORMAT,
                     bad[i].message);
        assert_null(d);
    }
}

static void nesting_has_a_limit(void **state)
{
    (void)state;
    size_t n = 100000;
    char *text = calloc(n, 1);
    memset(text, '[', n);
    dr_json_doc *d = NULL;
    assert_error(dr_json_parse(&d, "deep.json", text, n), DR_FORMAT, "maximum parsing depth");
    free(text);
}

static void files_are_read(void **state)
{
    (void)state;
    char *path = dr_path_join(dr_test_tmpdir(), "x.json");
    assert_ok(dr_file_write(path, "{\"k\": 1}", 8));
    dr_json_doc *d = NULL;
    assert_ok(dr_json_open(&d, path));
    int64_t k = 0;
    assert_ok(dr_json_get_int(d, "k", &k, NULL));
    assert_int_equal(k, 1);
    dr_json_close(d);
    free(path);
    assert_error(dr_json_open(&d, "/no/such.json"), DR_IO, "/no/such.json: cannot open");
    assert_null(d);
}

static void members_are_walked_in_order(void **state)
{
    (void)state;
    dr_json_doc *d = parse("{\"z\": 1, \"a\": \"t\", \"m\": [5]}");
    const dr_json_value *root = dr_json_root(d);
    dr_str seen = {0};
    for (dr_json_iter it = {0}; dr_json_next(root, &it);) {
        dr_str_add(&seen, it.name);
    }
    assert_string_equal(dr_str_get(&seen), "zam");
    dr_str_free(&seen);
    assert_int_equal(dr_json_size(root), 3);
    assert_int_equal(dr_json_int_value(dr_json_member(root, "z")), 1);
    assert_string_equal(dr_json_string_value(dr_json_member(root, "a")), "t");
    assert_int_equal(dr_json_int_value(dr_json_item(dr_json_member(root, "m"), 0)), 5);
    assert_null(dr_json_member(root, "q"));
    assert_int_equal(dr_json_kind_of_value(NULL), DR_JSON_ABSENT);
    dr_json_iter none = {0};
    assert_false(dr_json_next(dr_json_member(root, "z"), &none));
    dr_json_close(d);
}

static void written_text_reads_back(void **state)
{
    (void)state;
    static const char text[] = "q\" b\\ /\b\f\n\r\t\x01\x1f\x7f \xc3\xa9 \xf0\x9f\x90\xb6";
    dr_str s = {0};
    dr_json_add_string(&s, text);
    assert_string_equal(dr_str_get(&s), "\"q\\\" b\\\\ /\\b\\f\\n\\r\\t\\u0001\\u001f\x7f "
                                        "\xc3\xa9 \xf0\x9f\x90\xb6\"");
    dr_json_doc *d = parse(dr_str_get(&s));
    const char *back = NULL;
    assert_ok(dr_json_get_string(d, "", &back, NULL));
    assert_string_equal(back, text);
    dr_json_close(d);
    dr_str_free(&s);
    dr_json_add_double(&s, 1e-6);
    dr_str_add(&s, " ");
    dr_json_add_double(&s, (double)INFINITY);
    assert_string_equal(dr_str_get(&s), "1e-06 null");
    dr_str_free(&s);
    assert_true(dr_json_utf8_valid(text));
    assert_false(dr_json_utf8_valid("a\xc0\x80"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_found_by_path),
        cmocka_unit_test(absent_and_null_leave_the_default),
        cmocka_unit_test(wrong_kinds_are_named),
        cmocka_unit_test(lists_are_copied),
        cmocka_unit_test(bad_text_is_refused),
        cmocka_unit_test(nesting_has_a_limit),
        cmocka_unit_test(files_are_read),
        cmocka_unit_test(members_are_walked_in_order),
        cmocka_unit_test(written_text_reads_back),
    };
    return DR_TEST_MAIN("json", tests);
}
