/*
 * train/latents.h - the latent of every sample: from memory, from the cache on disk, or encoded
 * when it is needed.
 *
 * Layer:    train.
 * Caching draws the posterior sample of a picture once, keyed by its cache key, so a latent is the
 * same in every run with that picture, crop and VAE. Without caching it is drawn anew for every
 * (epoch, sample).
 */
#ifndef DR_TRAIN_LATENTS_H
#define DR_TRAIN_LATENTS_H

#include "data/dataset.h"
#include "dist/dist.h"
#include "train/model_file.h"

typedef struct dr_latents dr_latents;

typedef struct dr_latents_config {
    const dr_backend *backend;
    int threads;
    const dr_dataset *dataset; /* must outlive the latents */
    const dr_model_file *file; /* its VAE; must outlive the latents when not cached */
    const char *vae_hash;
    bool cached;           /* --cache_latents */
    const char *cache_dir; /* --cache_latents_to_disk: HDF5 folder; NULL: memory only */
    bool flip;             /* --flip_aug */
    uint64_t seed;
} dr_latents_config;

/*
 * Collective. With caching: all ranks encode, rank 0 is the only one to touch the cache's files,
 * every rank ends with all latents in memory, and the VAE is freed. DR_NUMERIC names a picture
 * whose latent is not finite.
 */
DR_MUST_USE dr_status dr_latents_create(dr_dist *d, const dr_latents_config *c, dr_latents **out);
void dr_latents_destroy(dr_latents *l);

/* Side of the latent of an image: bucket size / 8. */
void dr_latents_size(const dr_latents *l, size_t image, int64_t *h, int64_t *w);
/*
 * The scaled latent (h,w,4) of a sample in an epoch (from 1) into out; flip_aug mirrors half of
 * them, by a draw keyed with (seed, epoch, sample).
 */
DR_MUST_USE dr_status dr_latents_get(dr_latents *l, size_t image, uint32_t epoch, uint64_t sample,
                                     float *out);
/* Host memory held by cached latents, and device memory held by the VAE. */
size_t dr_latents_bytes(const dr_latents *l);

#endif
