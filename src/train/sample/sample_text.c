#include "train/sample/sample_text.h"

#include "base/log.h"
#include "text/weighted.h"

#include <string.h>

enum { WINDOW = DR_TOKEN_ROW - 2, LONGEST = DR_TOKEN_MAX_ROWS * WINDOW };

typedef struct tokens { /* of one text */
    int32_t ids[LONGEST];
    float weights[LONGEST];
    size_t n, n_all; /* kept, and with those that were cut */
} tokens;

static dr_status take_tokens(const dr_sample_text_options *o, const char *text, tokens *out)
{
    const size_t most = (size_t)o->max_rows * WINDOW;
    dr_weighted_text w = {0};
    dr_status st = DR_OK;
    *out = (tokens){0};
    dr_weighted_parse(&w, text);
    for (size_t i = 0; i < w.n_parts && st == DR_OK; i++) {
        const dr_weighted_part *part = &w.parts[i];
        size_t count = 0;
        st = dr_tokenizer_encode(o->tokenizer, w.text.data + part->begin, part->n,
                                 out->ids + out->n, most - out->n, &count);
        out->n_all += st == DR_OK ? count : 0;
        for (size_t k = 0; st == DR_OK && k < count && out->n < most; k++) {
            out->weights[out->n++] = (float)part->weight;
        }
    }
    dr_weighted_free(&w);
    return st;
}

static dr_status tokens_of(const dr_sample_text_options *o, const char *what, const char *text,
                           tokens *out)
{
    dr_status st = take_tokens(o, text, out);
    if (st != DR_OK) {
        return dr_error_prefix(st, "%s", what);
    }
    if (out->n < out->n_all) {
        dr_warn("%s: %zu tokens, only the first %zu are used", what, out->n_all, out->n);
    }
    return DR_OK;
}

/*
 * Start, tokens, end, and end tokens to the right: one window after the other. SD 2.x, whose
 * padding token is "!" (0), has sd-scripts' rules for that token at a window's borders.
 */
static void fill_with_end(const dr_sample_text_options *o, const tokens *t, int n_rows,
                          int32_t *ids)
{
    const bool v2 = o->kind == DR_TOKENIZER_SD2;
    for (int r = 0; r < n_rows; r++) {
        int32_t *row = ids + (ptrdiff_t)r * DR_TOKEN_ROW;
        const size_t first = (size_t)r * WINDOW;
        row[0] = DR_TOKEN_START;
        for (size_t k = 0; k < WINDOW; k++) {
            row[1 + k] = first + k < t->n ? t->ids[first + k] : DR_TOKEN_END;
        }
        const bool zero_next = first + WINDOW < t->n && t->ids[first + WINDOW] == 0;
        row[DR_TOKEN_ROW - 1] = v2 && zero_next && r < n_rows - 1 ? 0 : DR_TOKEN_END;
        row[1] = v2 && n_rows > 1 && row[1] == 0 ? DR_TOKEN_END : row[1];
    }
}

static void fill(const dr_sample_text_options *o, const tokens *t, int index, dr_sample_text *out)
{
    const ptrdiff_t length = (ptrdiff_t)out->n_rows * DR_TOKEN_ROW;
    int32_t *ids = out->ids + index * length;
    float *weights = out->weights + index * length;
    if (o->pad_with_end) {
        fill_with_end(o, t, out->n_rows, ids);
    } else {
        dr_token_rows rows;
        dr_tokenizer_rows(o->tokenizer, t->ids, t->n, out->n_rows * WINDOW, &rows);
        memcpy(ids, rows.ids, (size_t)length * sizeof *ids);
    }
    for (ptrdiff_t i = 0; i < length; i++) {
        weights[i] = 1.0f;
    }
    for (size_t i = 0; i < t->n; i++) {
        weights[i / WINDOW * DR_TOKEN_ROW + 1 + i % WINDOW] = t->weights[i];
        out->weighted = out->weighted || t->weights[i] < 1.0f || t->weights[i] > 1.0f;
    }
}

dr_status dr_sample_text_encode(const dr_sample_text_options *o, const char *prompt,
                                const char *negative, dr_sample_text *out)
{
    tokens of_prompt;
    tokens of_negative = {0};
    *out = (dr_sample_text){.n_texts = negative != NULL ? 2 : 1};
    DR_TRY(tokens_of(o, "prompt", prompt, &of_prompt));
    if (negative != NULL) {
        DR_TRY(tokens_of(o, "negative prompt", negative, &of_negative));
    }
    const size_t longest = of_prompt.n > of_negative.n ? of_prompt.n : of_negative.n;
    out->n_rows = longest > 0 ? (int)((longest - 1) / WINDOW) + 1 : 1;
    if (negative != NULL) {
        fill(o, &of_negative, 0, out);
    }
    fill(o, &of_prompt, out->n_texts - 1, out);
    return DR_OK;
}

static double mean_of(const float *x, size_t n)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)x[i];
    }
    return sum / (double)n;
}

void dr_sample_text_weigh(const dr_sample_text *t, float *states, int64_t width)
{
    const size_t length = (size_t)t->n_rows * DR_TOKEN_ROW;
    const size_t n = length * (size_t)width;
    for (int text = 0; text < t->n_texts; text++) {
        float *x = states + (size_t)text * n;
        const float *weights = t->weights + (size_t)text * length;
        const double before = mean_of(x, n);
        for (size_t i = 0; i < n; i++) {
            x[i] *= weights[i / (size_t)width];
        }
        const float back = (float)(before / mean_of(x, n));
        for (size_t i = 0; i < n; i++) {
            x[i] *= back;
        }
    }
}
