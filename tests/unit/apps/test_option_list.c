/* The option table against a dump of sd-scripts' own parsers (dump_sdscripts_options.py). */
#include "dr_test.h"

#include "apps/options.h"
#include "base/file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FIELDS = 12 };

static char *read_source(const char *name)
{
    const char *root = getenv("DR_SOURCE");
    assert_non_null(root);
    char *path = dr_path_join(root, name);
    char *text = NULL;
    size_t n = 0;
    assert_ok(dr_file_read(path, 1 << 20, &text, &n));
    free(path);
    return text;
}

/* Cuts the next line off *text into tab-separated fields; false at the end. */
static bool next_row(char **text, char *fields[MAX_FIELDS], int *n)
{
    char *line = *text;
    if (*line == '\0') {
        return false;
    }
    char *end = strchr(line, '\n');
    assert_non_null(end);
    *end = '\0';
    *text = end + 1;
    *n = 0;
    for (char *p = line; p != NULL; *n += 1) {
        assert_true(*n < MAX_FIELDS);
        fields[*n] = p;
        p = strchr(p, '\t');
        if (p != NULL) {
            *p++ = '\0';
        }
    }
    return true;
}

/* Options that only train_network has in sd-scripts, and both programs here. */
static const char *const wider[] = {
    "validation_seed",      "validation_split", "validate_every_n_steps", "validate_every_n_epochs",
    "max_validation_steps", "in_json",          "dataset_repeats"};
enum { N_WIDER = sizeof wider / sizeof *wider };

static bool is_wider(const char *name)
{
    for (size_t i = 0; i < N_WIDER; i++) {
        if (strcmp(wider[i], name) == 0) {
            return true;
        }
    }
    return false;
}

/* The row of an option that belongs to all programs of keys ("d", "n", "b"). */
static const dr_opt_spec *find(const char *name, const char *keys)
{
    unsigned want = strcmp(keys, "b") == 0 || is_wider(name) ? 3U
                    : strcmp(keys, "d") == 0                 ? 1U
                                                             : 2U;
    for (int id = 0; id < DR_OPT_GROUP_own; id++) {
        const dr_opt_spec *s = &dr_options_table()->specs[id];
        if (s->name != NULL && strcmp(s->name, name) == 0 && s->programs == want) {
            return s;
        }
    }
    fail_msg("--%s (%s) is not in the option table", name, keys);
    return NULL;
}

static bool type_fits(const dr_opt_spec *s, const char *type, bool many)
{
    switch (s->type) {
    case DR_OPT_TYPE_FLAG:
        return strcmp(type, "flag") == 0;
    case DR_OPT_TYPE_INT:
        return strcmp(type, "int") == 0;
    case DR_OPT_TYPE_FLOAT:
        return strcmp(type, "float") == 0 && !many;
    case DR_OPT_TYPE_FLOATS:
        return strcmp(type, "float") == 0 && many;
    case DR_OPT_TYPE_STEPS:
        return strcmp(type, "int_or_float") == 0;
    case DR_OPT_TYPE_STRS:
        return strcmp(type, "str") == 0 && many;
    case DR_OPT_TYPE_STR:
    case DR_OPT_TYPE_CHOICE:
    case DR_OPT_TYPE_NAME:
        return (strcmp(type, "str") == 0 || strcmp(type, "Path") == 0) && !many;
    case DR_OPT_TYPE_EACH:
    case DR_OPT_TYPE_PAIR:
        break;
    }
    return false;
}

static bool default_fits(const dr_opt_spec *s, const char *text)
{
    double want = 0.0;
    double ours = 0.0;
    if (s->type == DR_OPT_TYPE_FLAG) {
        return strcmp(text, "False") == 0;
    }
    if (strcmp(text, "None") == 0) {
        return s->def == NULL;
    }
    if (s->def == NULL) {
        return false;
    }
    if (dr_parse_f64(text, &want) && dr_parse_f64(s->def, &ours)) {
        return fabs(want - ours) <= 0.0;
    }
    return strcmp(s->def, text) == 0;
}

/* Every choice of sd-scripts stands in our list, available or not. */
static bool choices_fit(const dr_opt_spec *s, char *choices)
{
    dr_str ours = {0};
    dr_str_printf(&ours, "|%s|", s->range);
    bool all = true;
    for (char *c = choices; c != NULL && *c != '\0';) {
        char *bar = strchr(c, '|');
        if (bar != NULL) {
            *bar = '\0';
        }
        char plain[64];
        char later[64];
        (void)snprintf(plain, sizeof plain, "|%s|", c);
        (void)snprintf(later, sizeof later, "|~%s|", c);
        all = all && (strstr(dr_str_get(&ours), plain) != NULL ||
                      strstr(dr_str_get(&ours), later) != NULL);
        c = bar != NULL ? bar + 1 : NULL;
    }
    dr_str_free(&ours);
    return all;
}

static void table_is_that_of_sdscripts(void **state)
{
    (void)state;
    char *text = read_source("tests/unit/apps/sdscripts_options.tsv");
    char *at = text;
    char *f[MAX_FIELDS];
    int n = 0;
    int train_db = 0;
    int train_network = 0;
    while (next_row(&at, f, &n)) {
        assert_int_equal(n, 6);
        const dr_opt_spec *s = find(f[0], f[1]);
        if (!type_fits(s, f[2], strcmp(f[5], "*") == 0)) {
            fail_msg("--%s: type differs from %s %s", f[0], f[2], f[5]);
        }
        if (!default_fits(s, f[3])) {
            fail_msg("--%s: default '%s', sd-scripts has '%s'", f[0], s->def, f[3]);
        }
        if (!choices_fit(s, f[4])) {
            fail_msg("--%s: choices '%s' lack one of sd-scripts", f[0], s->range);
        }
        train_db += f[1][0] != 'n';
        train_network += f[1][0] != 'd';
    }
    assert_int_equal(train_db, 169); /* spec/sdscripts.md section 1 counts the same */
    assert_int_equal(train_network, 193);
    free(text);
}

