#include "text/unicode.h"

#include "base/arena.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static bool in_ranges(const dr_char_range *ranges, size_t n, uint32_t c)
{
    size_t low = 0;
    size_t high = n;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (c > ranges[mid].last) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low < n && c >= ranges[low].first;
}

dr_char_kind dr_char_classify(uint32_t codepoint)
{
    if (in_ranges(dr_text_letters, dr_text_n_letters, codepoint)) {
        return DR_CHAR_LETTER;
    }
    if (in_ranges(dr_text_numbers, dr_text_n_numbers, codepoint)) {
        return DR_CHAR_NUMBER;
    }
    return in_ranges(dr_text_separators, dr_text_n_separators, codepoint) ? DR_CHAR_SEPARATOR
                                                                          : DR_CHAR_OTHER;
}

bool dr_char_is_decimal(uint32_t codepoint)
{
    return utf8proc_category((utf8proc_int32_t)codepoint) == UTF8PROC_CATEGORY_ND;
}

static bool is_cased(uint32_t c)
{
    return in_ranges(dr_text_cased, dr_text_n_cased, c);
}

static bool is_case_ignorable(uint32_t c)
{
    return in_ranges(dr_text_case_ignorable, dr_text_n_case_ignorable, c);
}

/* Unicode's Final_Sigma: a cased character before, none after, case-ignorable ones in between. */
static bool is_final_sigma(const dr_codepoints *text, size_t i)
{
    size_t before = i;
    while (before > 0 && is_case_ignorable(text->at[before - 1])) {
        before--;
    }
    size_t after = i + 1;
    while (after < text->n && is_case_ignorable(text->at[after])) {
        after++;
    }
    return before > 0 && is_cased(text->at[before - 1]) &&
           !(after < text->n && is_cased(text->at[after]));
}

void dr_text_lower(dr_codepoints *text, dr_codepoints *scratch)
{
    scratch->n = 0;
    for (size_t i = 0; i < text->n; i++) {
        uint32_t c = text->at[i];
        if (c == 0x3A3) { /* capital sigma */
            dr_codepoints_add(scratch, is_final_sigma(text, i) ? 0x3C2 : 0x3C3);
        } else if (c == 0x130) { /* capital I with dot: the only mapping to two characters */
            dr_codepoints_add(scratch, 'i');
            dr_codepoints_add(scratch, 0x307);
        } else {
            dr_codepoints_add(scratch, (uint32_t)utf8proc_tolower((utf8proc_int32_t)c));
        }
    }
    dr_codepoints_swap(text, scratch);
}

static unsigned combining_class(uint32_t c)
{
    return (unsigned)utf8proc_get_property((utf8proc_int32_t)c)->combining_class;
}

/* Stable counting sort of n marks by combining class. */
static void sort_marks(uint32_t *marks, size_t n)
{
    enum { N_CLASSES = 256 };
    size_t next[N_CLASSES + 1] = {0};
    for (size_t i = 0; i < n; i++) {
        next[combining_class(marks[i]) + 1]++;
    }
    for (size_t k = 1; k <= N_CLASSES; k++) {
        next[k] += next[k - 1];
    }
    uint32_t *sorted = dr_xcalloc(n, sizeof *sorted);
    for (size_t i = 0; i < n; i++) {
        sorted[next[combining_class(marks[i])]++] = marks[i];
    }
    memcpy(marks, sorted, n * sizeof *marks);
    free(sorted);
}

/* Puts long runs of combining marks into canonical order, which changes nothing for NFC: utf8proc
 * needs quadratic time for it (83 s for 200,000 marks). */
static void sort_long_mark_runs(dr_codepoints *text)
{
    enum { LONG_RUN = 32 };
    for (size_t i = 0; i < text->n;) {
        size_t end = i;
        while (end < text->n && combining_class(text->at[end]) != 0) {
            end++;
        }
        if (end - i > LONG_RUN) {
            sort_marks(text->at + i, end - i);
        }
        i = end + 1;
    }
}

void dr_text_nfc(dr_codepoints *text)
{
    bool changes = false; /* every character below U+0300 is NFC whatever stands beside it */
    for (size_t i = 0; i < text->n && !changes; i++) {
        changes = text->at[i] >= 0x300;
    }
    if (!changes) {
        return;
    }
    sort_long_mark_runs(text);
    dr_str bytes = {0};
    dr_utf8_encode(text, &bytes);
    utf8proc_uint8_t *out = NULL;
    utf8proc_ssize_t n =
        utf8proc_map((const utf8proc_uint8_t *)bytes.data, (utf8proc_ssize_t)bytes.len, &out,
                     UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    DR_CHECK(n >= 0, "utf8proc refuses valid UTF-8: %s", utf8proc_errmsg(n));
    text->n = 0;
    const dr_status st = dr_utf8_decode((const char *)out, (size_t)n, text);
    DR_CHECK(st == DR_OK, "utf8proc wrote bad UTF-8");
    free(out);
    dr_str_free(&bytes);
}
