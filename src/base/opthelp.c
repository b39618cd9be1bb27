/* --help and the Markdown page, both from the option table. */
#include "base/optparse_internal.h"

#include <string.h>

enum { COLUMNS = 80, INDENT = 6 };

const char *dr_opt_availability_text(dr_opt_availability a)
{
    switch (a) {
    case DR_OPT_NOTED:
        return "accepted, changes nothing";
    case DR_OPT_LATER:
        return "not available yet";
    case DR_OPT_REFUSED:
        return "not supported";
    case DR_OPT_AVAILABLE:
        break;
    }
    return "";
}

static const char *placeholder(const dr_opt_spec *s)
{
    switch (s->type) {
    case DR_OPT_TYPE_INT:
        return " N";
    case DR_OPT_TYPE_FLOAT:
        return " X";
    case DR_OPT_TYPE_STR:
    case DR_OPT_TYPE_EACH:
        return " TEXT";
    case DR_OPT_TYPE_CHOICE:
    case DR_OPT_TYPE_NAME:
        return " NAME";
    case DR_OPT_TYPE_STEPS:
        return " N|RATIO|P%";
    case DR_OPT_TYPE_STRS:
        return " [TEXT ...]";
    case DR_OPT_TYPE_FLOATS:
        return " [X ...]";
    case DR_OPT_TYPE_PAIR:
        return " KEY VALUE";
    case DR_OPT_TYPE_FLAG:
        break;
    }
    return "";
}

/* "a|b|~c" as "a, b; not yet: c". */
static void add_choices(const char *range, dr_str *out)
{
    for (int later = 0; later <= 1; later++) {
        int n = 0;
        for (const char *p = range; p != NULL;) {
            const char *bar = strchr(p, '|');
            size_t len = bar != NULL ? (size_t)(bar - p) : strlen(p);
            if ((*p == '~') == (later == 1)) {
                const char *first = later == 1 ? (out->len > 0 ? "; not yet: " : "not yet: ") : "";
                dr_str_add(out, n++ > 0 ? ", " : first);
                dr_str_add_n(out, p + later, len - (size_t)later);
            }
            p = bar != NULL ? bar + 1 : NULL;
        }
    }
}

static bool has_choices(const dr_opt_spec *s)
{
    return s->type == DR_OPT_TYPE_CHOICE || s->type == DR_OPT_TYPE_NAME;
}

static void add_range(const dr_opt_spec *s, dr_str *out)
{
    if (has_choices(s) || strchr(s->range, '|') != NULL) {
        add_choices(s->range, out);
    } else {
        dr_str_add(out, s->range);
    }
}

static void add_default(const dr_opt_spec *s, dr_str *out)
{
    if (s->type == DR_OPT_TYPE_FLAG) {
        dr_str_add(out, "off");
    } else if (s->def != NULL) {
        dr_str_add(out, s->def[0] != '\0' ? s->def : "empty");
    }
}

/* The text of one option: help (range; unit; default). */
static void describe(const dr_opt_spec *s, dr_str *out)
{
    dr_str range = {0};
    add_range(s, &range);
    dr_str_add(out, s->help);
    dr_str facts = {0};
    dr_str_add(&facts, dr_str_get(&range));
    if (s->unit[0] != '\0') {
        dr_str_printf(&facts, "%s%s", facts.len > 0 ? "; " : "", s->unit);
    }
    if (s->def != NULL && s->type != DR_OPT_TYPE_FLAG) {
        dr_str_printf(&facts, "%sdefault %s", facts.len > 0 ? "; " : "",
                      s->def[0] != '\0' ? s->def : "empty");
    }
    if (facts.len > 0) {
        dr_str_printf(out, " (%s)", dr_str_get(&facts));
    }
    const char *note = dr_opt_availability_text(s->availability);
    if (note[0] != '\0') {
        dr_str_printf(out, " [%s%s%s]", note, s->reason[0] != '\0' ? ": " : "", s->reason);
    }
    dr_str_free(&facts);
    dr_str_free(&range);
}

