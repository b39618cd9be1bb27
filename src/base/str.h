/*
 * base/str.h - growing strings, string lists, and the few string questions everybody asks.
 *
 * Layer:    base.
 * Ownership: a dr_str owns its bytes until dr_str_free; a dr_strv owns its array and its strings.
 */
#ifndef DR_BASE_STR_H
#define DR_BASE_STR_H

#include "dreamrun/status.h"

typedef struct dr_str {
    char *data; /* always terminated once something was added; NULL when never used */
    size_t len, cap;
} dr_str;

void dr_str_add(dr_str *s, const char *text);
void dr_str_add_n(dr_str *s, const char *text, size_t n);
/* n bytes as base64 (RFC 4648), padded. */
void dr_str_add_base64(dr_str *s, const void *data, size_t n);
void dr_str_printf(dr_str *s, const char *fmt, ...) DR_PRINTF(2, 3);
/* The text so far, never NULL. */
const char *dr_str_get(const dr_str *s);
void dr_str_free(dr_str *s);

typedef struct dr_strv {
    char **at;
    size_t n, cap;
} dr_strv;

void dr_strv_push(dr_strv *v, const char *text);
void dr_strv_sort(dr_strv *v); /* bytewise */
void dr_strv_free(dr_strv *v);

bool dr_str_starts(const char *s, const char *prefix);
bool dr_str_ends(const char *s, const char *suffix);
/* Whole-string number parsing: trailing text, overflow and NaN are refused (false). */
bool dr_parse_i64(const char *s, int64_t *out);
bool dr_parse_f64(const char *s, double *out);
/* Levenshtein distance, for "did you mean". */
int dr_edit_distance(const char *a, const char *b);
/* Shortest text that reads back as v, spelled as Python's repr(float): 1e-06, 0.0001, 1.0. */
void dr_float_repr(double v, char buf[32]);
/* "7.3 GiB", "512 MiB", "340 B". */
void dr_format_bytes(uint64_t bytes, char buf[24]);

#endif
