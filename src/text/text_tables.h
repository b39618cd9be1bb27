/*
 * text/text_tables.h - facts about characters, generated from the peers by gen_tables.py.
 *
 * Layer:    text (private).
 */
#ifndef DR_TEXT_TEXT_TABLES_H
#define DR_TEXT_TEXT_TABLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct dr_char_range { /* both ends belong to it; lists are sorted and disjoint */
    uint32_t first, last;
} dr_char_range;
extern const dr_char_range dr_text_letters[], dr_text_numbers[], dr_text_separators[];
extern const size_t dr_text_n_letters, dr_text_n_numbers, dr_text_n_separators;
/* For the final sigma: cased and not case-ignorable; case-ignorable. */
extern const dr_char_range dr_text_cased[], dr_text_case_ignorable[];
extern const size_t dr_text_n_cased, dr_text_n_case_ignorable;

typedef struct dr_char_expansion { /* one character becomes up to three; sorted by from */
    uint16_t from, to[3];          /* unused places of to are 0 */
} dr_char_expansion;
extern const dr_char_expansion dr_text_ligatures[], dr_text_widths[];
extern const size_t dr_text_n_ligatures, dr_text_n_widths;

typedef struct dr_html_entity { /* sorted by name */
    const char *name;           /* without & and ; */
    uint32_t to[3];             /* unused places are 0 */
} dr_html_entity;
extern const dr_html_entity dr_text_entities[];
extern const size_t dr_text_n_entities;

typedef struct dr_charref { /* numeric references that do not mean their own number */
    uint32_t number, to;    /* to 0: nothing */
} dr_charref;
extern const dr_charref dr_text_charrefs[];
extern const size_t dr_text_n_charrefs;

typedef struct dr_class_set { /* the numbered classes that a character or byte belongs to */
    uint64_t bits[2];
} dr_class_set;

typedef struct dr_pattern { /* one alternative of a regular expression: n classes in a row */
    uint8_t n;
    bool at_start;
    uint8_t classes[7];
} dr_pattern;
extern const dr_pattern dr_text_badness[], dr_text_altered_utf8[], dr_text_lossy_utf8[];
extern const size_t dr_text_n_badness, dr_text_n_altered_utf8, dr_text_n_lossy_utf8;

enum { /* classes that code asks for by number; the same list stands in gen_tables.py */
       DR_CLASS_WORD,
       DR_CLASS_UTF8_FIRST_OF_2,
       DR_CLASS_UTF8_FIRST_OF_3,
       DR_CLASS_UTF8_FIRST_OF_4,
       DR_CLASS_UTF8_CONTINUATION,
       DR_CLASS_UTF8_CONTINUATION_STRICT
};

enum { /* encodings in the order of trying; the list is ftfy's CHARMAP_ENCODINGS */
       DR_ENCODING_LATIN_1,
       DR_ENCODING_WINDOWS_1252,
       DR_ENCODING_WINDOWS_1251,
       DR_ENCODING_WINDOWS_1250,
       DR_ENCODING_WINDOWS_1253,
       DR_ENCODING_WINDOWS_1254,
       DR_ENCODING_WINDOWS_1257,
       DR_ENCODING_ISO_8859_2,
       DR_ENCODING_MACROMAN,
       DR_ENCODING_CP437,
       DR_N_ENCODINGS
};

typedef struct dr_mojibake_char { /* sorted by codepoint; the first 128 are ASCII */
    uint32_t codepoint;
    uint16_t possible; /* bit e: encoding e can write it, as byte[e] */
    uint8_t byte[DR_N_ENCODINGS];
    dr_class_set classes;
} dr_mojibake_char;
extern const dr_mojibake_char dr_text_mojibake[];
extern const size_t dr_text_n_mojibake;
/* classes.bits[0] of every character that is not in the list, DR_CLASS_WORD left out. */
extern const uint64_t dr_text_stranger_classes;

/* Classes of bytes, for the altered_utf8 and lossy_utf8 patterns. */
extern const dr_class_set dr_text_byte_classes[256];
/* Characters of bytes 0x80..0x9F in Windows-1252; the undefined five map to themselves. */
extern const uint16_t dr_text_windows_1252[32];

#endif
