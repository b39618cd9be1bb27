#include "text/mojibake.h"

#include "base/arena.h"
#include "text/text_tables.h"
#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>

/* ftfy repeats until nothing changes and descends into substrings. Every repair that is followed by
 * another one has shortened the text, so that real text needs two or three; these limits only bound
 * the work on hostile text. */
enum { MAX_REPAIRS = 64, MAX_DEPTH = 16 };

/* --- classes and patterns ------------------------------------------------------------------- */

static const dr_mojibake_char *find_char(uint32_t c)
{
    if (c < 0x80) {
        return &dr_text_mojibake[c];
    }
    size_t low = 0x80;
    size_t high = dr_text_n_mojibake;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (dr_text_mojibake[mid].codepoint < c) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low < dr_text_n_mojibake && dr_text_mojibake[low].codepoint == c ? &dr_text_mojibake[low]
                                                                            : NULL;
}

static dr_class_set classes_of(uint32_t c)
{
    const dr_mojibake_char *known = find_char(c);
    if (known != NULL) {
        return known->classes;
    }
    dr_class_set set = {{dr_text_stranger_classes, 0}};
    dr_char_kind kind = dr_char_classify(c);
    if (kind == DR_CHAR_LETTER || kind == DR_CHAR_NUMBER) {
        set.bits[0] |= UINT64_C(1) << DR_CLASS_WORD;
    }
    return set;
}

static bool has_class(dr_class_set set, unsigned number)
{
    return (set.bits[number / 64] >> (number % 64) & 1U) != 0;
}

/* Length of the first alternative that matches at i, or 0. */
static size_t match_at(const dr_pattern *patterns, size_t n_patterns, const dr_class_set *sets,
                       size_t n, size_t i)
{
    for (size_t k = 0; k < n_patterns; k++) {
        const dr_pattern *p = &patterns[k];
        if (p->n > n - i || (p->at_start && i != 0)) {
            continue;
        }
        size_t j = 0;
        while (j < p->n && has_class(sets[i + j], p->classes[j])) {
            j++;
        }
        if (j == p->n) {
            return j;
        }
    }
    return 0;
}

/* Classes of every character; the caller frees. */
static dr_class_set *classify(const uint32_t *at, size_t n)
{
    dr_class_set *sets = dr_xcalloc(n + 1, sizeof *sets);
    for (size_t i = 0; i < n; i++) {
        sets[i] = classes_of(at[i]);
    }
    return sets;
}

static void add_class(dr_class_set *set, unsigned number)
{
    set->bits[number / 64] |= UINT64_C(1) << number % 64;
}

static bool meet(dr_class_set a, dr_class_set b)
{
    return ((a.bits[0] & b.bits[0]) | (a.bits[1] & b.bits[1])) != 0;
}

/* All alternatives are tried only where one of them can begin and go on. */
static bool is_bad(const dr_class_set *sets, size_t n)
{
    dr_class_set alone = {{0, 0}}; /* alternatives of one class */
    dr_class_set first = {{0, 0}};
    dr_class_set second = {{0, 0}};
    for (size_t k = 0; k < dr_text_n_badness; k++) {
        const dr_pattern *p = &dr_text_badness[k];
        add_class(p->n == 1 ? &alone : &first, p->classes[0]);
        if (p->n > 1) {
            add_class(&second, p->classes[1]);
        }
    }
    for (size_t i = 0; i < n; i++) {
        bool pair = i + 1 < n && meet(sets[i], first) && meet(sets[i + 1], second);
        if ((pair || meet(sets[i], alone)) &&
            match_at(dr_text_badness, dr_text_n_badness, sets, n, i) > 0) {
            return true;
        }
    }
    return false;
}

/* Length of a run of what looks like UTF-8 sequences in some one-byte encoding, or 0. */
static size_t match_utf8_run(const dr_class_set *sets, size_t n, size_t start)
{
    if (start > 0 && has_class(sets[start - 1], DR_CLASS_UTF8_CONTINUATION_STRICT)) {
        return 0;
    }
    size_t i = start;
    while (i < n) {
        size_t taken = 0;
        for (unsigned len = 2; len <= 4 && taken == 0; len++) {
            bool fits = len <= n - i && has_class(sets[i], DR_CLASS_UTF8_FIRST_OF_2 + (len - 2));
            for (unsigned j = 1; j < len && fits; j++) {
                fits = has_class(sets[i + j], DR_CLASS_UTF8_CONTINUATION);
            }
            taken = fits ? len : 0;
        }
        if (taken == 0) {
            break;
        }
        i += taken;
    }
    return i - start;
}

/* --- bytes ---------------------------------------------------------------------------------- */

