/*
 * train/latents_cache.h - fills the latents of a dataset: disk first, then all ranks encode.
 *
 * Layer:    train.
 */
#ifndef DR_TRAIN_LATENTS_CACHE_H
#define DR_TRAIN_LATENTS_CACHE_H

#include "data/dataset.h"
#include "dist/dist.h"
#include "io/xxh3.h"

typedef struct dr_latents_fill {
    const dr_dataset *dataset;
    size_t n_sides; /* 2: mirrored pictures too. Entry = image * n_sides + side */
    const char *vae_hash;
    const char *cache_dir; /* NULL: nothing is read or written */
    float **latents;       /* out, (images * n_sides): (h,w,4), memory given */
    /* Encodes one entry with randomness keyed by its cache key. */
    dr_status (*encode)(void *user, size_t entry, dr_xxh3 key, float *out);
    void *user;
} dr_latents_fill;

/*
 * Collective. Keys are hashed by all ranks; rank 0 alone opens the cache (one writer), gives what
 * it holds to all, and stores what the ranks encode, in rounds of one picture per rank.
 */
DR_MUST_USE dr_status dr_latents_cache_fill(dr_dist *d, const dr_latents_fill *f);

#endif
