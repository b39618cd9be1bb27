/*
 * text/weighted.h - captions with weights: "a (red:1.3) [round] dog".
 *
 * Layer:    text.
 * Source:   sd-scripts' parse_prompt_attention (from the WebUI): (x) is 1.1 times as strong, (x:w)
 * w times, [x] 1/1.1 times; brackets nest; a backslash makes a bracket literal; a bracket that is
 * never closed reaches to the end. tests/interop/data_peers.py compares.
 */
#ifndef DR_TEXT_WEIGHTED_H
#define DR_TEXT_WEIGHTED_H

#include "text/tokenizer.h"

typedef struct dr_weighted_part {
    size_t begin, n; /* its text in dr_weighted_text.text */
    double weight;
} dr_weighted_part;

typedef struct dr_weighted_text { /* start with {0}; capacities are reused */
    dr_str text;                  /* without the marks */
    dr_weighted_part *parts;      /* neighbours of equal weight are one */
    size_t n_parts, cap;
} dr_weighted_text;

/* Takes a caption apart; never fails. */
void dr_weighted_parse(dr_weighted_text *w, const char *caption);
void dr_weighted_free(dr_weighted_text *w);

/*
 * As dr_tokenizer_encode_padded, with every part tokenised by itself. weights: out, one for each of
 * the max_token_length + 2 positions of the joined rows; start, end and padding have 1.
 */
DR_MUST_USE dr_status dr_tokenizer_encode_weighted(dr_tokenizer *t, const char *caption,
                                                   int max_token_length, dr_token_rows *out,
                                                   float *weights);

#endif
