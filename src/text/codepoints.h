/*
 * text/codepoints.h - text as an array of Unicode code points, and UTF-8 in and out.
 *
 * Layer:    text (private).
 * Ownership: a dr_codepoints owns its array until dr_codepoints_free; {0} is empty and valid.
 */
#ifndef DR_TEXT_CODEPOINTS_H
#define DR_TEXT_CODEPOINTS_H

#include "base/str.h"

typedef struct dr_codepoints {
    uint32_t *at;
    size_t n, cap;
} dr_codepoints;

void dr_codepoints_add(dr_codepoints *c, uint32_t codepoint);
void dr_codepoints_add_n(dr_codepoints *c, const uint32_t *codepoints, size_t n);
bool dr_codepoints_equal(const dr_codepoints *a, const dr_codepoints *b);
void dr_codepoints_swap(dr_codepoints *a, dr_codepoints *b);
void dr_codepoints_free(dr_codepoints *c);

/* One code point of strict UTF-8 (no overlong forms, no surrogates, at most U+10FFFF) from n >= 1
 * bytes: returns its length in bytes, or 0 when the bytes are not UTF-8. */
size_t dr_utf8_next(const unsigned char *bytes, size_t n, uint32_t *codepoint);
/* Appends the text to out. DR_FORMAT with the byte's offset when it is not UTF-8; out is then
 * incomplete. */
DR_MUST_USE dr_status dr_utf8_decode(const char *text, size_t n, dr_codepoints *out);
/* Appends the text as UTF-8. */
void dr_utf8_encode(const dr_codepoints *c, dr_str *out);

#endif
