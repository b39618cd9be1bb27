#include "data/caption.h"

#include "base/arena.h"
#include "base/philox.h"
#include "data/pytext.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

dr_caption_options dr_caption_options_default(void)
{
    return (dr_caption_options){.separator = ",", .warmup_min = 1};
}

static dr_status check_rate(const char *flag, double rate)
{
    if (rate >= 0.0 && rate <= 1.0) {
        return DR_OK;
    }
    DR_FAIL(DR_INVALID, "--%s %g is not between 0 and 1", flag, rate);
}

static dr_status check_count(const char *flag, int32_t count)
{
    if (count >= 0) {
        return DR_OK;
    }
    DR_FAIL(DR_INVALID, "--%s %d is negative", flag, count);
}

dr_status dr_caption_options_validate(const dr_caption_options *o)
{
    DR_TRY(check_rate("caption_dropout_rate", o->dropout_rate));
    DR_TRY(check_rate("caption_tag_dropout_rate", o->tag_dropout_rate));
    DR_TRY(check_count("keep_tokens", o->keep_tokens));
    DR_TRY(check_count("caption_dropout_every_n_epochs", o->dropout_every_n_epochs));
    DR_TRY(check_count("token_warmup_min", o->warmup_min));
    if (!(o->warmup_steps >= 0.0)) {
        DR_FAIL(DR_INVALID, "--token_warmup_step %g is negative", o->warmup_steps);
    }
    if (o->separator[0] == '\0') {
        DR_FAIL(DR_INVALID, "--caption_separator is empty; expected at least one character");
    }
    return DR_OK;
}

bool dr_caption_varies(const dr_caption_options *o)
{
    return o->wildcard || o->shuffle || o->dropout_rate > 0.0 || o->dropout_every_n_epochs > 0 ||
           o->tag_dropout_rate > 0.0 || o->warmup_steps > 0.0;
}

static bool has_text(const char *s)
{
    return s != NULL && s[0] != '\0';
}

/* --- wildcards ---------------------------------------------------------------------------------
 */

/* Stand for literal braces; no byte of UTF-8 text has these values. */
#define OPEN_BRACE  '\xfe'
#define CLOSE_BRACE '\xff'

/* Every pair of the character, from left to right, becomes one mark. */
static void mark_pairs(dr_str *s, char brace, char mark)
{
    size_t n = 0;
    for (size_t i = 0; i < s->len; i++) {
        bool pair = s->data[i] == brace && i + 1 < s->len && s->data[i + 1] == brace;
        s->data[n++] = pair ? mark : s->data[i];
        i += pair;
    }
    s->len = n;
    s->data[n] = '\0';
}

/* One of the pieces of text[0..n) between the characters `at`. */
static void add_one_of(dr_philox *random, const char *text, size_t n, char at, dr_str *out)
{
    uint32_t count = 1;
    for (size_t i = 0; i < n; i++) {
        count += text[i] == at;
    }
    uint32_t pick = dr_philox_below(random, count);
    size_t begin = 0;
    while (pick > 0) {
        pick -= text[begin++] == at;
    }
    size_t end = begin;
    while (end < n && text[end] != at) {
        end++;
    }
    dr_str_add_n(out, text + begin, end - begin);
}

/* Replaces every {a|b|c}; braces do not nest. */
static void expand_wildcards(dr_philox *random, dr_str *s)
{
    dr_str out = {0};
    dr_str_add(&out, "");
    mark_pairs(s, '{', OPEN_BRACE);
    mark_pairs(s, '}', CLOSE_BRACE);
    for (size_t i = 0; i < s->len;) {
        const char *close = s->data[i] == '{' ? strchr(s->data + i + 1, '}') : NULL;
        size_t n = close != NULL ? (size_t)(close - s->data) - i - 1 : 0;
        if (n > 0) {
            add_one_of(random, s->data + i + 1, n, '|', &out);
            i += n + 2;
        } else {
            dr_str_add_n(&out, s->data + i++, 1);
        }
    }
    for (size_t i = 0; i < out.len; i++) {
        char c = out.data[i];
        out.data[i] = c == OPEN_BRACE ? '{' : c == CLOSE_BRACE ? '}' : c;
    }
    dr_str_free(s);
    *s = out;
}

