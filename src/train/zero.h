/*
 * train/zero.h - --zero_stage 1: each rank keeps the optimizer's state of its part of the weights.
 * Private to train.
 *
 * Ranks:    spread is collective. What rank 0 does alone otherwise (a state is written or read, a
 *           model saved) ends with dr_zero_end there, while the others are in dr_zero_serve.
 * Without --zero_stage 1, or with one rank, all of it is as if it were not there.
 */
#ifndef DR_TRAIN_ZERO_H
#define DR_TRAIN_ZERO_H

#include "train/run_internal.h"

/* Before the optimizer is created: r->zero_cut, and who owns each parameter of r->groups. */
void dr_zero_plan(dr_run *r);
/* Collective. After an update every rank's part of the trained weights goes to all ranks. */
DR_MUST_USE dr_status dr_zero_spread(dr_run *r);

/* Rank 0: bytes of blob i from byte `at` on, and all of it; whoever owns it. */
DR_MUST_USE dr_status dr_zero_read(const dr_run *r, size_t i, size_t at, void *data, size_t bytes);
DR_MUST_USE dr_status dr_zero_write(const dr_run *r, size_t i, const void *data);
/* Rank 0: dr_run_show_weights on all ranks. */
DR_MUST_USE dr_status dr_zero_show_weights(dr_run *r, bool on);
/* Rank 0: lets the others go on; st: how it went, which is returned. */
DR_MUST_USE dr_status dr_zero_end(const dr_run *r, dr_status st);
/* The other ranks: does what rank 0 asks for until it ends. */
DR_MUST_USE dr_status dr_zero_serve(dr_run *r);

#endif
