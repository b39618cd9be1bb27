/*
 * io/config_doc.h - configuration documents, TOML or JSON, as one tree of values that know where
 * they stand.
 *
 * Layer:    io.
 * Threads:  a document is read-only once it is open.
 * Errors:   DR_FORMAT with file, line and column (JSON that parses: with the path of the value);
 *           DR_IO when unreadable.
 *
 * TOML is version 1.0.0 (toml.io), whole. Dates and times are checked and kept as text. Beyond it,
 * a byte order mark at the start is skipped. Limits: 16 MiB of text, 64 nested lists or inline
 * tables, 64 parts of a dotted key. For JSON see io/json.h.
 */
#ifndef DR_IO_CONFIG_DOC_H
#define DR_IO_CONFIG_DOC_H

#include "base/str.h"

typedef enum dr_config_kind {
    DR_CONFIG_BOOL,
    DR_CONFIG_INT,
    DR_CONFIG_REAL,
    DR_CONFIG_STRING,
    DR_CONFIG_TIME, /* TOML's dates, times and both: text as written */
    DR_CONFIG_NULL, /* JSON's null */
    DR_CONFIG_LIST,
    DR_CONFIG_TABLE
} dr_config_kind;

typedef struct dr_config_value dr_config_value;
typedef struct dr_config_member {
    const char *name; /* without NUL characters */
    dr_config_value *value;
    int line, column; /* of the key, from 1, columns in characters; 0: JSON */
} dr_config_member;

struct dr_config_value {
    dr_config_kind kind;
    int line, column; /* of the value, as above */
    int64_t i;        /* INT; BOOL: 0 or 1 */
    double f;         /* REAL, INT */
    const char *text; /* STRING, TIME; terminated, and may hold NUL characters before its end */
    size_t n;         /* bytes of text; items; members */
    dr_config_value **items;
    dr_config_member *members; /* in the file's order, names unique */
};

typedef struct dr_config_doc dr_config_doc;

/* Reads a file by its ending: .toml or .json, in any case (DR_INVALID for others). */
DR_MUST_USE dr_status dr_config_open(dr_config_doc **out, const char *path);
/* Parses n bytes; source names them in messages. Nothing of text is kept. On error *out is NULL. */
DR_MUST_USE dr_status dr_toml_parse(dr_config_doc **out, const char *source, const char *text,
                                    size_t n);
void dr_config_close(dr_config_doc *d); /* NULL is fine */
/* The whole document, a TABLE (JSON: or a LIST or anything else). */
const dr_config_value *dr_config_root(const dr_config_doc *d);
const char *dr_config_source(const dr_config_doc *d);

/* The member of a TABLE, or NULL. */
const dr_config_value *dr_config_find(const dr_config_value *table, const char *name);
/* "a string", "a whole number", ...: for messages. */
const char *dr_config_kind_name(dr_config_kind kind);
/* Whether a STRING holds no NUL character, so that its text is all of it. */
bool dr_config_is_plain(const dr_config_value *v);
/* "file:line:column", or "file" where the place is not known. */
void dr_config_place(const dr_config_doc *d, int line, int column, dr_str *out);
/* Appends text as a TOML basic string with its quotes. */
void dr_toml_add_string(dr_str *s, const char *text);

#endif