static void table_has_no_other_option_before_our_own(void **state)
{
    (void)state;
    int count[2] = {0, 0};
    for (int id = 0; id < DR_OPT_GROUP_own; id++) {
        const dr_opt_spec *s = &dr_options_table()->specs[id];
        count[0] += s->name != NULL && (s->programs & 1U) != 0;
        count[1] += s->name != NULL && (s->programs & 2U) != 0;
    }
    assert_int_equal(count[0], 169 + N_WIDER);
    assert_int_equal(count[1], 193);
}

static void rows_are_complete(void **state)
{
    (void)state;
    for (int id = 0; id < DR_OPTION_COUNT; id++) {
        const dr_opt_spec *s = &dr_options_table()->specs[id];
        assert_non_null(s->help);
        assert_true(strlen(s->help) > 3);
        if (s->name == NULL) {
            continue;
        }
        bool says_why = s->availability == DR_OPT_REFUSED || s->availability == DR_OPT_NOTED;
        if (says_why && s->reason[0] == '\0') {
            fail_msg("--%s gives no reason", s->name);
        }
    }
}

/* What sd-scripts' parser made of an option: our value in Python's words. */
static void python_text(const dr_options *o, int id, char *buf, size_t size)
{
    const dr_opt_value *v = &o->values[id];
    char number[32];
    buf[0] = '\0';
    switch (o->table->specs[id].type) {
    case DR_OPT_TYPE_FLAG:
        (void)snprintf(buf, size, "%s", v->i != 0 ? "True" : "False");
        break;
    case DR_OPT_TYPE_INT:
        (void)snprintf(buf, size, "%lld", (long long)v->i);
        break;
    case DR_OPT_TYPE_STEPS:
        if (v->i > 0) {
            (void)snprintf(buf, size, "%lld", (long long)v->i);
            break;
        }
        /* fall through */
    case DR_OPT_TYPE_FLOAT:
        dr_float_repr(v->f, number);
        (void)snprintf(buf, size, "%s", number);
        break;
    case DR_OPT_TYPE_STRS:
        for (size_t i = 0; i < v->list.n; i++) {
            size_t len = strlen(buf);
            (void)snprintf(buf + len, size - len, "%s%s", i > 0 ? " " : "", v->list.at[i]);
        }
        break;
    default:
        (void)snprintf(buf, size, "%s", v->text);
    }
}

static int id_of(const char *name)
{
    for (int id = 0; id < DR_OPTION_COUNT; id++) {
        const char *s = dr_options_table()->specs[id].name;
        if (s != NULL && strcmp(s, name) == 0) {
            return id;
        }
    }
    fail_msg("no option %s", name);
    return -1;
}

static void command_lines_mean_what_argparse_makes_of_them(void **state)
{
    (void)state;
    char *text = read_source("tests/unit/apps/sdscripts_parse.tsv");
    char *at = text;
    char *f[MAX_FIELDS];
    int n = 0;
    int cases = 0;
    while (next_row(&at, f, &n)) {
        const char *argv[MAX_FIELDS];
        for (int i = 3; i < n; i++) {
            argv[i - 3] = f[i];
        }
        dr_options o;
        dr_options_init(&o, DR_PROGRAM_TRAIN_DB);
        dr_status st = dr_options_parse(&o, n - 3, argv);
        if ((st == DR_OK) != (strcmp(f[0], "ok") == 0)) {
            fail_msg("%s ...: %s, sd-scripts: %s", f[3], dr_error_message(), f[0]);
        }
        if (st == DR_OK) {
            char value[256];
            python_text(&o, id_of(f[1]), value, sizeof value);
            assert_string_equal(value, f[2]);
        }
        dr_options_deinit(&o);
        cases++;
    }
    assert_int_equal(cases, 58);
    free(text);
}

static void help_fits_eighty_columns_and_names_everything(void **state)
{
    (void)state;
    for (int program = 0; program < 2; program++) {
        dr_str help = {0};
        dr_options_help((dr_program)program, &help);
        const char *text = dr_str_get(&help);
        for (const char *line = text; line != NULL && *line != '\0';) {
            const char *end = strchr(line, '\n');
            assert_non_null(end);
            if (end - line > 80) {
                fail_msg("a line of --help is too long: %.*s", (int)(end - line), line);
            }
            line = end + 1;
        }
        for (int id = 0; id < DR_OPTION_COUNT; id++) {
            const dr_opt_spec *s = &dr_options_table()->specs[id];
            char head[80];
            (void)snprintf(head, sizeof head, "  --%s", s->name != NULL ? s->name : "");
            bool ours = s->name != NULL && (s->programs >> (unsigned)program & 1U) != 0;
            if (ours && strstr(text, head) == NULL) {
                fail_msg("--help lacks --%s", s->name);
            }
        }
        dr_str_free(&help);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_is_that_of_sdscripts),
        cmocka_unit_test(table_has_no_other_option_before_our_own),
        cmocka_unit_test(rows_are_complete),
        cmocka_unit_test(command_lines_mean_what_argparse_makes_of_them),
        cmocka_unit_test(help_fits_eighty_columns_and_names_everything),
    };
    return DR_TEST_MAIN("option_list", tests);
}
