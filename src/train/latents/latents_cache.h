/*
 * train/latents/latents_cache.h - the encoded pictures of a dataset, in memory or in the cache on
 * disk.
 *
 * Layer:    train.
 * Threads:  one.
 *
 * An entry is one side of a picture: image * n_sides + side, side 1 mirrored. Its values are
 * (h,w,channels) with h, w of the bucket / 8: moments [mean | logvar] (8 channels), or a latent (4)
 * where the VAE has no posterior, where one draw is kept for all uses, or where it was imported.
 */
#ifndef DR_TRAIN_LATENTS_CACHE_H
#define DR_TRAIN_LATENTS_CACHE_H

#include "data/dataset.h"
#include "dist/dist.h"
#include "io/xxh3.h"
#include "tensor/dtype.h"
#include "train/latents/latents_work.h"

typedef struct dr_cached_latents dr_cached_latents;

typedef struct dr_cached_latents_config {
    const dr_dataset *dataset; /* must outlive the latents */
    size_t n_sides;            /* 2: mirrored pictures too */
    const char *vae_hash;
    const char *cache_dir; /* HDF5 folder; NULL: nothing is read or written */
    const char *kind;      /* of new entries: "moments", "latent" */
    int64_t channels;      /* of new entries */
    dr_dtype stored;       /* F32, F16, BF16: what values are rounded to, in memory too */
    uint32_t batch;        /* pictures encoded at once, of one size */
    bool fill_only;        /* nothing is read afterwards */
    /* Before the first encode, where one rank encodes everything: all entries in the order of the
     * batches. They stay until the last encode. */
    void (*expect)(void *user, const uint32_t *entries, size_t n);
    /*
     * Values of the batch's entries, (h,w,channels) each, one after the other. keys: their cache
     * keys, which any randomness must come from.
     */
    dr_status (*encode)(void *user, dr_encode_batch batch, const dr_xxh3 *keys, float *out);
    /* What the VAE makes of one entry, (h,w,channels) of at most 8, whatever kind says. */
    dr_status (*moments)(void *user, size_t entry, float *out, int64_t *channels);
    void *user;
} dr_cached_latents_config;

/*
 * Collective. Keys are hashed by all ranks; rank 0 alone writes the cache (one writer) and says
 * which entries are missing and why; all ranks encode them, each as fast as it can. With a
 * cache_dir, ranks that see rank 0's folder read from it afterwards and keep nothing in memory; the
 * others, and all without a cache_dir, hold all entries.
 */
DR_MUST_USE dr_status dr_cached_latents_create(dr_dist *d, const dr_cached_latents_config *c,
                                               dr_cached_latents **out);
void dr_cached_latents_destroy(dr_cached_latents *l); /* NULL is fine */

/* Floats of the largest entry. */
size_t dr_cached_latents_max_values(const dr_cached_latents *l);
/* Values of an entry, and how many channels they have. Errors: those of the cache on disk. */
DR_MUST_USE dr_status dr_cached_latents_read(dr_cached_latents *l, size_t entry, float *out,
                                             int64_t *channels);
/* Host memory that the values take. */
size_t dr_cached_latents_bytes(const dr_cached_latents *l);

#endif