typedef struct byte_text {
    unsigned char *at;
    size_t n;
} byte_text;

static size_t match_bytes(const dr_pattern *patterns, size_t n_patterns, byte_text b, size_t i)
{
    enum { LONGEST = 7 };
    dr_class_set sets[LONGEST];
    size_t n = b.n - i < LONGEST ? b.n - i : LONGEST;
    for (size_t j = 0; j < n; j++) {
        sets[j] = dr_text_byte_classes[b.at[i + j]];
    }
    return match_at(patterns, n_patterns, sets, n, 0);
}

static bool starts_with(byte_text b, size_t i, const char *text)
{
    size_t n = strlen(text);
    return n <= b.n - i && memcmp(b.at + i, text, n) == 0;
}

/* "A-tilde space" is a lost "a grave", except before the rest of a Portuguese contraction. */
static bool is_grave_word(byte_text b, size_t i)
{
    return starts_with(b, i, "\xC3 ") && !starts_with(b, i + 2, " ") &&
           !starts_with(b, i + 2, "quele") && !starts_with(b, i + 2, "quela") &&
           !starts_with(b, i + 2, "quilo") && !starts_with(b, i + 2, "s ");
}

/* Puts back bytes A0 (no-break space) that some program turned into spaces. b.at has room for twice
 * its bytes. */
static void restore_byte_a0(byte_text *b)
{
    byte_text from = {dr_xcalloc(b->n + 1, 1), b->n};
    memcpy(from.at, b->at, b->n);
    b->n = 0;
    for (size_t i = 0; i < from.n; i++) {
        b->at[b->n++] = from.at[i];
        if (is_grave_word(from, i)) {
            b->at[b->n++] = 0xA0; /* and the space itself stays */
            b->at[b->n++] = ' ';
            i++;
        }
    }
    free(from.at);
    for (size_t i = 0; i < b->n;) {
        size_t len = match_bytes(dr_text_altered_utf8, dr_text_n_altered_utf8, *b, i);
        for (size_t j = i; j < i + len; j++) {
            b->at[j] = b->at[j] == ' ' ? 0xA0 : b->at[j];
        }
        i += len > 0 ? len : 1;
    }
}

static bool has_altered_utf8(byte_text b)
{
    for (size_t i = 0; i < b.n; i++) {
        if (match_bytes(dr_text_altered_utf8, dr_text_n_altered_utf8, b, i) > 0) {
            return true;
        }
    }
    return false;
}

/* UTF-8 sequences of which a byte was lost become U+FFFD. Appends to out. */
static void replace_lossy_sequences(byte_text b, dr_str *out)
{
    for (size_t i = 0; i < b.n;) {
        size_t len = match_bytes(dr_text_lossy_utf8, dr_text_n_lossy_utf8, b, i);
        if (len > 0) {
            dr_str_add_n(out, "\xEF\xBF\xBD", 3);
            i += len;
        } else {
            dr_str_add_n(out, (const char *)b.at + i, 1);
            i++;
        }
    }
}

/* A surrogate pair written as two three-byte sequences (CESU-8): 6 and the character, or 0. */
static size_t next_cesu8(const unsigned char *b, size_t n, uint32_t *c)
{
    if (n < 6 || b[0] != 0xED || b[1] < 0xA0 || b[1] > 0xAF || (b[2] & 0xC0U) != 0x80U ||
        b[3] != 0xED || b[4] < 0xB0 || b[4] > 0xBF || (b[5] & 0xC0U) != 0x80U) {
        return 0;
    }
    *c = ((b[1] & 0x0FU) << 16) + ((b[2] & 0x3FU) << 10) + ((b[4] & 0x0FU) << 6) + (b[5] & 0x3FU) +
         0x10000;
    return 6;
}

/* UTF-8, CESU-8 and Java's two-byte NUL; false when it is none of them (out is then incomplete). */
static bool decode_variants(const unsigned char *b, size_t n, dr_codepoints *out)
{
    for (size_t i = 0; i < n;) {
        uint32_t c = 0;
        size_t len = dr_utf8_next(b + i, n - i, &c);
        if (len == 0) {
            len = next_cesu8(b + i, n - i, &c);
        }
        if (len == 0 && n - i >= 2 && b[i] == 0xC0 && b[i + 1] == 0x80) {
            len = 2;
            c = 0;
        }
        if (len == 0) {
            return false;
        }
        dr_codepoints_add(out, c);
        i += len;
    }
    return true;
}

/* --- one repair ----------------------------------------------------------------------------- */

