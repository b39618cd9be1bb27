#include "apps/config_file.h"

#include "base/file.h"
#include "base/log.h"
#include "io/config_doc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The value of --config_file with its ending; the caller frees it. */
static char *config_path(const dr_options *o)
{
    const char *given = dr_opt_str(o, DR_OPT_config_file);
    dr_str path = {0};
    dr_str_printf(&path, "%s%s", given, dr_str_ends(given, ".toml") ? "" : ".toml");
    return path.data;
}

static const dr_opt_spec *spec_of(int id)
{
    return &dr_options_table()->specs[id];
}

static bool takes_list(dr_opt_type type)
{
    return type == DR_OPT_TYPE_STRS || type == DR_OPT_TYPE_FLOATS;
}

/* --- reading ---------------------------------------------------------------------------------- */

static const char *expected_kind(dr_opt_type type)
{
    switch (type) {
    case DR_OPT_TYPE_FLAG:
        return "true or false";
    case DR_OPT_TYPE_INT:
        return "a whole number without quotes";
    case DR_OPT_TYPE_FLOAT:
        return "a number without quotes";
    case DR_OPT_TYPE_STEPS:
        return "a number, or a percentage in quotes";
    case DR_OPT_TYPE_STRS:
        return "a list of texts";
    case DR_OPT_TYPE_FLOATS:
        return "a number or a list of numbers";
    default:
        return "text in quotes";
    }
}

static bool fits(dr_opt_type type, const dr_config_value *v)
{
    bool number = v->kind == DR_CONFIG_INT || v->kind == DR_CONFIG_REAL;
    switch (type) {
    case DR_OPT_TYPE_FLAG:
        return v->kind == DR_CONFIG_BOOL;
    case DR_OPT_TYPE_INT:
        return v->kind == DR_CONFIG_INT;
    case DR_OPT_TYPE_FLOAT:
    case DR_OPT_TYPE_FLOATS:
        return number;
    case DR_OPT_TYPE_STEPS:
        return number || dr_config_is_plain(v);
    case DR_OPT_TYPE_STR:
        return number || dr_config_is_plain(v); /* output_name = 7 */
    default:
        return dr_config_is_plain(v);
    }
}

/* The value as a user would type it; NULL when its kind does not fit. The caller frees it. */
static char *text_of(dr_opt_type type, const dr_config_value *v)
{
    dr_str text = {0};
    char number[32];
    if (!fits(type, v)) {
        return NULL;
    }
    switch (v->kind) {
    case DR_CONFIG_BOOL:
        dr_str_add(&text, v->i != 0 ? "true" : "false");
        break;
    case DR_CONFIG_INT:
        dr_str_printf(&text, "%lld", (long long)v->i);
        break;
    case DR_CONFIG_REAL:
        dr_float_repr(v->f, number);
        dr_str_add(&text, number);
        break;
    default:
        dr_str_add(&text, v->text);
        break;
    }
    return text.data;
}

static dr_status refuse_kind(const char *name, const dr_opt_spec *s, const dr_config_value *v)
{
    DR_FAIL(DR_INVALID, "%s: found %s, expected %s", name, dr_config_kind_name(v->kind),
            expected_kind(s->type));
}

static dr_status set_list(dr_options *o, const char *name, const dr_opt_spec *s,
                          const dr_config_value *v)
{
    size_t n = v->kind == DR_CONFIG_LIST ? v->n : 1;
    char **texts = dr_xcalloc(n + 1, sizeof *texts);
    dr_status st = DR_OK;
    for (size_t i = 0; i < n && st == DR_OK; i++) {
        const dr_config_value *item = v->kind == DR_CONFIG_LIST ? v->items[i] : v;
        texts[i] = text_of(s->type, item);
        st = texts[i] == NULL ? refuse_kind(name, s, item) : DR_OK;
    }
    if (st == DR_OK) {
        st = dr_optset_set_list(o, name, (const char *const *)texts, n);
    }
    for (size_t i = 0; i < n; i++) {
        free(texts[i]);
    }
    free((void *)texts);
    return st;
}

static dr_status set_option(dr_options *o, const dr_config_member *m)
{
    int id = -1;
    DR_TRY(dr_optset_find(o, m->name, &id));
    if (id == DR_OPT_config_file || id == DR_OPT_output_config) {
        DR_FAIL(DR_INVALID, "%s has no place in a file of options", m->name);
    }
    const dr_opt_spec *s = spec_of(id);
    if (takes_list(s->type)) {
        return set_list(o, m->name, s, m->value);
    }
    char *text = text_of(s->type, m->value);
    if (text == NULL) {
        return refuse_kind(m->name, s, m->value);
    }
    dr_status st = dr_optset_set(o, m->name, text);
    free(text);
    return st;
}

static dr_status place_error(const dr_config_doc *d, const dr_config_member *m, dr_status st)
{
    dr_str place = {0};
    dr_config_place(d, m->line, m->column, &place);
    (void)dr_error_prefix(st, "%s", dr_str_get(&place));
    dr_str_free(&place);
    return st;
}

typedef struct key_list { /* of all tables, in the file's order */
    const dr_config_member **at;
    size_t n, cap;
} key_list;

static void add_key(key_list *keys, const dr_config_member *m)
{
    if (keys->n == keys->cap) {
        keys->cap = keys->cap > 0 ? keys->cap * 2 : 64;
        keys->at = dr_xrealloc((void *)keys->at, keys->cap, sizeof *keys->at);
    }
    keys->at[keys->n++] = m;
}

