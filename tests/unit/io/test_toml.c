#include "dr_test.h"

#include "base/file.h"
#include "io/config_doc.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct toml_case {
    const char *text;
    size_t n;
    const char *tree; /* NULL: invalid */
    int line;         /* of the error */
} toml_case;
#include "toml_cases.h"

enum { N_CASES = sizeof cases / sizeof *cases };

static void add_quoted(const char *text, size_t n, dr_str *out)
{
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        bool plain = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
        dr_str_printf(out, plain ? "%c" : "%%%02x", plain ? c : (unsigned char)c);
    }
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const dr_config_member *)a)->name, ((const dr_config_member *)b)->name);
}

static void add_tree(const dr_config_value *v, dr_str *out);

static void add_members(const dr_config_value *v, dr_str *out)
{
    dr_config_member *sorted = calloc(v->n + 1, sizeof *sorted);
    for (size_t i = 0; i < v->n; i++) {
        sorted[i] = v->members[i];
    }
    qsort(sorted, v->n, sizeof *sorted, by_name);
    for (size_t i = 0; i < v->n; i++) {
        dr_str_add(out, i > 0 ? "," : "");
        add_quoted(sorted[i].name, strlen(sorted[i].name), out);
        dr_str_add(out, ":");
        add_tree(sorted[i].value, out);
    }
    free(sorted);
}

static void add_real(double f, dr_str *out)
{
    char number[32];
    dr_float_repr(f, number);
    dr_str_printf(out, "f%s", isnan(f) ? "nan" : number);
}

/* The tree as toml_cases.py writes it; the cases are shallow. */
static void add_tree(const dr_config_value *v, dr_str *out)
{
    switch (v->kind) {
    case DR_CONFIG_TABLE:
        dr_str_add(out, "{");
        add_members(v, out);
        dr_str_add(out, "}");
        break;
    case DR_CONFIG_LIST:
        dr_str_add(out, "[");
        for (size_t i = 0; i < v->n; i++) {
            dr_str_add(out, i > 0 ? "," : "");
            add_tree(v->items[i], out);
        }
        dr_str_add(out, "]");
        break;
    case DR_CONFIG_BOOL:
        dr_str_printf(out, "b%d", (int)v->i);
        break;
    case DR_CONFIG_INT:
        dr_str_printf(out, "i%lld", (long long)v->i);
        break;
    case DR_CONFIG_REAL:
        add_real(v->f, out);
        break;
    case DR_CONFIG_STRING:
        dr_str_add(out, "s");
        add_quoted(v->text, v->n, out);
        break;
    case DR_CONFIG_TIME:
        dr_str_add(out, "t");
        break;
    case DR_CONFIG_NULL:
        fail_msg("TOML has no null");
    }
}

/* A copy of exactly n bytes, so that a sanitizer sees every byte read past the end. */
static char *exact_copy(const char *text, size_t n)
{
    char *copy = malloc(n > 0 ? n : 1);
    memcpy(copy, text, n);
    return copy;
}

static void documents_are_read_as_tomllib_does(void **state)
{
    (void)state;
    int n_bad = 0;
    for (size_t i = 0; i < N_CASES; i++) {
        dr_config_doc *d = NULL;
        char *text = exact_copy(cases[i].text, cases[i].n);
        dr_status st = dr_toml_parse(&d, "x.toml", text, cases[i].n);
        free(text);
        dr_str got = {0};
        int line = 0;
        if (st == DR_OK) {
            add_tree(dr_config_root(d), &got);
        } else {
            assert_int_equal(st, DR_FORMAT);
            dr_str_add(&got, dr_error_message());
            assert_int_equal(sscanf(dr_error_message(), "x.toml:%d:", &line), 1);
        }
        bool good = cases[i].tree != NULL ? strcmp(dr_str_get(&got), cases[i].tree) == 0
                                          : st != DR_OK && line == cases[i].line;
        if (!good) {
            print_message("%s\n  got      %s\n  expected %s, line %d\n", cases[i].text,
                          dr_str_get(&got), cases[i].tree, cases[i].line);
            n_bad++;
        }
        dr_str_free(&got);
        dr_config_close(d);
        dr_error_clear();
    }
    assert_int_equal(n_bad, 0);
    assert_true(N_CASES >= 200);
}

/* Every beginning of every document is read or refused, never read past. */
static void beginnings_are_safe(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        for (size_t n = 0; n < cases[i].n; n++) {
            dr_config_doc *d = NULL;
            char *text = exact_copy(cases[i].text, n);
            dr_status st = dr_toml_parse(&d, "x.toml", text, n);
            assert_true(st == DR_OK || st == DR_FORMAT);
            assert_true((st == DR_OK) == (d != NULL));
            dr_config_close(d);
            free(text);
        }
    }
    dr_error_clear();
}

static void expect_error(const char *text, const char *message)
{
    dr_config_doc *d = NULL;
    assert_error(dr_toml_parse(&d, "x.toml", text, strlen(text)), DR_FORMAT, message);
    assert_null(d);
}

