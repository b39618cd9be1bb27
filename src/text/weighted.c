#include "text/weighted.h"

#include "base/arena.h"

#include <stdlib.h>
#include <string.h>

enum { LONGEST = DR_TOKEN_MAX_ROWS * (DR_TOKEN_ROW - 2) };

typedef struct bracket_list { /* the part at which each open bracket stands */
    size_t *at;
    size_t n, cap;
} bracket_list;

static void push_bracket(bracket_list *l, size_t part)
{
    if (l->n == l->cap) {
        l->cap = l->cap > 0 ? l->cap * 2 : 16;
        l->at = dr_xrealloc(l->at, l->cap, sizeof *l->at);
    }
    l->at[l->n++] = part;
}

static void add_part(dr_weighted_text *w, const char *text, size_t n)
{
    if (w->n_parts == w->cap) {
        w->cap = w->cap > 0 ? w->cap * 2 : 16;
        w->parts = dr_xrealloc(w->parts, w->cap, sizeof *w->parts);
    }
    w->parts[w->n_parts++] = (dr_weighted_part){w->text.len, n, 1.0};
    dr_str_add_n(&w->text, text, n);
}

static void multiply_from(dr_weighted_text *w, size_t first, double factor)
{
    for (size_t i = first; i < w->n_parts; i++) {
        w->parts[i].weight *= factor;
    }
}

/* Length of ":number)" at s, or 0; a number is what the reference's pattern takes, if it is one. */
static size_t match_weight(const char *s, double *weight)
{
    char number[64];
    size_t sign = s[1] == '+' || s[1] == '-';
    size_t n = strspn(s + 1 + sign, ".0123456789");
    if (s[0] != ':' || n == 0 || s[1 + sign + n] != ')' || sign + n >= sizeof number) {
        return 0;
    }
    memcpy(number, s + 1, sign + n);
    number[sign + n] = '\0';
    *weight = 0.0;
    char *end = NULL;
    *weight = strtod(number, &end);
    return *end == '\0' ? sign + n + 2 : 0;
}

static bool is_mark(char c)
{
    return c != '\0' && strchr("\\()[]:", c) != NULL;
}

/* One element of the caption; returns its length. */
static size_t take_element(dr_weighted_text *w, const char *s, bracket_list *round,
                           bracket_list *square)
{
    double weight = 1.0;
    size_t n = match_weight(s, &weight);
    if (s[0] == '\\') {
        bool literal = s[1] != '\0' && strchr("()[]\\", s[1]) != NULL;
        add_part(w, s + 1, literal ? 1 : 0);
        return literal ? 2 : 1;
    }
    if (s[0] == '(' || s[0] == '[') {
        push_bracket(s[0] == '(' ? round : square, w->n_parts);
        return 1;
    }
    if (n > 0 && round->n > 0) {
        multiply_from(w, round->at[--round->n], weight);
        return n;
    }
    if (n == 0 && s[0] == ')' && round->n > 0) {
        multiply_from(w, round->at[--round->n], 1.1);
        return 1;
    }
    if (s[0] == ']' && square->n > 0) {
        multiply_from(w, square->at[--square->n], 1 / 1.1);
        return 1;
    }
    for (n = n > 0 ? n : 1; !is_mark(s[0]) && s[n] != '\0' && !is_mark(s[n]);) {
        n++;
    }
    add_part(w, s, n);
    return n;
}

static void merge_equal(dr_weighted_text *w)
{
    size_t n = 1;
    for (size_t i = 1; i < w->n_parts; i++) {
        dr_weighted_part *last = &w->parts[n - 1];
        if (w->parts[i].weight >= last->weight && w->parts[i].weight <= last->weight) {
            last->n += w->parts[i].n;
        } else {
            w->parts[n++] = w->parts[i];
        }
    }
    w->n_parts = n;
}

void dr_weighted_parse(dr_weighted_text *w, const char *caption)
{
    bracket_list round = {0};
    bracket_list square = {0};
    w->text.len = 0;
    w->n_parts = 0;
    dr_str_add(&w->text, "");
    while (*caption != '\0') {
        caption += take_element(w, caption, &round, &square);
    }
    for (size_t i = 0; i < round.n; i++) {
        multiply_from(w, round.at[i], 1.1);
    }
    for (size_t i = 0; i < square.n; i++) {
        multiply_from(w, square.at[i], 1 / 1.1);
    }
    if (w->n_parts == 0) {
        add_part(w, "", 0);
    }
    merge_equal(w);
    free(round.at);
    free(square.at);
}

void dr_weighted_free(dr_weighted_text *w)
{
    dr_str_free(&w->text);
    free(w->parts);
    *w = (dr_weighted_text){0};
}

dr_status dr_tokenizer_encode_weighted(dr_tokenizer *t, const char *caption, int max_token_length,
                                       dr_token_rows *out, float *weights)
{
    DR_CHECK(max_token_length <= LONGEST, "max_token_length is %d", max_token_length);
    int32_t ids[LONGEST];
    const size_t most = (size_t)max_token_length;
    size_t n_all = 0;
    size_t n = 0;
    dr_weighted_text w = {0};
    dr_status st = DR_OK;
    dr_weighted_parse(&w, caption);
    for (size_t i = 0; i < most + 2; i++) {
        weights[i] = 1.0f;
    }
    for (size_t i = 0; i < w.n_parts && st == DR_OK; i++) {
        const dr_weighted_part *part = &w.parts[i];
        size_t count = 0;
        st = dr_tokenizer_encode(t, w.text.data + part->begin, part->n, ids + n, most - n, &count);
        n_all += st == DR_OK ? count : 0;
        for (size_t k = 0; st == DR_OK && k < count && n < most; k++) {
            weights[1 + n++] = (float)part->weight;
        }
    }
    dr_weighted_free(&w);
    DR_TRY(st);
    dr_tokenizer_rows(t, ids, n_all, max_token_length, out);
    return DR_OK;
}