static dr_status collect(const dr_config_doc *d, key_list *keys)
{
    const dr_config_value *root = dr_config_root(d);
    for (size_t i = 0; i < root->n; i++) {
        const dr_config_member *m = &root->members[i];
        if (m->value->kind != DR_CONFIG_TABLE) {
            add_key(keys, m);
            continue;
        }
        for (size_t k = 0; k < m->value->n; k++) {
            const dr_config_member *inner = &m->value->members[k];
            if (inner->value->kind == DR_CONFIG_TABLE) {
                return place_error(
                    d, inner,
                    dr_error_set(DR_INVALID, __FILE__, __LINE__,
                                 "the table '%s' lies inside the table '%s'; options stand at the "
                                 "top or in tables of one level",
                                 inner->name, m->name));
            }
            add_key(keys, inner);
        }
    }
    return DR_OK;
}

static bool comes_again(const key_list *keys, size_t i)
{
    for (size_t k = i + 1; k < keys->n; k++) {
        if (strcmp(keys->at[k]->name, keys->at[i]->name) == 0) {
            return true;
        }
    }
    return false;
}

/* Of keys that several tables hold, the last one counts. */
static dr_status apply(dr_options *o, const dr_config_doc *d, const key_list *keys)
{
    for (size_t i = 0; i < keys->n; i++) {
        dr_status st = comes_again(keys, i) ? DR_OK : set_option(o, keys->at[i]);
        if (st != DR_OK) {
            return place_error(d, keys->at[i], st);
        }
    }
    return DR_OK;
}

dr_status dr_config_file_read(dr_options *o)
{
    if (!dr_opt_has(o, DR_OPT_config_file) || dr_opt_flag(o, DR_OPT_output_config)) {
        return DR_OK;
    }
    char *path = config_path(o);
    dr_config_doc *d = NULL;
    key_list keys = {0};
    dr_status st = DR_OK;
    if (!dr_path_exists(path)) {
        st = dr_error_set(DR_INVALID, __FILE__, __LINE__, "--config_file: %s does not exist", path);
    } else {
        st = dr_config_open(&d, path);
    }
    if (st == DR_OK) {
        st = collect(d, &keys);
    }
    if (st == DR_OK) {
        st = apply(o, d, &keys);
    }
    free((void *)keys.at);
    dr_config_close(d);
    free(path);
    return st;
}

/* --- writing ---------------------------------------------------------------------------------- */

static void add_number(dr_str *out, double v)
{
    char number[32];
    dr_float_repr(v, number);
    dr_str_add(out, number);
}

static void add_list(const dr_opt_spec *s, const dr_opt_value *v, dr_str *out)
{
    dr_str_add(out, "[");
    for (size_t i = 0; i < v->list.n; i++) {
        dr_str_add(out, i > 0 ? ", " : "");
        if (s->type == DR_OPT_TYPE_FLOATS) {
            double number = 0.0;
            (void)dr_parse_f64(v->list.at[i], &number); /* was checked when it was set */
            add_number(out, number);
        } else {
            dr_toml_add_string(out, v->list.at[i]);
        }
    }
    dr_str_add(out, "]");
}

static void add_option(const dr_opt_spec *s, const dr_opt_value *v, dr_str *out)
{
    dr_str_printf(out, "%s = ", s->name);
    switch (s->type) {
    case DR_OPT_TYPE_FLAG:
        dr_str_add(out, "true");
        break;
    case DR_OPT_TYPE_INT:
        dr_str_printf(out, "%lld", (long long)v->i);
        break;
    case DR_OPT_TYPE_FLOAT:
        add_number(out, v->f);
        break;
    case DR_OPT_TYPE_STEPS:
        if (v->i > 0) {
            dr_str_printf(out, "%lld", (long long)v->i);
        } else {
            add_number(out, v->f);
        }
        break;
    case DR_OPT_TYPE_STRS:
    case DR_OPT_TYPE_FLOATS:
        add_list(s, v, out);
        break;
    default:
        dr_toml_add_string(out, v->text);
        break;
    }
    dr_str_add(out, "\n");
}

static bool is_written(const dr_options *o, int id)
{
    const dr_opt_spec *s = spec_of(id);
    if (s->name == NULL || (s->programs >> (unsigned)o->program & 1U) == 0 ||
        !o->values[id].given || id == DR_OPT_config_file || id == DR_OPT_output_config) {
        return false;
    }
    if (id == DR_OPT_wandb_api_key || id == DR_OPT_huggingface_token) {
        dr_warn("--%s is a secret: it is not written to the file", s->name);
        return false;
    }
    return !dr_optset_at_default(o, id);
}

dr_status dr_config_file_write(const dr_options *o)
{
    if (!dr_opt_has(o, DR_OPT_config_file)) {
        DR_FAIL(DR_INVALID, "--output_config needs --config_file: the file to write");
    }
    char *path = config_path(o);
    if (dr_path_exists(path)) {
        dr_status st = dr_error_set(DR_OUTPUT, __FILE__, __LINE__,
                                    "--output_config: %s exists already; choose another name, or "
                                    "remove it",
                                    path);
        free(path);
        return st;
    }
    dr_str text = {0};
    dr_str_add(&text, "");
    for (int id = 0; id < DR_OPTION_COUNT; id++) {
        if (is_written(o, id)) {
            add_option(spec_of(id), &o->values[id], &text);
        }
    }
    dr_status st = dr_file_write(path, text.data, text.len);
    if (st == DR_OK) {
        dr_info("options saved to %s", path);
    }
    dr_str_free(&text);
    free(path);
    return st;
}
