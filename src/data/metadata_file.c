/*
 * Metadata files of fine-tuning datasets: pictures with captions and tags, named one by one.
 *
 *     .json    {"a/1.png": {"caption": "...", "tags": "..."}, ...}; keys may lack their ending
 *     .jsonl   {"image_path": "a/1.png", "caption": "...", "tags": "..."} on every line
 *
 * Source: sd-scripts' FineTuningDataset. Sizes are read from the pictures, not from the file.
 */
#include "base/file.h"
#include "base/log.h"
#include "data/folders_internal.h"
#include "data/pytext.h"
#include "io/json.h"

#include <stdlib.h>
#include <string.h>

#define MAX_FILE_BYTES ((size_t)2 << 30)

typedef struct reading {
    dr_arena *arena;
    const dr_subset_spec *spec;
    const char *separator;
    dr_problems *bad;
    dr_listed *at;
    size_t n, cap, n_bare;
} reading;

/* A string, or NULL for null and for what is not there. */
static dr_status take_text(const reading *r, const char *key, const dr_json_value *entry,
                           const char *name, const char **out)
{
    const dr_json_value *v = dr_json_member(entry, name);
    const dr_json_kind kind = dr_json_kind_of_value(v);
    *out = NULL;
    if (kind == DR_JSON_STRING) {
        *out = dr_json_string_value(v);
    } else if (kind != DR_JSON_ABSENT && kind != DR_JSON_NULL) {
        DR_FAIL(DR_FORMAT, "%s: '%s': %s is not text", r->spec->metadata_file, key, name);
    }
    return DR_OK;
}

/* Every line of the caption that is not blank, each with the tags behind it. */
static void add_lines(const char *caption, const char *tags, const char *separator, dr_str *out)
{
    while (*caption != '\0') {
        const size_t n = strcspn(caption, "\n");
        const char *stripped = caption;
        size_t left = n;
        dr_py_strip(&stripped, &left);
        if (left > 0) {
            dr_str_add(out, out->len > 0 ? "\n" : "");
            dr_str_add_n(out, caption, n);
            dr_str_printf(out, "%s%s", separator, tags);
        }
        caption += caption[n] == '\n' ? n + 1 : n;
    }
}

/* Caption and tags as one text. */
static const char *join(const reading *r, const char *caption, const char *tags)
{
    dr_str text = {0};
    caption = caption != NULL ? caption : "";
    if (tags == NULL || tags[0] == '\0') {
        dr_str_add(&text, caption);
    } else if (!r->spec->options->captions.wildcard) {
        dr_str_printf(&text, "%s%s%s", caption, caption[0] != '\0' ? r->separator : "", tags);
    } else {
        dr_str line = {0};
        for (const char *t = tags; *t != '\0'; t++) { /* tags are one line */
            dr_str_add_n(&line, *t == '\n' ? r->separator : t,
                         *t == '\n' ? strlen(r->separator) : 1);
        }
        add_lines(caption, dr_str_get(&line), r->separator, &text);
        dr_str_add(&text, text.len == 0 ? dr_str_get(&line) : "");
        dr_str_free(&line);
    }
    const char *copy = dr_arena_strdup(r->arena, dr_str_get(&text));
    dr_str_free(&text);
    return copy;
}

/* The picture that a key names, with or without its ending; NULL: there is none. */
static const char *find_picture(const reading *r, const char *key)
{
    static const char *const endings[] = {"",     ".BMP",  ".JPEG", ".JPG", ".PNG", ".WEBP",
                                          ".bmp", ".jpeg", ".jpg",  ".png", ".webp"};
    const char *dir = r->spec->image_dir;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        const char *path = key[0] == '/' || dir == NULL
                               ? dr_arena_printf(r->arena, "%s%s", key, endings[i])
                               : dr_arena_printf(r->arena, "%s/%s%s", dir, key, endings[i]);
        if (dr_picture_kind_of(dr_path_base(path)) == DR_PICTURE_USABLE &&
            dr_folders_is_file(path)) {
            return path;
        }
    }
    return NULL;
}

