/*
 * train/latents/latents_work.h - deals pictures to the ranks, batch by batch, as each becomes free.
 *
 * Layer:    train.
 * Threads:  on rank 0 a thread answers the others; accept is called under a lock.
 *
 * No rank waits in a collective while another one encodes: they ask rank 0 by messages, so a slow
 * rank delays its own batch only.
 */
#ifndef DR_TRAIN_LATENTS_WORK_H
#define DR_TRAIN_LATENTS_WORK_H

#include "dist/dist.h"

typedef struct dr_encode_batch {
    const uint32_t *entries; /* (n), all of one size */
    uint32_t n;
} dr_encode_batch;

typedef struct dr_encode_work {
    const dr_encode_batch *batches; /* on rank 0; elsewhere ignored */
    size_t n_batches;
    uint32_t max_entries;                           /* of a batch, on every rank */
    size_t (*n_values)(void *user, uint32_t entry); /* floats of an entry */
    /* On any rank: the values of a batch, one entry after the other, into out. */
    dr_status (*encode)(void *user, dr_encode_batch batch, float *out);
    /* On rank 0, one call at a time. */
    dr_status (*accept)(void *user, dr_encode_batch batch, const float *values);
    size_t max_values; /* floats of the largest batch, on every rank */
    void *user;
} dr_encode_work;

/*
 * Every rank calls it; it ends when all batches are accepted, or after the first failure, which
 * rank 0 returns (dr_dist_agree afterwards tells the others).
 */
DR_MUST_USE dr_status dr_encode_all(dr_dist *d, const dr_encode_work *w);

#endif