static void choose_line(const dr_caption_options *o, dr_philox *random, dr_str *s)
{
    size_t line = strcspn(dr_str_get(s), "\n");
    if (line == s->len) {
        return;
    }
    if (!o->wildcard) {
        s->len = line;
        s->data[line] = '\0';
        return;
    }
    dr_str chosen = {0};
    dr_str_add(&chosen, "");
    add_one_of(random, s->data, s->len, '\n', &chosen);
    dr_str_free(s);
    *s = chosen;
}

/* --- tags --------------------------------------------------------------------------------------
 */

typedef struct span { /* a piece of text, not terminated */
    const char *text;
    size_t n;
} span;

typedef struct tag_list {
    span *at;
    size_t n, cap;
} tag_list;

static void add_tag(tag_list *tags, span tag)
{
    if (tags->n == tags->cap) {
        tags->cap = tags->cap > 0 ? tags->cap * 2 : 32;
        tags->at = dr_xrealloc(tags->at, tags->cap, sizeof *tags->at);
    }
    tags->at[tags->n++] = tag;
}

/* Where the word begins in the text, or NULL. */
static const char *find_word(span s, const char *word)
{
    size_t n = strlen(word);
    for (size_t i = 0; n > 0 && n <= s.n && i <= s.n - n; i++) {
        if (memcmp(s.text + i, word, n) == 0) {
            return s.text + i;
        }
    }
    return NULL;
}

/* The text in front of the word; s becomes what follows it. */
static span cut_before(span *s, const char *word, const char *at)
{
    span before = {s->text, (size_t)(at - s->text)};
    size_t skip = before.n + strlen(word);
    *s = (span){s->text + skip, s->n - skip};
    return before;
}

/* text.split(separator), each part stripped. */
static void split_tags(span text, const char *separator, bool keep_empty, tag_list *out)
{
    for (;;) {
        const char *at = find_word(text, separator);
        span tag = at != NULL ? cut_before(&text, separator, at) : text;
        dr_py_strip(&tag.text, &tag.n);
        if (keep_empty || tag.n > 0) {
            add_tag(out, tag);
        }
        if (at == NULL) {
            return;
        }
    }
}

typedef struct tagged_caption {
    tag_list fixed, flexible, last;
} tagged_caption;

static void split_caption(const dr_caption_options *o, span caption, tagged_caption *out)
{
    const char *at = has_text(o->keep_separator) ? find_word(caption, o->keep_separator) : NULL;
    if (at != NULL) {
        split_tags(cut_before(&caption, o->keep_separator, at), o->separator, false, &out->fixed);
        at = find_word(caption, o->keep_separator);
        span flexible = at != NULL ? cut_before(&caption, o->keep_separator, at) : caption;
        split_tags(flexible, o->separator, false, &out->flexible);
        if (at != NULL) {
            split_tags(caption, o->separator, false, &out->last);
        }
        return;
    }
    dr_py_strip(&caption.text, &caption.n);
    split_tags(caption, o->separator, true, &out->flexible);
    size_t keep = (size_t)o->keep_tokens;
    keep = keep < out->flexible.n ? keep : out->flexible.n;
    for (size_t i = 0; i < keep; i++) {
        add_tag(&out->fixed, out->flexible.at[i]);
    }
    out->flexible.n -= keep;
    memmove(out->flexible.at, out->flexible.at + keep, out->flexible.n * sizeof(span));
}

