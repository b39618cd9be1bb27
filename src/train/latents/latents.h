/*
 * train/latents/latents.h - the latent of every sample: from memory, from the cache on disk, or
 * encoded when it is needed.
 *
 * Layer:    train.
 * The VAE's posterior is drawn anew for every (epoch, sample), keyed by them, so runs with and
 * without caching are the same run. With keep_draw one draw, keyed by its cache key, is kept for
 * all uses, as sd-scripts does. Side of a picture = image * n_sides + (1: mirrored).
 */
#ifndef DR_TRAIN_LATENTS_H
#define DR_TRAIN_LATENTS_H

#include "data/dataset.h"
#include "dist/dist.h"
#include "train/model/model_file.h"

typedef struct dr_latents dr_latents;

typedef struct dr_latents_config {
    const dr_backend *backend;
    int threads;
    int loader_threads;        /* decode pictures ahead; more than threads are not used */
    const dr_dataset *dataset; /* must outlive the latents */
    const dr_model_file *file; /* its VAE; must outlive the latents when not cached */
    const char *vae_hash;
    bool cached;           /* --cache_latents */
    const char *cache_dir; /* --cache_latents_to_disk: HDF5 folder; NULL: memory only */
    bool keep_draw;        /* --latent_cache_content latents */
    dr_dtype stored;       /* --latent_cache_dtype: F32, F16, BF16 */
    uint32_t vae_batch;    /* --vae_batch_size; at least 1 */
    bool fill_only;        /* the cache is all that is wanted: dr_latents_get may not be called */
    bool flip;             /* some subset has flip_aug: both sides of every picture are kept */
    uint64_t seed;
    uint64_t validation_seed; /* of epoch 0 */
} dr_latents_config;

/*
 * Collective. With caching all latents are there afterwards (train/latents/latents_cache.h), and
 * the VAE is freed. DR_NUMERIC names a picture whose latent is not finite.
 */
DR_MUST_USE dr_status dr_latents_create(dr_dist *d, const dr_latents_config *c, dr_latents **out);
void dr_latents_destroy(dr_latents *l);

/* Side of the latent of an image: bucket size / 8. */
void dr_latents_size(const dr_latents *l, size_t image, int64_t *h, int64_t *w);
/*
 * The scaled latent (h,w,4) of a sample in an epoch (from 1; 0: validation) into out; flip_aug
 * mirrors half of them, by a draw keyed with (seed, epoch, sample).
 */
DR_MUST_USE dr_status dr_latents_get(dr_latents *l, size_t image, uint32_t epoch, uint64_t sample,
                                     float *out);
/* Tells that dr_latents_get will be called for this sample, so that its picture may be decoded
 * meanwhile. In the order of the calls. false: no place now, or nothing to decode. */
bool dr_latents_announce(dr_latents *l, size_t image, uint32_t epoch, uint64_t sample);
/* Whether pictures are decoded ahead at all. */
bool dr_latents_reads_ahead(const dr_latents *l);
/* Whether that use is mirrored. */
bool dr_latents_flips(const dr_latents *l, size_t image, uint32_t epoch, uint64_t sample);
/* Host memory held by cached latents, and device memory held by the VAE. */
size_t dr_latents_bytes(const dr_latents *l);

#endif