static void messages_name_the_place(void **state)
{
    (void)state;
    expect_error("a = 1\nb = tru", "x.toml:2:5: tru is no value; text stands in quotes: \"tru\"");
    expect_error("a = 1\na = 2",
                 "x.toml:2:1: 'a' is defined a second time; the first is in line 1");
    expect_error("\"\xc3\xa9\xc3\xa9\" = x", "x.toml:1:8: x is no value");
    expect_error("a = [1\n2]", "x.toml:2:1: expected ',' or ']' in the list of line 1, found '2'");
    expect_error("a = \"C:\\Users\"", "x.toml:1:8: \\U needs 8 hexadecimal digits");
    expect_error("a = \"C:\\data\"", "a backslash itself is written \\\\, or use single quotes");
    expect_error("a = True", "TOML writes true and false in small letters");
    expect_error("[a]\n[b\nc = 1", "x.toml:2:3: expected ']' behind the name of the table, found "
                                   "the end of the line");
    expect_error("\xc3\xa9 = 1", "keys with such characters stand in quotes");
}

static void limits_hold(void **state)
{
    (void)state;
    dr_str s = {0};
    dr_str_add(&s, "a = ");
    for (int i = 0; i < 100000; i++) {
        dr_str_add(&s, "[");
    }
    expect_error(s.data, "more than 64 lists and tables inside each other");
    s.len = 0;
    for (int i = 0; i < 100000; i++) {
        dr_str_add(&s, "a.");
    }
    expect_error(s.data, "a key of more than 64 parts");
    s.len = 0;
    for (int i = 0; i < 200000; i++) { /* quadratic look-ups would take minutes */
        dr_str_printf(&s, "k%d = %d\n", i, i);
    }
    dr_config_doc *d = NULL;
    assert_ok(dr_toml_parse(&d, "x.toml", s.data, s.len));
    assert_int_equal(dr_config_root(d)->n, 200000);
    dr_config_close(d);
    dr_str_free(&s);
}

static void places_and_texts_are_kept(void **state)
{
    (void)state;
    static const char text[] = "\xef\xbb\xbf[t]\n  day = 2024-02-29 12:00:00Z\n  s = \"a\\u0000b\"";
    dr_config_doc *d = NULL;
    assert_ok(dr_toml_parse(&d, "x.toml", text, strlen(text)));
    const dr_config_value *t = dr_config_find(dr_config_root(d), "t");
    assert_int_equal(t->members[0].line, 2);
    assert_int_equal(t->members[0].column, 3);
    const dr_config_value *day = dr_config_find(t, "day");
    assert_string_equal(day->text, "2024-02-29 12:00:00Z");
    assert_int_equal(day->column, 9);
    assert_int_equal(dr_config_find(t, "s")->n, 3);
    assert_false(dr_config_is_plain(dr_config_find(t, "s")));
    assert_null(dr_config_find(t, "absent"));
    dr_str place = {0};
    dr_config_place(d, t->members[1].line, t->members[1].column, &place);
    assert_string_equal(place.data, "x.toml:3:3");
    dr_str_free(&place);
    dr_config_close(d);
}

static void json_becomes_the_same_tree(void **state)
{
    (void)state;
    char *json = dr_path_join(dr_test_tmpdir(), "x.json");
    char *toml = dr_path_join(dr_test_tmpdir(), "x.TOML");
    char *other = dr_path_join(dr_test_tmpdir(), "x.yaml");
    static const char in_json[] = "{\"a\": {\"b\": [1, 2.5, true, \"x\", {\"c\": []}]}, \"d\": {}}";
    static const char in_toml[] = "a.b = [1, 2.5, true, 'x', {c = []}]\n[d]\n";
    assert_ok(dr_file_write(json, in_json, strlen(in_json)));
    assert_ok(dr_file_write(toml, in_toml, strlen(in_toml)));
    dr_config_doc *x = NULL;
    dr_config_doc *y = NULL;
    assert_ok(dr_config_open(&x, json));
    assert_ok(dr_config_open(&y, toml));
    dr_str tree_x = {0};
    dr_str tree_y = {0};
    add_tree(dr_config_root(x), &tree_x);
    add_tree(dr_config_root(y), &tree_y);
    assert_string_equal(tree_x.data, tree_y.data);
    dr_config_close(x);
    dr_config_close(y);
    assert_error(dr_config_open(&x, other), DR_INVALID, "ends in .toml or .json");
    assert_null(x);
    dr_str_free(&tree_x);
    dr_str_free(&tree_y);
    free(json);
    free(toml);
    free(other);
}

static void strings_survive_writing(void **state)
{
    (void)state;
    static const char text[] = "a \"b\" \\ \n\t\x01\x7f \xc3\xa9";
    dr_str s = {0};
    dr_str_add(&s, "a = ");
    dr_toml_add_string(&s, text);
    dr_config_doc *d = NULL;
    assert_ok(dr_toml_parse(&d, "x.toml", s.data, s.len));
    assert_string_equal(dr_config_find(dr_config_root(d), "a")->text, text);
    dr_config_close(d);
    dr_str_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(documents_are_read_as_tomllib_does),
        cmocka_unit_test(beginnings_are_safe),
        cmocka_unit_test(messages_name_the_place),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(places_and_texts_are_kept),
        cmocka_unit_test(json_becomes_the_same_tree),
        cmocka_unit_test(strings_survive_writing),
    };
    return DR_TEST_MAIN("toml", tests);
}
