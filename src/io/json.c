#include "io/json.h"

#include "base/arena.h"
#include "base/file.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILE_BYTES = 64 * 1024 * 1024 };

struct dr_json_doc {
    json_t *root;
    char *source;
};

static json_t *to_jansson(const dr_json_value *v)
{
    return (json_t *)(uintptr_t)v; /* jansson's readers take non-const pointers */
}

static const dr_json_value *from_jansson(const json_t *v)
{
    return (const dr_json_value *)v;
}

dr_status dr_json_parse(dr_json_doc **out, const char *source, const void *text, size_t n)
{
    *out = NULL;
    json_error_t err;
    json_t *root = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &err);
    if (root == NULL && json_error_code(&err) == json_error_out_of_memory) {
        DR_FAIL(DR_NOMEM, "%s: out of host memory while reading %zu bytes of JSON", source, n);
    }
    if (root == NULL) {
        DR_FAIL(DR_FORMAT, "%s: not valid JSON at line %d, column %d (byte %d of %zu): %s", source,
                err.line, err.column, err.position, n, err.text);
    }
    dr_json_doc *d = dr_xcalloc(1, sizeof *d);
    d->root = root;
    d->source = dr_xcalloc(strlen(source) + 1, 1);
    memcpy(d->source, source, strlen(source));
    *out = d;
    return DR_OK;
}

dr_status dr_json_open(dr_json_doc **out, const char *path)
{
    *out = NULL;
    char *text = NULL;
    size_t n = 0;
    DR_TRY(dr_file_read(path, MAX_FILE_BYTES, &text, &n));
    dr_status st = dr_json_parse(out, path, text, n);
    free(text);
    return st;
}

void dr_json_close(dr_json_doc *d)
{
    if (d != NULL) {
        json_decref(d->root);
        free(d->source);
        free(d);
    }
}

const dr_json_value *dr_json_root(const dr_json_doc *d)
{
    return from_jansson(d->root);
}

dr_json_kind dr_json_kind_of_value(const dr_json_value *v)
{
    if (v == NULL) {
        return DR_JSON_ABSENT;
    }
    switch (json_typeof(to_jansson(v))) {
    case JSON_OBJECT:
        return DR_JSON_OBJECT;
    case JSON_ARRAY:
        return DR_JSON_LIST;
    case JSON_STRING:
        return DR_JSON_STRING;
    case JSON_INTEGER:
        return DR_JSON_INT;
    case JSON_REAL:
        return DR_JSON_REAL;
    case JSON_TRUE:
    case JSON_FALSE:
        return DR_JSON_BOOL;
    case JSON_NULL:
        break;
    }
    return DR_JSON_NULL;
}

size_t dr_json_size(const dr_json_value *v)
{
    const json_t *j = to_jansson(v);
    return json_is_object(j) ? json_object_size(j) : json_array_size(j);
}

const dr_json_value *dr_json_item(const dr_json_value *list, size_t i)
{
    return from_jansson(json_array_get(to_jansson(list), i));
}

const dr_json_value *dr_json_member(const dr_json_value *object, const char *name)
{
    return from_jansson(json_object_get(to_jansson(object), name));
}

bool dr_json_next(const dr_json_value *object, dr_json_iter *it)
{
    json_t *j = to_jansson(object);
    it->state = it->state == NULL ? json_object_iter(j) : json_object_iter_next(j, it->state);
    if (it->state == NULL) {
        return false;
    }
    it->name = json_object_iter_key(it->state);
    it->value = from_jansson(json_object_iter_value(it->state));
    return true;
}

int64_t dr_json_int_value(const dr_json_value *v)
{
    return json_integer_value(to_jansson(v));
}

double dr_json_real_value(const dr_json_value *v)
{
    return json_number_value(to_jansson(v));
}

bool dr_json_bool_value(const dr_json_value *v)
{
    return json_is_true(to_jansson(v));
}

const char *dr_json_string_value(const dr_json_value *v)
{
    const char *text = json_string_value(to_jansson(v));
    return text != NULL ? text : "";
}

/* One step of a key path: a member's name or a list's index. */
static const json_t *step_into(const json_t *v, const char *part, size_t n)
{
    if (json_is_object(v)) {
        return json_object_getn(v, part, n);
    }
    char digits[24] = "";
    int64_t i = 0;
    if (!json_is_array(v) || n >= sizeof digits) {
        return NULL;
    }
    memcpy(digits, part, n);
    return dr_parse_i64(digits, &i) && i >= 0 ? json_array_get(v, (size_t)i) : NULL;
}

static const json_t *find_path(const dr_json_doc *d, const char *key)
{
    const json_t *v = d->root;
    const char *part = key;
    while (v != NULL && *part != '\0') {
        size_t n = strcspn(part, "/");
        v = step_into(v, part, n);
        part += part[n] == '/' ? n + 1 : n;
    }
    return v;
}

dr_json_kind dr_json_kind_of(const dr_json_doc *d, const char *key)
{
    return dr_json_kind_of_value(from_jansson(find_path(d, key)));
}

static const char *kind_name(dr_json_kind k)
{
    static const char *const names[] = {"nothing",       "null",     "true or false", "an integer",
                                        "a real number", "a string", "a list",        "an object"};
    return names[k];
}

/* Looks the key up; absent and null become *v = NULL, or an error when found is NULL. */
static dr_status look_up(const dr_json_doc *d, const char *key, const char *expected,
                         const bool *found, const json_t **v)
{
    *v = find_path(d, key);
    if (*v != NULL && json_is_null(*v)) {
        *v = NULL;
    }
    if (*v == NULL && found == NULL) {
        DR_FAIL(DR_FORMAT, "%s: key '%s' is missing; expected %s", d->source, key, expected);
    }
    return DR_OK;
}

