#include "text/tokenizer.h"

#include "base/arena.h"
#include "text/bpe.h"
#include "text/fix_text.h"
#include "text/unicode.h"
#include "text/vocabulary.h"

#include <stdlib.h>
#include <string.h>

struct dr_tokenizer {
    dr_tokenizer_kind kind;
    dr_bpe bpe;
    dr_codepoints points, scratch;
    dr_str clean; /* the piece at hand: fixed and in lowercase */
};

typedef struct id_list { /* counts all ids, keeps the first max */
    int32_t *ids;
    size_t max, n;
} id_list;

dr_tokenizer *dr_tokenizer_create(dr_tokenizer_kind kind)
{
    dr_tokenizer *t = dr_xcalloc(1, sizeof *t);
    t->kind = kind;
    dr_bpe_init(&t->bpe);
    return t;
}

void dr_tokenizer_destroy(dr_tokenizer *t)
{
    if (t != NULL) {
        dr_bpe_deinit(&t->bpe);
        dr_codepoints_free(&t->points);
        dr_codepoints_free(&t->scratch);
        dr_str_free(&t->clean);
        free(t);
    }
}

static void add_id(id_list *out, int32_t id)
{
    if (out->n < out->max) {
        out->ids[out->n] = id;
    }
    out->n++;
}

/* --- words ---------------------------------------------------------------------------------- */

typedef struct span { /* UTF-8 */
    const char *text;
    size_t n;
} span;

static const struct {
    const char *text;
    int32_t id;
} specials[] = {{"<|startoftext|>", DR_VOCAB_START}, {"<|endoftext|>", DR_VOCAB_END}};

/* Kind of the character at i and its length in bytes. */
static dr_char_kind kind_at(span s, size_t i, size_t *len)
{
    unsigned char c = (unsigned char)s.text[i];
    *len = 1;
    if (c >= 'a' && c <= 'z') {
        return DR_CHAR_LETTER;
    }
    if (c == ' ' || (c >= '\t' && c <= '\r')) {
        return DR_CHAR_SEPARATOR;
    }
    if (c >= '0' && c <= '9') {
        return DR_CHAR_NUMBER;
    }
    if (c < 0x80) {
        return DR_CHAR_OTHER; /* capitals are gone */
    }
    uint32_t codepoint = 0;
    *len = dr_utf8_next((const unsigned char *)s.text + i, s.n - i, &codepoint);
    DR_CHECK(*len > 0, "cleaned text is not UTF-8");
    return dr_char_classify(codepoint);
}

/* Length of pattern at i, or 0. The expression ignores case, and the long s (U+017F), which is
 * already lowercase, equals s. */
static size_t match_folded(span s, size_t i, const char *pattern)
{
    size_t start = i;
    for (; *pattern != '\0'; pattern++) {
        if (i < s.n && s.text[i] == *pattern) {
            i++;
        } else if (*pattern == 's' && s.n - i >= 2 && memcmp(s.text + i, "\xC5\xBF", 2) == 0) {
            i += 2;
        } else {
            return 0;
        }
    }
    return i - start;
}

/* What the first alternatives of the expression match at i, or 0. */
static size_t match_fixed(span s, size_t i)
{
    static const char *const endings[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
    size_t len = 0;
    if (s.text[i] == '\'') {
        for (size_t k = 0; k < sizeof endings / sizeof *endings && len == 0; k++) {
            len = match_folded(s, i, endings[k]);
        }
    } else if (s.text[i] == '<') {
        for (size_t k = 0; k < sizeof specials / sizeof *specials && len == 0; k++) {
            len = match_folded(s, i, specials[k].text);
        }
    }
    return len;
}

/* Length of the word at i, which is not a space: an ending, letters, one digit, or a run of others:
 * 's|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+ */
static size_t match_word(span s, size_t i)
{
    size_t len = match_fixed(s, i);
    if (len > 0) {
        return len;
    }
    dr_char_kind kind = kind_at(s, i, &len);
    if (kind == DR_CHAR_NUMBER) {
        return len;
    }
    size_t end = i + len;
    while (end < s.n && kind_at(s, end, &len) == kind) {
        end += len;
    }
    return end - i;
}

static void add_word(dr_tokenizer *t, span word, id_list *out)
{
    for (size_t k = 0; k < sizeof specials / sizeof *specials; k++) {
        if (word.n == strlen(specials[k].text) &&
            memcmp(word.text, specials[k].text, word.n) == 0) {
            add_id(out, specials[k].id); /* written in capitals, or with entities */
            return;
        }
    }
    const uint16_t *ids = NULL;
    size_t n = dr_bpe_encode(&t->bpe, word.text, word.n, &ids);
    for (size_t i = 0; i < n; i++) {
        add_id(out, ids[i]);
    }
}

/* --- pieces: the text between special tokens ------------------------------------------------- */

/* Text that cleaning would not change but for capitals: printable ASCII without "&", and spaces. */
static bool is_plain(span s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.text[i];
        bool is_space = c == '\t' || c == '\n' || c == '\f' || c == '\r';
        if ((c < 0x20 && !is_space) || c > 0x7E || c == '&') {
            return false;
        }
    }
    return true;
}

/* Cleans a piece into t->clean. Collapsing and stripping of white space, which the reference does
 * before it lowers, is left out: words never hold any. */
