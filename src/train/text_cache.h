/*
 * train/text_cache.h - states of a frozen text encoder, kept from step to step.
 *
 * Layer:    train.
 * Threads:  one.
 *
 * The states of a caption depend on its token ids and on the encoder's weights alone, not on the
 * batch it stands in. So while the encoder is not trained, what it gave for a caption is kept, up
 * to a limit of memory, and is the same bit for bit. Whatever else changes the states (weights of
 * words, ...) must be part of the ids given here.
 */
#ifndef DR_TRAIN_TEXT_CACHE_H
#define DR_TRAIN_TEXT_CACHE_H

#include "dreamrun/status.h"

typedef struct dr_text_cache dr_text_cache;

/* A cache of at most max_bytes of states of n_ids ids; 0: it keeps nothing. */
dr_text_cache *dr_text_cache_create(size_t max_bytes, size_t n_ids);
void dr_text_cache_destroy(dr_text_cache *c); /* NULL is fine */
/* The states of a caption, or NULL; they live as long as the cache. */
const void *dr_text_cache_find(const dr_text_cache *c, const int32_t *ids);
/* Keeps bytes of states, when there is room. */
void dr_text_cache_add(dr_text_cache *c, const int32_t *ids, const void *states, size_t bytes);
size_t dr_text_cache_bytes(const dr_text_cache *c);

#endif
