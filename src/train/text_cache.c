#include "train/text_cache.h"

#include "base/arena.h"
#include "io/xxh3.h"

#include <stdlib.h>
#include <string.h>

typedef struct kept {
    uint64_t hash; /* of ids */
    int32_t *ids;  /* (n_ids); NULL: an empty slot */
    void *states;
} kept;

struct dr_text_cache {
    size_t max_bytes, bytes, n_ids;
    kept *slots; /* open addressing; n_slots is a power of two, at most half full */
    size_t n_slots, n;
};

dr_text_cache *dr_text_cache_create(size_t max_bytes, size_t n_ids)
{
    dr_text_cache *c = dr_xcalloc(1, sizeof *c);
    *c = (dr_text_cache){.max_bytes = max_bytes, .n_ids = n_ids, .n_slots = 64};
    c->slots = dr_xcalloc(c->n_slots, sizeof *c->slots);
    return c;
}

void dr_text_cache_destroy(dr_text_cache *c)
{
    if (c == NULL) {
        return;
    }
    for (size_t i = 0; i < c->n_slots; i++) {
        free(c->slots[i].ids);
        free(c->slots[i].states);
    }
    free(c->slots);
    free(c);
}

static kept *slot_of(const dr_text_cache *c, const int32_t *ids, uint64_t hash)
{
    size_t at = (size_t)hash & (c->n_slots - 1);
    while (
        c->slots[at].ids != NULL &&
        (c->slots[at].hash != hash || memcmp(c->slots[at].ids, ids, c->n_ids * sizeof *ids) != 0)) {
        at = (at + 1) & (c->n_slots - 1);
    }
    return &c->slots[at];
}

const void *dr_text_cache_find(const dr_text_cache *c, const int32_t *ids)
{
    return slot_of(c, ids, dr_xxh3_bytes(ids, c->n_ids * sizeof *ids).low)->states;
}

static void grow(dr_text_cache *c)
{
    kept *old = c->slots;
    size_t n_old = c->n_slots;
    c->n_slots *= 2;
    c->slots = dr_xcalloc(c->n_slots, sizeof *c->slots);
    for (size_t i = 0; i < n_old; i++) {
        if (old[i].ids != NULL) {
            *slot_of(c, old[i].ids, old[i].hash) = old[i];
        }
    }
    free(old);
}

void dr_text_cache_add(dr_text_cache *c, const int32_t *ids, const void *states, size_t bytes)
{
    uint64_t hash = dr_xxh3_bytes(ids, c->n_ids * sizeof *ids).low;
    void *copy = NULL;
    if (c->max_bytes - c->bytes < bytes || slot_of(c, ids, hash)->ids != NULL ||
        dr_try_calloc(bytes, 1, &copy) != DR_OK) {
        dr_error_clear(); /* no memory: the encoder runs again, that is all */
        return;
    }
    if (2 * (c->n + 1) > c->n_slots) {
        grow(c);
    }
    kept *k = slot_of(c, ids, hash);
    *k = (kept){hash, dr_xcalloc(c->n_ids, sizeof *ids), copy};
    memcpy(k->ids, ids, c->n_ids * sizeof *ids);
    memcpy(k->states, states, bytes);
    c->bytes += bytes;
    c->n++;
}

size_t dr_text_cache_bytes(const dr_text_cache *c)
{
    return c->bytes;
}
