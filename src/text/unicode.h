/*
 * text/unicode.h - character classes, lowercase and NFC, as Python's peers see them.
 *
 * Layer:    text (private).
 */
#ifndef DR_TEXT_UNICODE_H
#define DR_TEXT_UNICODE_H

#include "text/codepoints.h"
#include "text/text_tables.h"

typedef enum dr_char_kind {
    DR_CHAR_OTHER,
    DR_CHAR_SEPARATOR, /* part of no word: \s, and U+0345 (see gen_tables.py) */
    DR_CHAR_LETTER,    /* \p{L} */
    DR_CHAR_NUMBER     /* \p{N} */
} dr_char_kind;

dr_char_kind dr_char_classify(uint32_t codepoint);
/* \d of Python's re: category Nd. */
bool dr_char_is_decimal(uint32_t codepoint);
/* str.lower: full mapping, with U+0130 and the final sigma. scratch is overwritten. */
void dr_text_lower(dr_codepoints *text, dr_codepoints *scratch);
/* Normalisation form C. */
void dr_text_nfc(dr_codepoints *text);

#endif