/* Bit e: encoding e can write every character. */
static unsigned possible_encodings(const dr_codepoints *text)
{
    unsigned possible = (1U << DR_N_ENCODINGS) - 1U;
    for (size_t i = 0; i < text->n && possible != 0; i++) {
        const dr_mojibake_char *c = find_char(text->at[i]);
        possible &= c != NULL ? c->possible : 0U;
    }
    return possible;
}

/* Writes the text in an encoding that can, and reads the bytes as UTF-8. */
static bool reread_as_utf8(const dr_codepoints *text, int encoding, dr_codepoints *out)
{
    byte_text b = {dr_xcalloc(2 * text->n + 1, 1), text->n};
    for (size_t i = 0; i < text->n; i++) {
        b.at[i] = find_char(text->at[i])->byte[encoding];
    }
    if (encoding != DR_ENCODING_MACROMAN && has_altered_utf8(b)) {
        restore_byte_a0(&b);
    }
    dr_str bytes = {0};
    if (encoding >= DR_ENCODING_WINDOWS_1252 && encoding <= DR_ENCODING_WINDOWS_1257) {
        replace_lossy_sequences(b, &bytes);
    } else {
        dr_str_add_n(&bytes, (const char *)b.at, b.n);
    }
    out->n = 0;
    bool ok = decode_variants((const unsigned char *)bytes.data, bytes.len, out);
    dr_str_free(&bytes);
    free(b.at);
    return ok;
}

static bool is_undefined_in_windows_1252(uint32_t c)
{
    return c >= 0x80 && c <= 0x9F && dr_text_windows_1252[c - 0x80] == c;
}

/* Latin-1 that was meant as Windows-1252: C1 controls become its characters. Nothing changes when
 * strict is true and one of them is undefined there. */
static bool read_c1_as_windows_1252(const dr_codepoints *text, bool strict, dr_codepoints *out)
{
    out->n = 0;
    bool changed = false;
    for (size_t i = 0; i < text->n; i++) {
        uint32_t c = text->at[i];
        if (strict && is_undefined_in_windows_1252(c)) {
            return false;
        }
        bool is_c1 = c >= 0x80 && c <= 0x9F;
        dr_codepoints_add(out, is_c1 ? dr_text_windows_1252[c - 0x80] : c);
        changed = changed || is_c1;
    }
    return changed;
}

static void fix_encoding(dr_codepoints *text, int depth);

/* Repairs the runs inside the text that look broken on their own. */
static bool fix_runs(const dr_codepoints *text, const dr_class_set *sets, int depth,
                     dr_codepoints *out)
{
    out->n = 0;
    for (size_t i = 0; i < text->n;) {
        size_t len = match_utf8_run(sets, text->n, i);
        if (len == 0) {
            dr_codepoints_add(out, text->at[i++]);
            continue;
        }
        dr_codepoints run = {0};
        dr_codepoints_add_n(&run, text->at + i, len);
        if (len < text->n && is_bad(sets + i, len)) {
            fix_encoding(&run, depth + 1);
        }
        dr_codepoints_add_n(out, run.at, run.n);
        dr_codepoints_free(&run);
        i += len;
    }
    return !dr_codepoints_equal(text, out);
}

/* The first plan that works, into out; false when the text stays. */
static bool fix_one_step(const dr_codepoints *text, const dr_class_set *sets, int depth,
                         dr_codepoints *out)
{
    unsigned possible = possible_encodings(text);
    for (int e = 0; e < DR_N_ENCODINGS; e++) {
        if ((possible >> e & 1U) != 0 && reread_as_utf8(text, e, out)) {
            return !dr_codepoints_equal(text, out);
        }
    }
    if (depth < MAX_DEPTH && fix_runs(text, sets, depth, out)) {
        return true;
    }
    if ((possible >> DR_ENCODING_LATIN_1 & 1U) != 0 && read_c1_as_windows_1252(text, true, out)) {
        return true;
    }
    return read_c1_as_windows_1252(text, false, out) && !dr_codepoints_equal(text, out);
}

static bool is_ascii(const dr_codepoints *text)
{
    uint32_t all = 0;
    for (size_t i = 0; i < text->n; i++) {
        all |= text->at[i];
    }
    return all < 0x80;
}

static void fix_encoding(dr_codepoints *text, int depth)
{
    dr_codepoints fixed = {0};
    for (int repairs = 0; repairs < MAX_REPAIRS && !is_ascii(text); repairs++) {
        dr_class_set *sets = classify(text->at, text->n);
        bool changed = is_bad(sets, text->n) && fix_one_step(text, sets, depth, &fixed);
        free(sets);
        if (!changed) {
            break;
        }
        dr_codepoints_swap(text, &fixed);
    }
    dr_codepoints_free(&fixed);
}

void dr_text_fix_encoding(dr_codepoints *text)
{
    fix_encoding(text, 0);
}
