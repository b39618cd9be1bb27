/* Option values: parsing one, defaults, availability. */
#include "base/optparse_internal.h"

#include "base/log.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

bool dr_opt_is_family(const dr_opt_spec *s)
{
    return s->name != NULL && dr_str_ends(s->name, "*");
}

bool dr_opt_in_program(const dr_optset *o, const dr_opt_spec *s)
{
    return s->name != NULL && (s->programs >> (unsigned)o->program & 1U) != 0;
}

/* --- values ------------------------------------------------------------------------------ */

/* Whether word is one of "a|b|~c"; *entry gets the entry without its mark, *later the mark. */
static bool find_choice(const char *range, const char *word, bool any_case, const char **entry,
                        size_t *len, bool *later)
{
    for (const char *p = range; p != NULL && *p != '\0';) {
        const char *bar = strchr(p, '|');
        size_t n = bar != NULL ? (size_t)(bar - p) : strlen(p);
        bool marked = *p == '~';
        const char *e = marked ? p + 1 : p;
        size_t m = marked ? n - 1 : n;
        if (strlen(word) == m && (any_case ? strncasecmp(e, word, m) : strncmp(e, word, m)) == 0) {
            *entry = e;
            *len = m;
            *later = marked;
            return true;
        }
        p = bar != NULL ? bar + 1 : NULL;
    }
    return false;
}

/* "a|b|~c" as "a, b, c"; or, with only_available, as "a, b". */
static void list_choices(const char *range, bool only_available, dr_str *out)
{
    for (const char *p = range; p != NULL;) {
        const char *bar = strchr(p, '|');
        size_t n = bar != NULL ? (size_t)(bar - p) : strlen(p);
        bool marked = *p == '~';
        if (!(marked && only_available)) {
            dr_str_add(out, out->len > 0 ? ", " : "");
            dr_str_add_n(out, marked ? p + 1 : p, marked ? n - 1 : n);
        }
        p = bar != NULL ? bar + 1 : NULL;
    }
}

static dr_status refuse_choice(const dr_opt_spec *s, const char *text)
{
    dr_str all = {0};
    list_choices(s->range, false, &all);
    dr_status st =
        dr_error_set(DR_INVALID, __FILE__, __LINE__, "--%s: found '%s', expected one of %s",
                     s->name, text, dr_str_get(&all));
    dr_str_free(&all);
    return st;
}

static bool in_range(const char *range, double v)
{
    const char *dots = strstr(range, "..");
    if (dots != NULL) {
        return v >= strtod(range, NULL) && v <= strtod(dots + 2, NULL);
    }
    if (dr_str_starts(range, ">=")) {
        return v >= strtod(range + 2, NULL);
    }
    if (dr_str_starts(range, "<=")) {
        return v <= strtod(range + 2, NULL);
    }
    return range[0] != '>' || v > strtod(range + 1, NULL);
}

static dr_status check_number(const dr_opt_spec *s, const char *text, double v)
{
    const char *entry = NULL;
    size_t len = 0;
    bool later = false;
    if (strchr(s->range, '|') != NULL) {
        return find_choice(s->range, text, false, &entry, &len, &later) ? DR_OK
                                                                        : refuse_choice(s, text);
    }
    if (!in_range(s->range, v)) {
        DR_FAIL(DR_INVALID, "--%s: found %s, expected a value %s%s%s%s", s->name, text,
                strstr(s->range, "..") != NULL ? "in " : "", s->range,
                s->unit[0] != '\0' ? " " : "", s->unit);
    }
    return DR_OK;
}

static dr_status parse_float(const dr_opt_spec *s, const char *text, double *out)
{
    if (!dr_parse_f64(text, out)) {
        DR_FAIL(DR_INVALID, "--%s: found '%s', expected a number", s->name, text);
    }
    return check_number(s, text, *out);
}

