/*
 * text/tokenizer.h - captions to CLIP token ids.
 *
 * Layer:    text.  May include base/ only.
 * Threads:  a tokenizer belongs to one thread at a time; each thread creates its own (1 MiB, the
 *           vocabulary is shared and constant).
 * Reference: CLIPTokenizer (the slow one) of transformers 4 with ftfy installed, which is what
 *           sd-scripts uses. tests/interop/tokenizer_peers.py compares the two.
 */
#ifndef DR_TEXT_TOKENIZER_H
#define DR_TEXT_TOKENIZER_H

#include "base/str.h"

typedef enum dr_tokenizer_kind {
    DR_TOKENIZER_SD1, /* padding is the end token, 49407 */
    DR_TOKENIZER_SD2  /* padding is "!", 0, and so every "!" of a caption becomes a lone 0 */
} dr_tokenizer_kind;

enum {
    DR_TOKEN_START = 49406,
    DR_TOKEN_END = 49407,
    DR_TOKEN_ROW = 77,     /* ids per row: start, 75 tokens, end */
    DR_TOKEN_MAX_ROWS = 3, /* max_token_length 225 */
    DR_TOKEN_VOCAB = 49408
};

typedef struct dr_tokenizer dr_tokenizer;

/* Never NULL; the caller destroys it. */
dr_tokenizer *dr_tokenizer_create(dr_tokenizer_kind kind);
void dr_tokenizer_destroy(dr_tokenizer *t);

/*
 * Ids of a caption of n_bytes bytes, without start, end and padding.
 *
 * text:   UTF-8; NUL bytes are allowed (and dropped, as the reference does).
 * ids:    out, the first max ids.
 * n_ids:  out, how many ids the caption has; more than max means that the rest was left out.
 * Errors: DR_FORMAT when the text is not UTF-8 (with the byte's offset); outputs are untouched.
 */
DR_MUST_USE dr_status dr_tokenizer_encode(dr_tokenizer *t, const char *text, size_t n_bytes,
                                          int32_t *ids, size_t max, size_t *n_ids);

typedef struct dr_token_rows { /* what the text encoder reads, row by row */
    int32_t ids[DR_TOKEN_MAX_ROWS][DR_TOKEN_ROW];
    int n_rows;      /* max_token_length / 75 */
    int n_used;      /* start, tokens and end before padding, at most max_token_length + 2 */
    size_t n_tokens; /* tokens of the whole caption; above max_token_length they were cut off */
    bool truncated;  /* n_tokens > max_token_length: the caller should warn */
} dr_token_rows;

/*
 * Start, tokens, end and padding, in rows of 77. max_token_length is 75, 150 or 225 (DR_CHECK).
 * Longer captions fill several rows by sd-scripts' rules, which for SD2 put an end token after
 * 75 tokens of text and in place of a padding token (or "!") that opens a row.
 * With one row, its first n_used ids are the caption without padding (--no_token_padding).
 * Errors: as dr_tokenizer_encode; out is then undefined.
 */
DR_MUST_USE dr_status dr_tokenizer_encode_padded(dr_tokenizer *t, const char *text, size_t n_bytes,
                                                 int max_token_length, dr_token_rows *out);

/* The rows of a caption of n_tokens ids, of which the first max_token_length are given. */
void dr_tokenizer_rows(const dr_tokenizer *t, const int32_t *ids, size_t n_tokens,
                       int max_token_length, dr_token_rows *out);

/* The hub's tokenizer/vocab.json and tokenizer/merges.txt, byte for byte; appended to out. */
void dr_tokenizer_vocab_json(dr_str *out);
void dr_tokenizer_merges_txt(dr_str *out);
/* Writes the four files of a Diffusers model's tokenizer folder into dir, which must exist.
 * Errors: as dr_file_write. */
DR_MUST_USE dr_status dr_tokenizer_save(dr_tokenizer_kind kind, const char *dir);

#endif
