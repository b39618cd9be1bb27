/*
 * train/run_states.h - what a run's states hold, and how a run goes on from one. Private to train.
 */
#ifndef DR_TRAIN_RUN_STATES_H
#define DR_TRAIN_RUN_STATES_H

#include "train/run_internal.h"

/* Collective. Rank root's bytes of device memory to all ranks. */
DR_MUST_USE dr_status dr_run_share(const dr_run *r, void *data, size_t bytes, int root);
/* What the run starts from, for its states: before weights and dataset change. */
DR_MUST_USE dr_status dr_run_fingerprint_model(dr_run *r);
void dr_run_fingerprint_dataset(dr_run *r);
/* Writes the state after the last step done (rank 0). */
DR_MUST_USE dr_status dr_run_write_state(dr_run *r, const char *path);
/* Collective. Finds the state of --resume; seed and virtual shards that were not given are its. */
DR_MUST_USE dr_status dr_run_open_state(dr_run *r);
/* Collective. Weights and optimizer of the state, once it is found to fit. DR_INEXACT lists what
 * differs, DR_FORMAT what cannot be loaded. */
DR_MUST_USE dr_status dr_run_load_state(dr_run *r);

#endif