/* As the parser of sd-scripts: "5%" and 0.05 are ratios; from 1 on only an integer will do. */
static dr_status parse_steps(const dr_opt_spec *s, const char *text, dr_opt_value *v)
{
    char number[64];
    size_t n = strlen(text);
    bool percent = n > 0 && text[n - 1] == '%';
    if (n < sizeof number) {
        memcpy(number, text, n + 1);
        number[percent ? n - 1 : n] = '\0';
    }
    if (n >= sizeof number || !dr_parse_f64(number, &v->f)) {
        DR_FAIL(DR_INVALID,
                "--%s: found '%s', expected a number of steps, a ratio below 1 or a "
                "percentage such as 5%%",
                s->name, text);
    }
    v->f = percent ? v->f / 100.0 : v->f;
    v->i = 0;
    if (v->f < 0.0 || (percent && v->f > 1.0)) {
        DR_FAIL(DR_INVALID, "--%s: found '%s', expected %s", s->name, text,
                percent ? "0% to 100%" : "0 or more");
    }
    if (!percent && v->f >= 1.0 && !dr_parse_i64(number, &v->i)) {
        DR_FAIL(DR_INVALID,
                "--%s: found '%s', expected a whole number of steps without a decimal "
                "point, or a ratio below 1",
                s->name, text);
    }
    return DR_OK;
}

static dr_status parse_choice(dr_optset *o, const dr_opt_spec *s, const char *text,
                              const char **out)
{
    const char *entry = NULL;
    size_t len = 0;
    bool later = false;
    if (text[0] == '\0' && s->def != NULL && s->def[0] == '\0') {
        return DR_OK; /* empty is the default: see the option's help */
    }
    if (!find_choice(s->range, text, s->type == DR_OPT_TYPE_NAME, &entry, &len, &later)) {
        return refuse_choice(s, text);
    }
    *out = dr_arena_strndup(&o->arena, entry, len);
    return DR_OK;
}

dr_status dr_opt_parse_value(dr_optset *o, const dr_opt_spec *s, const char *text, dr_opt_value *v)
{
    double number = 0.0;
    v->text = dr_arena_strdup(&o->arena, text);
    switch (s->type) {
    case DR_OPT_TYPE_INT:
        if (!dr_parse_i64(text, &v->i)) {
            DR_FAIL(DR_INVALID, "--%s: found '%s', expected a whole number", s->name, text);
        }
        v->f = (double)v->i;
        DR_TRY(check_number(s, text, v->f));
        break;
    case DR_OPT_TYPE_FLOAT:
        DR_TRY(parse_float(s, text, &v->f));
        break;
    case DR_OPT_TYPE_STEPS:
        DR_TRY(parse_steps(s, text, v));
        break;
    case DR_OPT_TYPE_CHOICE:
    case DR_OPT_TYPE_NAME:
        DR_TRY(parse_choice(o, s, text, &v->text));
        break;
    case DR_OPT_TYPE_FLOATS:
        DR_TRY(parse_float(s, text, &number));
        dr_strv_push(&v->list, text);
        break;
    case DR_OPT_TYPE_STRS:
    case DR_OPT_TYPE_EACH:
    case DR_OPT_TYPE_PAIR:
        dr_strv_push(&v->list, text);
        break;
    case DR_OPT_TYPE_FLAG:
    case DR_OPT_TYPE_STR:
        break;
    }
    v->set = true;
    return DR_OK;
}

/* --- life and defaults ---------------------------------------------------------------------- */

static void set_default(dr_optset *o, int id)
{
    const dr_opt_spec *s = dr_opt_spec_of(o, id);
    dr_opt_value *v = &o->values[id];
    v->set = s->type == DR_OPT_TYPE_FLAG;
    if (s->def == NULL || s->type == DR_OPT_TYPE_FLAG) {
        return;
    }
    dr_status st = dr_opt_parse_value(o, s, s->def, v);
    DR_CHECK(st == DR_OK, "the default of --%s: %s", s->name, dr_error_message());
}

