#include "io/config_doc.h"

#include "base/file.h"
#include "io/json.h"
#include "io/toml_internal.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MAX_FILE_BYTES = 16 << 20 };

void dr_config_close(dr_config_doc *d)
{
    if (d != NULL) {
        dr_arena_deinit(&d->arena);
        free(d);
    }
}

const dr_config_value *dr_config_root(const dr_config_doc *d)
{
    return d->root;
}

const char *dr_config_source(const dr_config_doc *d)
{
    return d->source;
}

const dr_config_value *dr_config_find(const dr_config_value *table, const char *name)
{
    DR_CHECK(table->kind == DR_CONFIG_TABLE, "a member of %s", dr_config_kind_name(table->kind));
    for (size_t i = 0; i < table->n; i++) {
        if (strcmp(table->members[i].name, name) == 0) {
            return table->members[i].value;
        }
    }
    return NULL;
}

const char *dr_config_kind_name(dr_config_kind kind)
{
    static const char *const names[] = {"true or false",  "a whole number", "a number", "text",
                                        "a date or time", "null",           "a list",   "a table"};
    return names[kind];
}

bool dr_config_is_plain(const dr_config_value *v)
{
    return v->kind == DR_CONFIG_STRING && strlen(v->text) == v->n;
}

void dr_config_place(const dr_config_doc *d, int line, int column, dr_str *out)
{
    dr_str_add(out, d->source);
    if (line > 0) {
        dr_str_printf(out, ":%d:%d", line, column);
    }
}

void dr_toml_add_string(dr_str *s, const char *text)
{
    dr_str_add(s, "\"");
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\') {
            dr_str_printf(s, "\\%c", *text);
        } else if ((unsigned char)*text < 0x20 || *text == 0x7f) {
            dr_str_printf(s, "\\u%04X", (unsigned)(unsigned char)*text);
        } else {
            dr_str_add_n(s, text, 1);
        }
    }
    dr_str_add(s, "\"");
}

/* --- JSON ----------------------------------------------------------------------------------------
 */

typedef struct json_level { /* a container whose elements are being copied */
    const dr_json_value *from;
    dr_config_value *to;
    dr_json_iter iter;
    size_t next;
} json_level;

static dr_config_value *copy_scalar(dr_config_doc *d, const dr_json_value *from)
{
    dr_config_value *v = dr_arena_alloc(&d->arena, sizeof *v);
    switch (dr_json_kind_of_value(from)) {
    case DR_JSON_BOOL:
        v->kind = DR_CONFIG_BOOL;
        v->i = dr_json_bool_value(from);
        break;
    case DR_JSON_INT:
        v->kind = DR_CONFIG_INT;
        v->i = dr_json_int_value(from);
        v->f = (double)v->i;
        break;
    case DR_JSON_REAL:
        v->kind = DR_CONFIG_REAL;
        v->f = dr_json_real_value(from);
        break;
    case DR_JSON_STRING:
        v->kind = DR_CONFIG_STRING;
        v->text = dr_arena_strdup(&d->arena, dr_json_string_value(from));
        v->n = strlen(v->text);
        break;
    case DR_JSON_LIST:
        v->kind = DR_CONFIG_LIST;
        v->items = dr_arena_array(&d->arena, dr_json_size(from) + 1, sizeof *v->items);
        break;
    case DR_JSON_OBJECT:
        v->kind = DR_CONFIG_TABLE;
        v->members = dr_arena_array(&d->arena, dr_json_size(from) + 1, sizeof *v->members);
        break;
    case DR_JSON_ABSENT:
    case DR_JSON_NULL:
        v->kind = DR_CONFIG_NULL;
        break;
    }
    return v;
}

/* The next element of a level, copied and put into its place; NULL at the end. */
static const dr_json_value *copy_next(dr_config_doc *d, json_level *l, dr_config_value **to)
{
    const dr_json_value *from = NULL;
    if (l->to->kind == DR_CONFIG_LIST) {
        if (l->next == dr_json_size(l->from)) {
            return NULL;
        }
        from = dr_json_item(l->from, l->next++);
        *to = copy_scalar(d, from);
        l->to->items[l->to->n++] = *to;
        return from;
    }
    if (!dr_json_next(l->from, &l->iter)) {
        return NULL;
    }
    from = l->iter.value;
    *to = copy_scalar(d, from);
    l->to->members[l->to->n++] =
        (dr_config_member){.name = dr_arena_strdup(&d->arena, l->iter.name), .value = *to};
    return from;
}

static bool is_container(const dr_config_value *v)
{
    return v->kind == DR_CONFIG_LIST || v->kind == DR_CONFIG_TABLE;
}

static void copy_json(dr_config_doc *d, const dr_json_doc *json)
{
    enum { MAX_LEVELS = 2050 }; /* json.h allows 2048 */
    json_level *levels = dr_xcalloc(MAX_LEVELS, sizeof *levels);
    size_t n = 0;
    d->root = copy_scalar(d, dr_json_root(json));
    if (is_container(d->root)) {
        levels[n++] = (json_level){.from = dr_json_root(json), .to = d->root};
    }
    while (n > 0) {
        dr_config_value *to = NULL;
        const dr_json_value *from = copy_next(d, &levels[n - 1], &to);
        if (from == NULL) {
            n--;
        } else if (is_container(to)) {
            DR_CHECK(n < MAX_LEVELS, "JSON nests deeper than its reader allows");
            levels[n++] = (json_level){.from = from, .to = to};
        }
    }
    free(levels);
}

static dr_status open_json(dr_config_doc **out, const char *path)
{
    dr_json_doc *json = NULL;
    DR_TRY(dr_json_open(&json, path));
    dr_config_doc *d = dr_xcalloc(1, sizeof *d);
    dr_arena_init(&d->arena);
    d->source = dr_arena_strdup(&d->arena, path);
    copy_json(d, json);
    dr_json_close(json);
    *out = d;
    return DR_OK;
}

/* --- files --------------------------------------------------------------------------------------
 */

static bool has_ending(const char *path, const char *ending)
{
    size_t n = strlen(path);
    size_t m = strlen(ending);
    return n >= m && strcasecmp(path + n - m, ending) == 0;
}

dr_status dr_config_open(dr_config_doc **out, const char *path)
{
    *out = NULL;
    if (has_ending(path, ".json")) {
        return open_json(out, path);
    }
    if (!has_ending(path, ".toml")) {
        DR_FAIL(DR_INVALID, "%s: expected a file that ends in .toml or .json", path);
    }
    char *text = NULL;
    size_t n = 0;
    DR_TRY(dr_file_read(path, MAX_FILE_BYTES, &text, &n));
    dr_status st = dr_toml_parse(out, path, text, n);
    free(text);
    return st;
}
