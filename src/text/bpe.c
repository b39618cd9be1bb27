#include "text/bpe.h"

#include "base/arena.h"
#include "text/vocabulary.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
    NO_MERGE = 0xFFFF,
    N_CACHED = 1 << 14, /* words of a data set repeat: 1 MiB holds what captions commonly use */
    CACHED_BYTES = 48,
    CACHED_IDS = 7
};

typedef struct dr_bpe_entry { /* one cache line; direct mapped */
    uint8_t n_bytes, n_ids;   /* n_bytes 0: empty */
    uint16_t ids[CACHED_IDS];
    char word[CACHED_BYTES];
} dr_bpe_entry;

void dr_bpe_init(dr_bpe *b)
{
    memset(b, 0, sizeof *b);
    b->cache = dr_xcalloc(N_CACHED, sizeof *b->cache);
}

void dr_bpe_deinit(dr_bpe *b)
{
    free(b->symbols);
    free(b->merged);
    free(b->cache);
    memset(b, 0, sizeof *b);
}

/* Id of the token that left and right merge into, or NO_MERGE. */
static uint16_t find_merge(uint16_t left, uint16_t right)
{
    unsigned low = dr_vocab_first[left];
    unsigned high = dr_vocab_first[left + 1];
    while (low < high) {
        unsigned mid = (low + high) / 2;
        uint16_t rank = dr_vocab_by_pair[mid];
        if (dr_vocab_right[rank] == right) {
            return (uint16_t)(DR_VOCAB_FIRST_MERGE + rank);
        }
        if (dr_vocab_right[rank] < right) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return NO_MERGE;
}

/* Applies one merge everywhere, left to right; merged[i] stays the merge of symbols i and i + 1. */
static size_t apply_merge(uint16_t *symbols, uint16_t *merged, size_t n, uint16_t merge)
{
    size_t out = 0;
    for (size_t i = 0; i < n; i++) {
        bool hit = i + 1 < n && merged[i] == merge;
        i += hit ? 1 : 0;
        symbols[out] = hit ? merge : symbols[i];
        merged[out] = merged[i];
        out++;
    }
    for (size_t i = 0; i + 1 < out; i++) {
        if (symbols[i] == merge || symbols[i + 1] == merge) {
            merged[i] = find_merge(symbols[i], symbols[i + 1]);
        }
    }
    return out;
}

static size_t merge_all(uint16_t *symbols, uint16_t *merged, size_t n)
{
    for (size_t i = 0; i + 1 < n; i++) {
        merged[i] = find_merge(symbols[i], symbols[i + 1]);
    }
    for (;;) {
        uint16_t best = NO_MERGE;
        for (size_t i = 0; i + 1 < n; i++) {
            best = merged[i] < best ? merged[i] : best;
        }
        if (best == NO_MERGE) {
            return n;
        }
        n = apply_merge(symbols, merged, n, best);
    }
}

static size_t encode_word(dr_bpe *b, const char *word, size_t n)
{
    if (n > b->cap) {
        b->cap = 2 * n + 64;
        b->symbols = dr_xrealloc(b->symbols, b->cap, sizeof *b->symbols);
        b->merged = dr_xrealloc(b->merged, b->cap, sizeof *b->merged);
    }
    for (size_t i = 0; i < n; i++) {
        b->symbols[i] = dr_vocab_symbol_of_byte((unsigned char)word[i]);
    }
    b->symbols[n - 1] = (uint16_t)(b->symbols[n - 1] + DR_VOCAB_WORD_END);
    return merge_all(b->symbols, b->merged, n);
}

static uint32_t hash_word(const char *word, size_t n)
{
    uint32_t h = 2166136261U; /* FNV-1a */
    for (size_t i = 0; i < n; i++) {
        h = (h ^ (unsigned char)word[i]) * 16777619U;
    }
    return h ^ h >> 15;
}

size_t dr_bpe_encode(dr_bpe *b, const char *word, size_t n, const uint16_t **ids)
{
    if (n > CACHED_BYTES) {
        size_t n_ids = encode_word(b, word, n);
        *ids = b->symbols;
        return n_ids;
    }
    dr_bpe_entry *entry = &b->cache[hash_word(word, n) % N_CACHED];
    if (entry->n_bytes != n || memcmp(entry->word, word, n) != 0) {
        size_t n_ids = encode_word(b, word, n);
        if (n_ids > CACHED_IDS) {
            *ids = b->symbols;
            return n_ids;
        }
        entry->n_bytes = (uint8_t)n;
        entry->n_ids = (uint8_t)n_ids;
        memcpy(entry->word, word, n);
        memcpy(entry->ids, b->symbols, n_ids * sizeof *entry->ids);
    }
    *ids = entry->ids;
    return entry->n_ids;
}