/* Tags left of n at this step: from warmup_min to all of them over the warm-up. */
static size_t warm_tags(const dr_caption_options *o, const dr_caption_use *use, size_t n)
{
    double steps =
        o->warmup_steps < 1.0 ? floor(o->warmup_steps * (double)use->n_steps) : o->warmup_steps;
    if (!((double)use->step < steps)) {
        return n;
    }
    double rise = ((double)n - (double)o->warmup_min) / steps;
    double left = floor((double)use->step * rise) + (double)o->warmup_min;
    return left >= (double)n ? n : left > 0.0 ? (size_t)left : 0;
}

static void shuffle_tags(dr_philox *random, tag_list *tags)
{
    for (size_t i = tags->n; i > 1; i--) {
        size_t j = dr_philox_below(random, (uint32_t)i);
        span t = tags->at[i - 1];
        tags->at[i - 1] = tags->at[j];
        tags->at[j] = t;
    }
}

static void drop_tags(dr_philox *random, double rate, tag_list *tags)
{
    size_t n = 0;
    for (size_t i = 0; i < tags->n; i++) {
        if ((double)dr_philox_uniform(random) >= rate) {
            tags->at[n++] = tags->at[i];
        }
    }
    tags->n = n;
}

static void join_tags(const tag_list *tags, bool *any, dr_str *out)
{
    for (size_t i = 0; i < tags->n; i++) {
        dr_str_add(out, *any ? ", " : "");
        dr_str_add_n(out, tags->at[i].text, tags->at[i].n);
        *any = true;
    }
}

static void process_tags(const dr_caption_options *o, const dr_caption_use *use, dr_philox *random,
                         dr_str *s)
{
    tagged_caption t = {0};
    dr_str out = {0};
    bool any = false;
    split_caption(o, (span){dr_str_get(s), s->len}, &t);
    t.flexible.n = warm_tags(o, use, t.flexible.n);
    if (o->shuffle) {
        shuffle_tags(random, &t.flexible);
    }
    if (o->tag_dropout_rate > 0.0) {
        drop_tags(random, o->tag_dropout_rate, &t.flexible);
    }
    dr_str_add(&out, "");
    join_tags(&t.fixed, &any, &out);
    join_tags(&t.flexible, &any, &out);
    join_tags(&t.last, &any, &out);
    free(t.fixed.at);
    free(t.flexible.at);
    free(t.last.at);
    dr_str_free(s);
    *s = out;
}

static void replace_all(dr_str *s, const char *word, const char *by)
{
    dr_str out = {0};
    dr_str_add(&out, "");
    span rest = {dr_str_get(s), s->len};
    for (const char *at = find_word(rest, word); at != NULL; at = find_word(rest, word)) {
        span before = cut_before(&rest, word, at);
        dr_str_add_n(&out, before.text, before.n);
        dr_str_add(&out, by);
    }
    dr_str_add_n(&out, rest.text, rest.n);
    dr_str_free(s);
    *s = out;
}

void dr_caption_process(const dr_caption_options *o, const char *caption, const dr_caption_use *use,
                        dr_str *out)
{
    out->len = 0;
    dr_str_add(out, "");
    dr_philox random;
    dr_philox_init(&random, use->seed, DR_RANDOM_CAPTION, use->epoch, use->sample);
    double u =
        (double)dr_philox_uniform(&random); /* always drawn: other options keep their draws */
    bool off_epoch =
        o->dropout_every_n_epochs > 0 && use->epoch % (uint32_t)o->dropout_every_n_epochs == 0;
    if (u < o->dropout_rate || off_epoch) {
        return;
    }
    if (has_text(o->prefix)) {
        dr_str_printf(out, "%s ", o->prefix);
    }
    dr_str_add(out, caption);
    if (has_text(o->suffix)) {
        dr_str_printf(out, " %s", o->suffix);
    }
    choose_line(o, &random, out);
    if (o->wildcard) {
        expand_wildcards(&random, out);
    }
    if (o->shuffle || o->tag_dropout_rate > 0.0 || o->warmup_steps > 0.0) {
        process_tags(o, use, &random, out);
    }
    if (has_text(o->secondary)) {
        replace_all(out, o->secondary, o->separator);
    }
}