static void clean_piece(dr_tokenizer *t, span piece)
{
    t->clean.len = 0;
    if (is_plain(piece)) {
        dr_str_add_n(&t->clean, piece.text, piece.n);
        for (size_t i = 0; i < piece.n; i++) {
            char c = t->clean.data[i];
            t->clean.data[i] = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
        }
        return;
    }
    t->points.n = 0;
    const dr_status st = dr_utf8_decode(piece.text, piece.n, &t->points);
    DR_CHECK(st == DR_OK, "the caption was checked before");
    dr_text_fix(&t->points);
    dr_text_lower(&t->points, &t->scratch);
    dr_utf8_encode(&t->points, &t->clean);
}

static void add_piece(dr_tokenizer *t, span piece, id_list *out)
{
    if (piece.n == 0) {
        return;
    }
    clean_piece(t, piece);
    const span s = {dr_str_get(&t->clean), t->clean.len};
    for (size_t i = 0; i < s.n;) {
        size_t len = 0;
        if (kind_at(s, i, &len) != DR_CHAR_SEPARATOR) {
            len = match_word(s, i);
            add_word(t, (span){s.text + i, len}, out);
        }
        i += len;
    }
}

/* Length of a special token written literally at i, or 0. */
static size_t match_special(const dr_tokenizer *t, span s, size_t i, int32_t *id)
{
    if (s.text[i] == '!' && t->kind == DR_TOKENIZER_SD2) {
        *id = 0;
        return 1;
    }
    for (size_t k = 0; s.text[i] == '<' && k < sizeof specials / sizeof *specials; k++) {
        size_t n = strlen(specials[k].text);
        if (n <= s.n - i && memcmp(s.text + i, specials[k].text, n) == 0) {
            *id = specials[k].id;
            return n;
        }
    }
    return 0;
}

/* DR_FORMAT unless the text is UTF-8. */
static dr_status check_utf8(dr_tokenizer *t, span s)
{
    size_t n_ascii = 0;
    while (n_ascii < s.n && (unsigned char)s.text[n_ascii] < 0x80) {
        n_ascii++;
    }
    if (n_ascii < s.n) {
        t->points.n = 0;
        DR_TRY(dr_utf8_decode(s.text, s.n, &t->points));
    }
    return DR_OK;
}

dr_status dr_tokenizer_encode(dr_tokenizer *t, const char *text, size_t n_bytes, int32_t *ids,
                              size_t max, size_t *n_ids)
{
    const span s = {text, n_bytes};
    DR_TRY(check_utf8(t, s));
    id_list out = {ids, max, 0};
    size_t start = 0;
    for (size_t i = 0; i < s.n;) {
        int32_t id = 0;
        size_t len = match_special(t, s, i, &id);
        if (len > 0) {
            add_piece(t, (span){s.text + start, i - start}, &out);
            add_id(&out, id);
            start = i + len;
        }
        i += len > 0 ? len : 1;
    }
    add_piece(t, (span){s.text + start, s.n - start}, &out);
    *n_ids = out.n;
    return DR_OK;
}

/* --- rows ----------------------------------------------------------------------------------- */

enum { CHUNK = DR_TOKEN_ROW - 2, LONGEST = DR_TOKEN_MAX_ROWS * CHUNK };

static void check_length(int max_token_length)
{
    DR_CHECK(max_token_length == 75 || max_token_length == 150 || max_token_length == 225,
             "max_token_length is %d, expected 75, 150 or 225", max_token_length);
}

void dr_tokenizer_rows(const dr_tokenizer *t, const int32_t *ids, size_t n_tokens,
                       int max_token_length, dr_token_rows *out)
{
    check_length(max_token_length);
    const int32_t pad = t->kind == DR_TOKENIZER_SD2 ? 0 : DR_TOKEN_END;
    const size_t length = (size_t)max_token_length;
    const size_t n_kept = n_tokens < length ? n_tokens : length;
    int32_t sequence[LONGEST + 1]; /* after the start token */
    memcpy(sequence, ids, n_kept * sizeof *ids);
    sequence[n_kept] = DR_TOKEN_END;
    for (size_t i = n_kept + 1; i <= length; i++) {
        sequence[i] = pad;
    }
    out->n_tokens = n_tokens;
    out->truncated = n_tokens > length;
    out->n_used = (int)n_kept + 2;
    out->n_rows = max_token_length / CHUNK;
    for (int r = 0; r < out->n_rows; r++) {
        int32_t *row = out->ids[r];
        row[0] = DR_TOKEN_START;
        memcpy(row + 1, sequence + r * CHUNK, CHUNK * sizeof *row);
        row[CHUNK + 1] = sequence[length];
        if (t->kind == DR_TOKENIZER_SD2 && out->n_rows > 1) {
            if (row[CHUNK] != DR_TOKEN_END && row[CHUNK] != pad) {
                row[CHUNK + 1] = DR_TOKEN_END;
            }
            row[1] = row[1] == pad ? DR_TOKEN_END : row[1];
        }
    }
}

dr_status dr_tokenizer_encode_padded(dr_tokenizer *t, const char *text, size_t n_bytes,
                                     int max_token_length, dr_token_rows *out)
{
    check_length(max_token_length);
    int32_t ids[LONGEST];
    size_t n = 0;
    DR_TRY(dr_tokenizer_encode(t, text, n_bytes, ids, (size_t)max_token_length, &n));
    dr_tokenizer_rows(t, ids, n, max_token_length, out);
    return DR_OK;
}
