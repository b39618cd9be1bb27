/*
 * text/vocabulary.h - CLIP's 49,408 tokens: byte symbols, merges, specials.
 *
 * Layer:    text (private); also used by gen_vocab at build time.
 * Source:   OpenAI CLIP, bpe_simple_vocab_16e6.txt (MIT licence).
 *
 * Ids: 0..255 byte symbols; 256..511 the same at the end of a word; 512 + r the result of merge r,
 * merges in order of rank; then start and end of text. A merge's parts have smaller ids than its
 * result, so an id is also its merge's rank.
 */
#ifndef DR_TEXT_VOCABULARY_H
#define DR_TEXT_VOCABULARY_H

#include <stdint.h>

enum {
    DR_VOCAB_WORD_END = 256, /* added to a byte symbol at the end of a word */
    DR_VOCAB_FIRST_MERGE = 512,
    DR_VOCAB_N_MERGES = 48894,
    DR_VOCAB_START = 49406, /* <|startoftext|> */
    DR_VOCAB_END = 49407,   /* <|endoftext|> */
    DR_VOCAB_SIZE = 49408
};

/* The symbol (0..255) of a byte, and the code point that stands for a symbol in vocab.json:
 * printable bytes stand for themselves and come first; the other 68 follow as U+0100... */
uint16_t dr_vocab_symbol_of_byte(unsigned byte);
uint32_t dr_vocab_codepoint_of_symbol(unsigned symbol);

/* Generated (vocab_data.c). Parts of merge r. */
extern const uint16_t dr_vocab_left[DR_VOCAB_N_MERGES];
extern const uint16_t dr_vocab_right[DR_VOCAB_N_MERGES];
/* Merges sorted by (left, right); those with left = id are by_pair[first[id]] .. first[id + 1]. */
extern const uint16_t dr_vocab_by_pair[DR_VOCAB_N_MERGES];
extern const uint16_t dr_vocab_first[DR_VOCAB_SIZE + 1];

#endif
