/*
 * The captions of a leaf: processed, tokenised, with or without padding and weights.
 */
#include "base/log.h"
#include "text/weighted.h"
#include "train/run_internal.h"

#include <stdlib.h>
#include <string.h>

static void warn_truncated(dr_run *r, const dr_token_rows *rows, const char *path)
{
    if (rows->truncated && r->n_truncated++ == 0) {
        dr_warn("%s: the caption has %zu tokens, %d are used%s", path, rows->n_tokens,
                75 * r->c->n_token_rows,
                r->c->n_token_rows == 1 ? " (--max_token_length 150 or 225 uses more)" : "");
    }
}

void dr_run_caption(const dr_run *r, const dr_sample_ref *ref, uint32_t epoch, dr_str *caption)
{
    const dr_dataset_image *im = &r->dataset.images[ref->image];
    dr_caption_process(&r->dataset.subsets[im->subset].options->captions, im->caption,
                       &(dr_caption_use){.seed = dr_run_seed(r, epoch),
                                         .epoch = epoch,
                                         .sample = ref->sample,
                                         .step = r->step,
                                         .n_steps = r->n_steps},
                       caption);
}

/* Tokens of one sample; weights has one place for each position, or is NULL. */
static dr_status encode(dr_run *r, const dr_sample_ref *ref, uint32_t epoch, dr_token_rows *rows,
                        float *weights)
{
    const dr_dataset_image *im = &r->dataset.images[ref->image];
    const int length = 75 * r->c->n_token_rows;
    dr_str caption = {0};
    dr_run_caption(r, ref, epoch, &caption);
    dr_status st = weights != NULL ? dr_tokenizer_encode_weighted(
                                         r->tokenizer, dr_str_get(&caption), length, rows, weights)
                                   : dr_tokenizer_encode_padded(r->tokenizer, dr_str_get(&caption),
                                                                caption.len, length, rows);
    dr_str_free(&caption);
    if (st != DR_OK) {
        return dr_error_prefix(st, "caption of %s", im->path);
    }
    warn_truncated(r, rows, im->path);
    return DR_OK;
}

/* Cuts the rows of n captions, each `from` long, down to `to`. */
static void cut_rows(dr_leaf_text *text, size_t n, size_t from, size_t to)
{
    for (size_t i = 0; i < n; i++) {
        memmove(text->ids + i * to, text->ids + i * from, to * sizeof *text->ids);
        if (text->weights != NULL) {
            memmove(text->weights + i * to, text->weights + i * from, to * sizeof *text->weights);
        }
    }
}

dr_status dr_run_leaf_text(dr_run *r, const dr_leaf *leaf, uint32_t epoch, dr_leaf_text *text)
{
    const size_t ids = (size_t)r->c->n_token_rows * DR_TOKEN_ROW;
    const size_t joined = (size_t)dr_context_length(&r->net);
    int longest = 0;
    *text =
        (dr_leaf_text){.ids = dr_xcalloc(leaf->n * ids, sizeof *text->ids), .length = DR_TOKEN_ROW};
    if (r->c->weighted_captions) {
        text->weights = dr_xcalloc(leaf->n * joined, sizeof *text->weights);
    }
    for (uint32_t i = 0; i < leaf->n; i++) {
        dr_token_rows rows;
        float *weights = text->weights != NULL ? text->weights + i * joined : NULL;
        DR_TRY(encode(r, &leaf->samples[i], epoch, &rows, weights));
        memcpy(text->ids + i * ids, rows.ids, ids * sizeof *text->ids);
        longest = rows.n_used > longest ? rows.n_used : longest;
    }
    if (r->c->no_token_padding) {
        text->length = longest;
        cut_rows(text, leaf->n, DR_TOKEN_ROW, (size_t)longest);
    }
    return DR_OK;
}

void dr_leaf_text_free(dr_leaf_text *text)
{
    free(text->ids);
    free(text->weights);
    *text = (dr_leaf_text){0};
}
