#include "text/fix_text.h"

#include "text/mojibake.h"
#include "text/text_tables.h"
#include "text/unicode.h"

#include <string.h>

enum {
    MAX_SEGMENT = 1000000, /* ftfy's max_decode_length: longer lines are cut there */
    MAX_ROUNDS = 64,       /* of repetition until nothing changes; real text needs two or three */
    LONGEST_ENTITY = 24    /* characters between & and ; */
};

/* --- HTML ----------------------------------------------------------------------------------- */

static bool is_alphanumeric(uint32_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static const dr_html_entity *find_entity(const char *name)
{
    size_t low = 0;
    size_t high = dr_text_n_entities;
    while (low < high) {
        size_t mid = (low + high) / 2;
        int order = strcmp(dr_text_entities[mid].name, name);
        if (order == 0) {
            return &dr_text_entities[mid];
        }
        if (order < 0) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return NULL;
}

/* Value of "123" or "x7b"; false when it is not wholly a number. Saturates above U+10FFFF. */
static bool parse_charref(const char *text, uint32_t *number)
{
    uint32_t base = 10;
    if (text[0] == 'x' || text[0] == 'X') {
        base = 16;
        text++;
    }
    bool any = false;
    uint32_t value = 0;
    for (; *text != '\0'; text++) {
        unsigned c = (unsigned char)*text;
        unsigned digit = c <= '9' ? c - '0' : (c | 0x20U) - 'a' + 10;
        if (digit >= base) {
            return false;
        }
        value = value > 0x10FFFF ? value : value * base + digit;
        any = true;
    }
    *number = value;
    return any;
}

/* The character of a numeric reference as HTML5 reads it; false when it stays as written. */
static bool add_charref(const char *text, dr_codepoints *out)
{
    uint32_t number = 0;
    if (!parse_charref(text, &number) || number == ';') {
        return false;
    }
    if (number > 0x10FFFF || (number >= 0xD800 && number <= 0xDFFF)) {
        number = 0xFFFD;
    }
    for (size_t i = 0; i < dr_text_n_charrefs; i++) {
        if (dr_text_charrefs[i].number == number) {
            if (dr_text_charrefs[i].to != 0) {
                dr_codepoints_add(out, dr_text_charrefs[i].to);
            }
            return true;
        }
    }
    dr_codepoints_add(out, number);
    return true;
}

/* Reads "&name;" or "&#number;" at i: its length when it was replaced in out, else 0. */
static size_t unescape_one(const dr_codepoints *text, size_t i, dr_codepoints *out)
{
    char name[LONGEST_ENTITY + 1];
    size_t j = i + 1;
    bool is_number = j < text->n && text->at[j] == '#';
    j += is_number ? 1 : 0;
    size_t len = 0;
    while (j < text->n && len < LONGEST_ENTITY && is_alphanumeric(text->at[j])) {
        name[len++] = (char)text->at[j++];
    }
    name[len] = '\0';
    if (len == 0 || j >= text->n || text->at[j] != ';') {
        return 0;
    }
    if (is_number) {
        return add_charref(name, out) ? j + 1 - i : 0;
    }
    const dr_html_entity *entity = find_entity(name);
    if (entity == NULL) {
        return 0;
    }
    for (size_t k = 0; k < 3 && entity->to[k] != 0; k++) {
        dr_codepoints_add(out, entity->to[k]);
    }
    return j + 1 - i;
}

static void unescape_html(dr_codepoints *text, dr_codepoints *scratch)
{
    scratch->n = 0;
    for (size_t i = 0; i < text->n;) {
        size_t len = text->at[i] == '&' ? unescape_one(text, i, scratch) : 0;
        if (len == 0) {
            dr_codepoints_add(scratch, text->at[i]);
            len = 1;
        }
        i += len;
    }
    dr_codepoints_swap(text, scratch);
}

/* --- characters ----------------------------------------------------------------------------- */

static const uint16_t *find_expansion(const dr_char_expansion *table, size_t n, uint32_t c)
{
    size_t low = 0;
    size_t high = n;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (table[mid].from < c) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low < n && table[low].from == c ? table[low].to : NULL;
}

static uint32_t straighten_quote(uint32_t c)
{
    if (c >= 0x201C && c <= 0x201F) {
        return '"';
    }
    return c == 0x2BC || (c >= 0x2018 && c <= 0x201B) ? '\'' : c;
}

/* C1 controls as Windows-1252, Latin ligatures, width forms, curly quotes. No ligature turns into a
 * width form, so that each character takes one of the two tables. */
static void replace_characters(dr_codepoints *text, dr_codepoints *scratch)
{
    scratch->n = 0;
    for (size_t i = 0; i < text->n; i++) {
        uint32_t c = text->at[i];
        if (c >= 0x80 && c <= 0x9F) {
            c = dr_text_windows_1252[c - 0x80];
        }
        const uint16_t *to = find_expansion(dr_text_ligatures, dr_text_n_ligatures, c);
        if (to == NULL) {
            to = find_expansion(dr_text_widths, dr_text_n_widths, c);
        }
        if (to == NULL) {
            dr_codepoints_add(scratch, straighten_quote(c));
            continue;
        }
        for (size_t k = 0; k < 3 && to[k] != 0; k++) {
            dr_codepoints_add(scratch, straighten_quote(to[k]));
        }
    }
    dr_codepoints_swap(text, scratch);
}

static void fix_line_breaks(dr_codepoints *text)
{
    size_t n = 0;
    for (size_t i = 0; i < text->n; i++) {
        uint32_t c = text->at[i];
        if (c == '\r' && i + 1 < text->n && text->at[i + 1] == '\n') {
            continue;
        }
        text->at[n++] = c == '\r' || c == 0x2028 || c == 0x2029 ? '\n' : c;
    }
    text->n = n;
}

static bool is_control(uint32_t c)
{
    return c < 0x09 || c == 0x0B || (c >= 0x0E && c < 0x20) || c == 0x7F ||
           (c >= 0x206A && c < 0x2070) || c == 0xFEFF || (c >= 0xFFF9 && c < 0xFFFD);
}

/* Length of "ESC [ 1 ; 2 m" at i, or 0. */
static size_t match_terminal_escape(const dr_codepoints *text, size_t i)
{
    if (text->at[i] != 0x1B || i + 1 >= text->n || text->at[i + 1] != '[') {
        return 0;
    }
    size_t j = i + 2;
    while (j < text->n && (text->at[j] == ';' || dr_char_is_decimal(text->at[j]))) {
        j++;
    }
    bool ends = j < text->n && is_alphanumeric(text->at[j]);
    return ends ? j + 1 - i : 0;
}

static void remove_controls(dr_codepoints *text)
{
    size_t n = 0;
    for (size_t i = 0; i < text->n;) {
        size_t len = match_terminal_escape(text, i);
        if (len == 0) {
            len = 1;
            if (!is_control(text->at[i])) {
                text->at[n++] = text->at[i];
            }
        }
        i += len;
    }
    text->n = n;
}

/* --- the whole ------------------------------------------------------------------------------ */

static void fix_segment(dr_codepoints *segment, bool with_html, dr_codepoints *scratch)
{
    dr_codepoints before = {0};
    for (int round = 0; round < MAX_ROUNDS; round++) {
        before.n = 0;
        dr_codepoints_add_n(&before, segment->at, segment->n);
        if (with_html) {
            unescape_html(segment, scratch);
        }
        dr_text_fix_encoding(segment);
        replace_characters(segment, scratch);
        fix_line_breaks(segment);
        remove_controls(segment);
        dr_text_nfc(segment);
        if (dr_codepoints_equal(segment, &before)) {
            break;
        }
    }
    dr_codepoints_free(&before);
}

void dr_text_fix(dr_codepoints *text)
{
    dr_codepoints segment = {0};
    dr_codepoints scratch = {0};
    dr_codepoints out = {0};
    bool with_html = true;
    for (size_t i = 0; i < text->n;) {
        size_t end = i;
        while (end < text->n && end - i < MAX_SEGMENT && (end == i || text->at[end - 1] != '\n')) {
            with_html = with_html && text->at[end] != '<';
            end++;
        }
        segment.n = 0;
        dr_codepoints_add_n(&segment, text->at + i, end - i);
        fix_segment(&segment, with_html, &scratch);
        dr_codepoints_add_n(&out, segment.at, segment.n);
        i = end;
    }
    dr_codepoints_swap(text, &out);
    dr_codepoints_free(&segment);
    dr_codepoints_free(&scratch);
    dr_codepoints_free(&out);
}
