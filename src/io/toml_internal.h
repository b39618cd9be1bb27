/*
 * io/toml_internal.h - the TOML reader's two halves: structure (toml.c), scalars (toml_scalar.c).
 *
 * Layer:    io.
 */
#ifndef DR_IO_TOML_INTERNAL_H
#define DR_IO_TOML_INTERNAL_H

#include "base/arena.h"
#include "io/config_doc.h"

struct dr_config_doc {
    dr_arena arena;
    const char *source;
    dr_config_value *root;
};

typedef struct dr_toml { /* where the reader stands */
    dr_arena *arena;
    const char *source;
    const char *text, *at, *end; /* valid UTF-8 without NUL characters */
    const char *line_start;
    int line;
} dr_toml;

/* DR_FORMAT "source:line:column: message" for the place `where` on the current line. */
dr_status dr_toml_fail(const dr_toml *t, const char *where, const char *fmt, ...) DR_PRINTF(3, 4);
/* Column, in characters from 1, of a place on the current line. */
int dr_toml_column(const dr_toml *t, const char *where);
/* Passes one LF or CRLF; false when there is none. */
bool dr_toml_newline(dr_toml *t);
/* The character at `where`, for messages: 'x', "the end of the line", ... */
void dr_toml_name_char(const dr_toml *t, const char *where, char out[40]);
bool dr_toml_starts(const dr_toml *t, const char *word);

/* A string of any of the four kinds, at its first quote; keys: only the one-line kinds. */
DR_MUST_USE dr_status dr_toml_string(dr_toml *t, bool key, const char **out, size_t *n);
/* A number, boolean, date or time into v. */
DR_MUST_USE dr_status dr_toml_scalar(dr_toml *t, dr_config_value *v);

#endif