static dr_status wrong_kind(const dr_json_doc *d, const char *key, const char *expected,
                            const json_t *v)
{
    DR_FAIL(DR_FORMAT, "%s: key '%s' is %s, expected %s", d->source, key,
            kind_name(dr_json_kind_of_value(from_jansson(v))), expected);
}

static void set_found(bool *found, bool value)
{
    if (found != NULL) {
        *found = value;
    }
}

dr_status dr_json_get_int(const dr_json_doc *d, const char *key, int64_t *out, bool *found)
{
    const json_t *v = NULL;
    DR_TRY(look_up(d, key, "an integer", found, &v));
    if (v != NULL && !json_is_integer(v)) {
        return wrong_kind(d, key, "an integer", v);
    }
    if (v != NULL) {
        *out = json_integer_value(v);
    }
    set_found(found, v != NULL);
    return DR_OK;
}

dr_status dr_json_get_double(const dr_json_doc *d, const char *key, double *out, bool *found)
{
    const json_t *v = NULL;
    DR_TRY(look_up(d, key, "a number", found, &v));
    if (v != NULL && !json_is_number(v)) {
        return wrong_kind(d, key, "a number", v);
    }
    if (v != NULL) {
        *out = json_number_value(v);
    }
    set_found(found, v != NULL);
    return DR_OK;
}

dr_status dr_json_get_bool(const dr_json_doc *d, const char *key, bool *out, bool *found)
{
    const json_t *v = NULL;
    DR_TRY(look_up(d, key, "true or false", found, &v));
    if (v != NULL && !json_is_boolean(v)) {
        return wrong_kind(d, key, "true or false", v);
    }
    if (v != NULL) {
        *out = json_is_true(v);
    }
    set_found(found, v != NULL);
    return DR_OK;
}

dr_status dr_json_get_string(const dr_json_doc *d, const char *key, const char **out, bool *found)
{
    const json_t *v = NULL;
    DR_TRY(look_up(d, key, "a string", found, &v));
    if (v != NULL && !json_is_string(v)) {
        return wrong_kind(d, key, "a string", v);
    }
    if (v != NULL) {
        *out = json_string_value(v);
    }
    set_found(found, v != NULL);
    return DR_OK;
}

/* The list at key (NULL when absent), all of whose elements are of the given kind. */
static dr_status look_up_list(const dr_json_doc *d, const char *key, dr_json_kind kind,
                              const bool *found, const json_t **list)
{
    const char *expected = kind == DR_JSON_INT ? "a list of integers" : "a list of strings";
    DR_TRY(look_up(d, key, expected, found, list));
    if (*list == NULL) {
        return DR_OK;
    }
    if (!json_is_array(*list)) {
        return wrong_kind(d, key, expected, *list);
    }
    for (size_t i = 0; i < json_array_size(*list); i++) {
        dr_json_kind k = dr_json_kind_of_value(from_jansson(json_array_get(*list, i)));
        if (k != kind) {
            DR_FAIL(DR_FORMAT, "%s: element %zu of key '%s' is %s, expected %s", d->source, i, key,
                    kind_name(k), expected);
        }
    }
    return DR_OK;
}

dr_status dr_json_get_ints(const dr_json_doc *d, const char *key, dr_json_ints *out, bool *found)
{
    const json_t *list = NULL;
    DR_TRY(look_up_list(d, key, DR_JSON_INT, found, &list));
    if (list != NULL) {
        out->n = json_array_size(list);
        out->at = dr_xcalloc(out->n, sizeof out->at[0]);
        for (size_t i = 0; i < out->n; i++) {
            out->at[i] = json_integer_value(json_array_get(list, i));
        }
    }
    set_found(found, list != NULL);
    return DR_OK;
}

void dr_json_ints_free(dr_json_ints *v)
{
    free(v->at);
    *v = (dr_json_ints){0};
}

dr_status dr_json_get_strings(const dr_json_doc *d, const char *key, dr_strv *out, bool *found)
{
    const json_t *list = NULL;
    DR_TRY(look_up_list(d, key, DR_JSON_STRING, found, &list));
    for (size_t i = 0; i < json_array_size(list); i++) {
        dr_strv_push(out, json_string_value(json_array_get(list, i)));
    }
    set_found(found, list != NULL);
    return DR_OK;
}

bool dr_json_utf8_valid(const char *text)
{
    json_t *s = json_string(text); /* refuses what is not UTF-8 */
    json_decref(s);
    return s != NULL;
}

void dr_json_add_string(dr_str *s, const char *text)
{
    static const char plain[] = "\"\\\b\f\n\r\t";
    static const char letter[] = "\"\\bfnrt";
    dr_str_add(s, "\"");
    const char *run = text;
    for (const char *p = text; *p != '\0'; p++) {
        const char *hit = strchr(plain, *p);
        if (hit == NULL && (unsigned char)*p >= 0x20) {
            continue;
        }
        dr_str_add_n(s, run, (size_t)(p - run));
        if (hit != NULL) {
            dr_str_printf(s, "\\%c", letter[hit - plain]);
        } else {
            dr_str_printf(s, "\\u%04x", (unsigned)(unsigned char)*p);
        }
        run = p + 1;
    }
    dr_str_add(s, run);
    dr_str_add(s, "\"");
}

void dr_json_add_double(dr_str *s, double v)
{
    char text[32];
    dr_float_repr(v, text);
    dr_str_add(s, isfinite(v) ? text : "null");
}
