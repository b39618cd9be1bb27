/*
 * text/bpe.h - byte pair encoding of one word with CLIP's merges.
 *
 * Layer:    text (private).
 * Threads:  a dr_bpe belongs to one thread at a time.
 */
#ifndef DR_TEXT_BPE_H
#define DR_TEXT_BPE_H

#include <stddef.h>
#include <stdint.h>

typedef struct dr_bpe { /* working memory and a cache of words; {0} is valid */
    uint16_t *symbols, *merged;
    size_t cap;
    struct dr_bpe_entry *cache;
} dr_bpe;

void dr_bpe_init(dr_bpe *b);
void dr_bpe_deinit(dr_bpe *b);
/* Ids of a word of n >= 1 bytes; *ids is valid until the next call. Returns their number. */
size_t dr_bpe_encode(dr_bpe *b, const char *word, size_t n, const uint16_t **ids);

#endif
