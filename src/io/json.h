/*
 * io/json.h - JSON documents read with typed getters, and the pieces needed to write JSON text.
 *
 * Layer:    io.  The only place that knows jansson.
 * Threads:  a document may be read by several threads at once.
 * Errors:   DR_FORMAT naming the file and the key (found, expected); DR_IO when unreadable.
 *
 * Refused: duplicate keys, text after the value, NUL characters (also as \u0000), text that is not
 * UTF-8, integers beyond 64 bits, nesting over 2048 (jansson's limit).
 */
#ifndef DR_IO_JSON_H
#define DR_IO_JSON_H

#include "base/str.h"

typedef struct dr_json_doc dr_json_doc;
typedef struct dr_json_value dr_json_value; /* lives inside its document */

typedef enum dr_json_kind {
    DR_JSON_ABSENT,
    DR_JSON_NULL,
    DR_JSON_BOOL,
    DR_JSON_INT,
    DR_JSON_REAL,
    DR_JSON_STRING,
    DR_JSON_LIST,
    DR_JSON_OBJECT
} dr_json_kind;

/* Reads a file of at most 64 MiB. On error *out is NULL. */
DR_MUST_USE dr_status dr_json_open(dr_json_doc **out, const char *path);
/* Parses n bytes; source names them in messages. Nothing of text is kept. On error *out is NULL. */
DR_MUST_USE dr_status dr_json_parse(dr_json_doc **out, const char *source, const void *text,
                                    size_t n);
void dr_json_close(dr_json_doc *d); /* NULL is fine */

/*
 * Getters by key path: names joined by '/', a number picks an element of a list
 * ("unet/block_out_channels/0"); "" is the whole document.
 *
 * found == NULL: the key is required, absent or null is DR_FORMAT.
 * found != NULL: *found tells; when the key is absent or null, *out is untouched.
 * A value of another kind is always DR_FORMAT. On error *out and *found are untouched.
 */
dr_json_kind dr_json_kind_of(const dr_json_doc *d, const char *key);
DR_MUST_USE dr_status dr_json_get_int(const dr_json_doc *d, const char *key, int64_t *out,
                                      bool *found);
/* Accepts integers too. */
DR_MUST_USE dr_status dr_json_get_double(const dr_json_doc *d, const char *key, double *out,
                                         bool *found);
DR_MUST_USE dr_status dr_json_get_bool(const dr_json_doc *d, const char *key, bool *out,
                                       bool *found);
/* *out points into the document. */
DR_MUST_USE dr_status dr_json_get_string(const dr_json_doc *d, const char *key, const char **out,
                                         bool *found);
typedef struct dr_json_ints { /* owns at; free with dr_json_ints_free */
    int64_t *at;
    size_t n;
} dr_json_ints;
/* *out is replaced, not appended to; it must be empty on entry. */
DR_MUST_USE dr_status dr_json_get_ints(const dr_json_doc *d, const char *key, dr_json_ints *out,
                                       bool *found);
void dr_json_ints_free(dr_json_ints *v);
/* Appends to *out (the caller frees it). */
DR_MUST_USE dr_status dr_json_get_strings(const dr_json_doc *d, const char *key, dr_strv *out,
                                          bool *found);

/* A walk over any document, value by value. Pointers live as long as the document. */
const dr_json_value *dr_json_root(const dr_json_doc *d);
dr_json_kind dr_json_kind_of_value(const dr_json_value *v); /* NULL is ABSENT */
size_t dr_json_size(const dr_json_value *v);                /* members or elements, else 0 */
const dr_json_value *dr_json_item(const dr_json_value *list, size_t i);
const dr_json_value *dr_json_member(const dr_json_value *object, const char *name); /* or NULL */
typedef struct dr_json_iter { /* start with {0} */
    const char *name;
    const dr_json_value *value;
    void *state;
} dr_json_iter;
/* Next member of an object, in the file's order; false at the end. */
bool dr_json_next(const dr_json_value *object, dr_json_iter *it);
/* The value of an INT, of a REAL or INT (0 for others), of a BOOL (false for others) and of a
 * STRING
 * ("" for others). */
int64_t dr_json_int_value(const dr_json_value *v);
double dr_json_real_value(const dr_json_value *v);
bool dr_json_bool_value(const dr_json_value *v);
const char *dr_json_string_value(const dr_json_value *v);

/* True when text is valid UTF-8 (what a JSON string may hold). */
bool dr_json_utf8_valid(const char *text);
/*
 * Adds text as a JSON string with its quotes. Escapes only what must be, spelled as serde_json and
 * Python (ensure_ascii=False) do: \" \\ \b \f \n \r \t, other control characters as \u00xx.
 */
void dr_json_add_string(dr_str *s, const char *text);
/* Adds a number that reads back exactly; NaN and infinity, which JSON lacks, become null. */
void dr_json_add_double(dr_str *s, double v);

#endif
