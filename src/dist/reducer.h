/*
 * dist/reducer.h - the sum of all leaves' gradients over all ranks, in the order of the fixed tree,
 * overlapped with backward.
 *
 * Layer:    dist.
 * Threads:  calls from the compute thread; with several ranks a communication thread exchanges
 *           finished ranges of the last local leaf while backward goes on. On GPUs (a plane) there
 *           is no thread: everything is enqueued, and wait sees to it that what the backend does
 *           next comes after.
 *
 * Per step: begin; for each local leaf: zero the gradients, run backward, which reports ranges in
 * descending order (ready), then end_leaf; at last wait. After wait the gradient memory of every
 * rank holds the same bits.
 * Cost: 2 (P-1)/P of the data per rank and step, as a ring (spec launcher.md 7.3), plus one copy of
 * the gradients per pending partial sum when a rank holds more than one leaf.
 */
#ifndef DR_DIST_REDUCER_H
#define DR_DIST_REDUCER_H

#include "dist/data_plane.h"

typedef struct dr_reducer dr_reducer;

typedef struct dr_reducer_config {
    int64_t n_leaves; /* of a step, over all ranks; >= world */
    float *grads;     /* (n_elems), not owned; on the host, or where plane says */
    int64_t n_elems;
    int64_t bucket_elems;       /* ranges are exchanged when this much is ready; 0: 4 Mi (16 MiB) */
    const dr_data_plane *plane; /* not owned; NULL: the gradients are on the host */
} dr_reducer_config;

/* Extra bytes that dr_reducer_create will allocate, for the printed plan. */
size_t dr_reducer_plan_bytes(const dr_dist *d, const dr_reducer_config *c);
DR_MUST_USE dr_status dr_reducer_create(dr_dist *d, const dr_reducer_config *c, dr_reducer **out);
void dr_reducer_destroy(dr_reducer *r);
/* This rank's leaves of every step: [first, first + n). */
void dr_reducer_leaves(const dr_reducer *r, int64_t *first, int64_t *n);

void dr_reducer_begin_step(dr_reducer *r);
/* [begin, end) of the current leaf is final. Ranges come in descending order without gaps. */
void dr_reducer_ready(dr_reducer *r, int64_t begin, int64_t end);
/* The current leaf is complete; ranges that were not reported are taken as they are. */
void dr_reducer_end_leaf(dr_reducer *r);
/* Collective. Waits for the exchange of this step. */
DR_MUST_USE dr_status dr_reducer_wait(dr_reducer *r);

#endif
