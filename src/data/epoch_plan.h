/*
 * data/epoch_plan.h - which samples each optimizer step of an epoch sees, and in which order.
 *
 * Layer:    data.
 *
 * A leaf is one micro-batch: at most B samples of one bucket, one forward and backward. A step has
 * up to L = virtual shards x accumulation leaves; its gradient is the mean over its n_samples
 * samples, whatever the leaves hold. Every sample of the dataset stands in exactly one leaf.
 *
 * The plan depends on (dataset, seed, epoch, B, L) only, never on ranks: samples are permuted
 * inside their bucket, cut into leaves, leaves of one bucket are put together into steps, the rest
 * of all buckets (at most L - 1 leaves each) shares steps, and the steps are permuted. There are
 * ceil(leaves / L) steps, as sd-scripts counts them.
 */
#ifndef DR_DATA_EPOCH_PLAN_H
#define DR_DATA_EPOCH_PLAN_H

#include "data/dataset.h"

typedef struct dr_sample_ref {
    uint32_t image;  /* index in dataset->images                             */
    uint32_t repeat; /* 0..repeats-1                                         */
    uint32_t sample; /* first_sample + repeat: keys the sample's randomness  */
} dr_sample_ref;

typedef struct dr_leaf {
    const dr_sample_ref *samples;
    uint32_t n; /* 1..B */
    uint32_t bucket;
} dr_leaf;

typedef struct dr_step {
    const dr_leaf *leaves;
    uint32_t n_leaves;  /* 1..L; leaves n_leaves..L-1 of the step are empty */
    bool one_bucket;    /* all leaves have the same shape */
    uint64_t n_samples; /* of all leaves: what the gradient is divided by */
} dr_step;

typedef struct dr_epoch_plan_options {
    uint64_t seed;
    uint32_t epoch;      /* from 1 */
    uint32_t batch_size; /* B >= 1, of buckets whose dataset has none of its own */
    uint32_t n_leaves;   /* L >= 1 */
} dr_epoch_plan_options;

typedef struct dr_epoch_plan { /* owns its arrays until dr_epoch_plan_deinit */
    dr_step *steps;
    uint32_t n_steps;
    dr_leaf *leaves;
    uint32_t n_leaves; /* of all steps */
    dr_sample_ref *samples;
    uint32_t n_samples;
} dr_epoch_plan;

/* Builds the plan; the dataset is not kept. Errors: DR_NOMEM, plan is then empty. */
DR_MUST_USE dr_status dr_epoch_plan_build(dr_epoch_plan *plan, const dr_dataset *dataset,
                                          const dr_epoch_plan_options *o);
void dr_epoch_plan_deinit(dr_epoch_plan *plan);

/* Samples in a full leaf of a bucket, when batch_size is the run's. */
uint32_t dr_bucket_batch(const dr_bucket *b, uint32_t batch_size);
/* Steps of every epoch of this dataset with these sizes. */
uint32_t dr_steps_per_epoch(const dr_dataset *dataset, uint32_t batch_size, uint32_t n_leaves);
/* One line for the run header: samples -> batches -> steps, with the numbers that make them, and
 * what is uneven: batches that are not full, steps of mixed shapes, a step with fewer batches. */
void dr_epoch_arithmetic(const dr_dataset *dataset, uint32_t batch_size, uint32_t virtual_shards,
                         uint32_t accumulation, dr_str *out);

#endif
