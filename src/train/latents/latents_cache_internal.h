/*
 * train/latents/latents_cache_internal.h - the state of the cached latents. Private to train.
 */
#ifndef DR_TRAIN_LATENTS_CACHE_INTERNAL_H
#define DR_TRAIN_LATENTS_CACHE_INTERNAL_H

#include "io/latent_cache.h"
#include "train/latents/latents_cache.h"

struct dr_cached_latents {
    dr_cached_latents_config c;
    dr_dist *dist;
    size_t n;                /* entries */
    dr_xxh3 *content;        /* (images): hashes of the files */
    unsigned char *channels; /* (n); 0: not there */
    bool *imported;          /* (n): from another program's file */
    void **values;           /* (n): (h,w,channels) as c.stored; NULL: on disk */
    size_t bytes;
    dr_latent_cache *disk; /* NULL: no cache_dir, or another host's */
    float *scratch;        /* the largest entry */
    /* while encoding, on rank 0 */
    size_t n_todo, n_done;
    double started_s, said_s;
};

/* The cache key of an entry of a kind. */
dr_xxh3 dr_latents_key(const dr_cached_latents *l, size_t entry, const char *kind);
dr_latent_shape dr_latents_shape(const dr_cached_latents *l, size_t entry, int64_t channels);
const dr_dataset_image *dr_latents_image(const dr_cached_latents *l, size_t entry);
bool dr_latents_is_flipped(const dr_cached_latents *l, size_t entry);
/* "512x768" and "left,top" as the cache writes them. */
void dr_latents_words(const dr_cached_latents *l, size_t entry, char bucket[32], char crop[32]);
/* Keeps an entry's values (h,w,channels), in memory or on disk; rounds them in place. */
DR_MUST_USE dr_status dr_latents_keep(dr_cached_latents *l, size_t entry, int64_t channels,
                                      const char *kind, float *hwc);

/* From the cache's order to that of memory. */
void dr_latents_chw_to_hwc(const float *chw, dr_latent_shape s, float *hwc);
/* Takes what is missing from sd-scripts' caches, after checks. Errors: those of keeping it. */
DR_MUST_USE dr_status dr_latents_import(dr_cached_latents *l);

/* Says of every missing entry that the cache knows in another form what has changed. */
void dr_latents_explain_misses(dr_cached_latents *l);

#endif