static dr_status add_entry(reading *r, const char *key, const dr_json_value *entry)
{
    const char *caption = NULL;
    const char *tags = NULL;
    if (dr_json_kind_of_value(entry) != DR_JSON_OBJECT) {
        DR_FAIL(DR_FORMAT, "%s: '%s': expected an object with caption and tags",
                r->spec->metadata_file, key);
    }
    if (key[0] != '/' && r->spec->image_dir == NULL) {
        DR_FAIL(DR_INVALID,
                "%s: '%s' is a path inside a folder: image_dir (with --in_json: --train_data_dir) "
                "says which",
                r->spec->metadata_file, key);
    }
    DR_TRY(take_text(r, key, entry, "caption", &caption));
    DR_TRY(take_text(r, key, entry, "tags", &tags));
    const char *path = find_picture(r, key);
    if (path == NULL) {
        char *line =
            dr_arena_printf(r->arena, "%s: '%s': no such picture in %s", r->spec->metadata_file,
                            key, r->spec->image_dir != NULL ? r->spec->image_dir : "/");
        dr_problems_add(r->bad, line);
        return DR_OK;
    }
    if (r->n == r->cap) {
        r->cap = r->cap > 0 ? 2 * r->cap : 256;
        r->at = dr_xrealloc(r->at, r->cap, sizeof *r->at);
    }
    const char *text = join(r, caption, tags);
    r->n_bare += text[0] == '\0';
    r->at[r->n++] = (dr_listed){path, text};
    return DR_OK;
}

static dr_status read_object(reading *r, const char *text, size_t n)
{
    dr_json_doc *doc = NULL;
    DR_TRY(dr_json_parse(&doc, r->spec->metadata_file, text, n));
    dr_status st = DR_OK;
    dr_json_iter it = {0};
    if (dr_json_kind_of_value(dr_json_root(doc)) != DR_JSON_OBJECT) {
        st = dr_error_set(DR_FORMAT, __FILE__, __LINE__,
                          "%s: expected an object with a member for each picture",
                          r->spec->metadata_file);
    }
    while (st == DR_OK && dr_json_next(dr_json_root(doc), &it)) {
        st = add_entry(r, it.name, it.value);
    }
    dr_json_close(doc);
    return st;
}

static dr_status read_line(reading *r, const char *text, size_t n, size_t number)
{
    dr_json_doc *doc = NULL;
    const char *key = NULL;
    dr_str source = {0};
    dr_str_printf(&source, "%s line %zu", r->spec->metadata_file, number);
    dr_status st = dr_json_parse(&doc, dr_str_get(&source), text, n);
    if (st == DR_OK) {
        st = dr_json_get_string(doc, "image_path", &key, NULL);
    }
    if (st == DR_OK) {
        st = add_entry(r, key, dr_json_root(doc));
    }
    dr_json_close(doc);
    dr_str_free(&source);
    return st;
}

static dr_status read_lines(reading *r, const char *text, size_t n)
{
    const char *end = text + n;
    for (size_t number = 1; text < end; number++) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        const size_t length = (size_t)((stop != NULL ? stop : end) - text);
        if (strspn(text, " \t\r\n") < length) {
            DR_TRY(read_line(r, text, length, number));
        }
        text += length + (stop != NULL);
    }
    return DR_OK;
}

static int by_path(const void *a, const void *b)
{
    const dr_listed *x = a;
    const dr_listed *y = b;
    return strcmp(x->path, y->path);
}

/* Sorted by path; a picture that several keys name counts once. */
static void sort(reading *r)
{
    size_t left = 0;
    if (r->n > 0) {
        qsort(r->at, r->n, sizeof *r->at, by_path);
    }
    for (size_t i = 0; i < r->n; i++) {
        if (left == 0 || strcmp(r->at[left - 1].path, r->at[i].path) != 0) {
            r->at[left++] = r->at[i];
        } else {
            dr_warn("%s: %s is named twice; one of the captions is ignored", r->spec->metadata_file,
                    r->at[i].path);
        }
    }
    r->n = left;
}

static bool is_jsonl(const char *path)
{
    const char *dot = strrchr(dr_path_base(path), '.');
    return dot != NULL && strcmp(dot, ".jsonl") == 0;
}

dr_status dr_metadata_file_read(dr_arena *arena, const dr_subset_spec *spec, dr_problems *bad,
                                dr_listed **out, size_t *n)
{
    reading r = {
        .arena = arena, .spec = spec, .separator = spec->options->captions.separator, .bad = bad};
    char *text = NULL;
    size_t size = 0;
    DR_TRY(dr_file_read(spec->metadata_file, MAX_FILE_BYTES, &text, &size));
    dr_status st =
        is_jsonl(spec->metadata_file) ? read_lines(&r, text, size) : read_object(&r, text, size);
    free(text);
    if (st == DR_OK) {
        sort(&r);
        *out = r.at;
        *n = r.n;
        if (r.n_bare > 0) {
            dr_warn("%s: pictures with neither caption nor tags: %zu", spec->metadata_file,
                    r.n_bare);
        }
    } else {
        free(r.at);
    }
    return st;
}