/* Adds text in lines of at most COLUMNS characters, indented; words are never cut. */
static void add_wrapped(const char *text, dr_str *out)
{
    size_t column = 0;
    while (*text != '\0') {
        size_t n = strcspn(text, " ");
        if (column == 0 || column + 1 + n > COLUMNS) {
            dr_str_printf(out, "%s%*s", column > 0 ? "\n" : "", INDENT, "");
            column = INDENT;
        } else {
            dr_str_add(out, " ");
            column++;
        }
        dr_str_add_n(out, text, n);
        column += n;
        text += n;
        text += strspn(text, " ");
    }
    dr_str_add(out, "\n");
}

static bool group_is_empty(const dr_optset *o, int id)
{
    for (int i = id + 1; i < o->table->n && o->table->specs[i].name != NULL; i++) {
        if (dr_opt_in_program(o, &o->table->specs[i])) {
            return false;
        }
    }
    return true;
}

void dr_optset_help(const dr_optset *o, dr_str *out)
{
    for (int id = 0; id < o->table->n; id++) {
        const dr_opt_spec *s = &o->table->specs[id];
        if (s->name == NULL && !group_is_empty(o, id)) {
            dr_str_printf(out, "\n%s:\n", s->help);
        }
        if (!dr_opt_in_program(o, s)) {
            continue;
        }
        if (s->letter != 0) {
            dr_str_printf(out, "  -%c, --%s%s\n", s->letter, s->name, placeholder(s));
        } else {
            dr_str_printf(out, "  --%s%s\n", s->name, placeholder(s));
        }
        dr_str text = {0};
        describe(s, &text);
        add_wrapped(dr_str_get(&text), out);
        dr_str_free(&text);
    }
    dr_str_add(out, "\n  -h, --help\n      Shows this text.\n");
}

/* Table cells may hold no bare '|', and no '<' that would start a tag. */
static void add_cell(const char *text, dr_str *out)
{
    dr_str_add(out, "| ");
    for (const char *p = text; *p != '\0'; p++) {
        if (*p == '<') {
            dr_str_add(out, "&lt;");
            continue;
        }
        dr_str_printf(out, "%s%c", *p == '|' || *p == '*' ? "\\" : "", *p);
    }
    dr_str_add(out, " ");
}

static void add_programs(const dr_opt_table *t, const dr_opt_spec *s, dr_str *out)
{
    dr_str names = {0};
    for (int i = 0; i < t->n_programs; i++) {
        if ((s->programs >> (unsigned)i & 1U) != 0) {
            dr_str_printf(&names, "%s%s", names.len > 0 ? ", " : "", t->programs[i]);
        }
    }
    add_cell(dr_str_get(&names), out);
    dr_str_free(&names);
}

static void add_row(const dr_opt_table *t, const dr_opt_spec *s, dr_str *out)
{
    dr_str cell = {0};
    dr_str_printf(out, "| `--%s%s` ", s->name,
                  s->type == DR_OPT_TYPE_STEPS ? " N" : placeholder(s));
    if (t->n_programs > 1) {
        add_programs(t, s, out);
    }
    add_default(s, &cell);
    add_cell(dr_str_get(&cell), out);
    dr_str_free(&cell);
    add_range(s, &cell);
    if (s->unit[0] != '\0') {
        dr_str_printf(&cell, "%s%s", cell.len > 0 ? "; " : "", s->unit);
    }
    add_cell(dr_str_get(&cell), out);
    dr_str_free(&cell);
    const char *note = dr_opt_availability_text(s->availability);
    dr_str_printf(&cell, "%s%s%s", note, note[0] != '\0' && s->reason[0] != '\0' ? ": " : "",
                  s->reason);
    add_cell(note[0] != '\0' ? dr_str_get(&cell) : "yes", out);
    add_cell(s->help, out);
    dr_str_add(out, "|\n");
    dr_str_free(&cell);
}

void dr_opt_table_markdown(const dr_opt_table *t, dr_str *out)
{
    bool several = t->n_programs > 1;
    for (int id = 0; id < t->n; id++) {
        const dr_opt_spec *s = &t->specs[id];
        if (s->name != NULL) {
            add_row(t, s, out);
            continue;
        }
        dr_str_printf(out, "\n## %s\n\n| option %s| default | values | available | meaning |\n",
                      s->help, several ? "| programs " : "");
        dr_str_printf(out, "|---|---%s|---|---|---|\n", several ? "|---" : "");
    }
}
