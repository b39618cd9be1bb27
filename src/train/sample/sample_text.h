/*
 * train/sample/sample_text.h - prompts as the text encoder reads them for a sample picture.
 *
 * Layer:    train.
 * Source:   sd-scripts' lpw_stable_diffusion.py (get_weighted_text_embeddings);
 *           tests/interop/sample_peers.py compares.
 *
 * Prompt and negative prompt get the same number of windows of 75 tokens, as many as the longer one
 * needs. Every window keeps its start and end token, so n windows are 77 n positions (training's
 * captions: 75 n + 2). Weights "(red:1.3)" multiply the states of their tokens, and then all states
 * of the text so that their mean stays what it was.
 */
#ifndef DR_TRAIN_SAMPLE_TEXT_H
#define DR_TRAIN_SAMPLE_TEXT_H

#include "text/tokenizer.h"

enum { DR_SAMPLE_MAX_POSITIONS = DR_TOKEN_MAX_ROWS * DR_TOKEN_ROW, DR_SAMPLE_MAX_TEXTS = 2 };

typedef struct dr_sample_text {
    int n_texts; /* 2: negative prompt, prompt; 1: prompt */
    int n_rows;  /* windows of each */
    int32_t ids[DR_SAMPLE_MAX_TEXTS * DR_SAMPLE_MAX_POSITIONS]; /* (n_texts * n_rows, 77) */
    float weights[DR_SAMPLE_MAX_TEXTS * DR_SAMPLE_MAX_POSITIONS];
    bool weighted; /* one of them is not 1 */
} dr_sample_text;

typedef struct dr_sample_text_options {
    dr_tokenizer *tokenizer;
    dr_tokenizer_kind kind;
    bool pad_with_end; /* as sd-scripts' samples of SD 2.x; else as in training */
    int max_rows;      /* 1, 2, 3: longer prompts are cut, with a warning */
} dr_sample_text_options;

/* negative NULL: one text. Errors: DR_FORMAT (not UTF-8). */
DR_MUST_USE dr_status dr_sample_text_encode(const dr_sample_text_options *o, const char *prompt,
                                            const char *negative, dr_sample_text *out);
/* states (n_texts, 77 n_rows, width) of ids, in place. */
void dr_sample_text_weigh(const dr_sample_text *t, float *states, int64_t width);

#endif