void dr_optset_init(dr_optset *o, const dr_opt_table *table, int program)
{
    DR_CHECK(program >= 0 && program < table->n_programs, "no program %d", program);
    memset(o, 0, sizeof *o);
    dr_arena_init(&o->arena);
    o->table = table;
    o->program = program;
    o->values = dr_arena_array(&o->arena, (size_t)table->n, sizeof *o->values);
    for (int id = 0; id < table->n; id++) {
        if (dr_opt_spec_of(o, id)->name != NULL && !dr_opt_is_family(dr_opt_spec_of(o, id))) {
            set_default(o, id);
        }
    }
}

void dr_optset_deinit(dr_optset *o)
{
    for (int id = 0; o->table != NULL && id < o->table->n; id++) {
        dr_strv_free(&o->values[id].list);
    }
    dr_arena_deinit(&o->arena);
    memset(o, 0, sizeof *o);
}

/* --- availability ---------------------------------------------------------------------------- */

static bool at_default(dr_optset *fresh, const dr_optset *o, int id)
{
    const dr_opt_spec *s = dr_opt_spec_of(o, id);
    const dr_opt_value *v = &o->values[id];
    const dr_opt_value *d = &fresh->values[id];
    if (s->type == DR_OPT_TYPE_FLAG || !d->set || v->list.n > 0) {
        return s->type == DR_OPT_TYPE_FLAG && v->i == 0;
    }
    bool number =
        s->type == DR_OPT_TYPE_INT || s->type == DR_OPT_TYPE_FLOAT || s->type == DR_OPT_TYPE_STEPS;
    return number ? fabs(v->f - d->f) <= 0.0 : strcmp(v->text, d->text) == 0;
}

static dr_status check_choice_available(const dr_opt_spec *s, const dr_opt_value *v)
{
    const char *entry = NULL;
    size_t len = 0;
    bool later = false;
    if ((s->type != DR_OPT_TYPE_CHOICE && s->type != DR_OPT_TYPE_NAME) ||
        !find_choice(s->range, v->text, false, &entry, &len, &later) || !later) {
        return DR_OK;
    }
    dr_str now = {0};
    list_choices(s->range, true, &now);
    dr_status st = dr_error_set(DR_UNSUPPORTED, __FILE__, __LINE__,
                                "--%s %s is not available yet; available: %s", s->name, v->text,
                                now.len > 0 ? dr_str_get(&now) : "none");
    dr_str_free(&now);
    return st;
}

static dr_status check_option_available(dr_optset *fresh, const dr_optset *o, int id)
{
    const dr_opt_spec *s = dr_opt_spec_of(o, id);
    const char *colon = s->reason[0] != '\0' ? ": " : "";
    switch (s->availability) {
    case DR_OPT_LATER:
        if (!at_default(fresh, o, id)) {
            DR_FAIL(DR_UNSUPPORTED, "--%s is not available yet%s%s", s->name, colon, s->reason);
        }
        break;
    case DR_OPT_REFUSED:
        if (!at_default(fresh, o, id)) {
            DR_FAIL(DR_UNSUPPORTED, "--%s is not supported%s%s", s->name, colon, s->reason);
        }
        break;
    case DR_OPT_NOTED:
        dr_info("--%s: %s", s->name, s->reason);
        break;
    case DR_OPT_AVAILABLE:
        return check_choice_available(s, &o->values[id]);
    }
    return DR_OK;
}

bool dr_optset_at_default(const dr_optset *o, int id)
{
    dr_optset fresh;
    dr_optset_init(&fresh, o->table, o->program);
    bool same = at_default(&fresh, o, id);
    dr_optset_deinit(&fresh);
    return same;
}

dr_status dr_optset_check_available(const dr_optset *o)
{
    dr_optset fresh;
    dr_optset_init(&fresh, o->table, o->program);
    dr_status st = DR_OK;
    for (int id = 0; id < o->table->n && st == DR_OK; id++) {
        if (o->values[id].given) {
            st = check_option_available(&fresh, o, id);
        }
    }
    dr_optset_deinit(&fresh);
    return st;
}
