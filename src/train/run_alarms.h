/*
 * train/run_alarms.h - what stops or saves a run whose numbers go wrong. Private to train.
 *
 * Threads:  the run's.
 * Ranks:    calls marked collective are made by all ranks, which decide alike: from sums that are
 *           the same everywhere, or by dr_dist_agree.
 */
#ifndef DR_TRAIN_RUN_ALARMS_H
#define DR_TRAIN_RUN_ALARMS_H

#include "train/run_internal.h"

typedef struct dr_step_place { /* of a step */
    const dr_step *step;
    uint32_t epoch;
    int64_t global_step; /* from 0 */
    bool text;           /* the text encoder is trained in it */
} dr_step_place;

/* ---- nan_search.c ---- */

/*
 * Where numbers of the step go wrong first, in words: trained weights, then this rank's batches,
 * run again: latents, text states, each part of the U-Net, losses, gradients; at last the sum of
 * the gradients, which must still be in place. Empty: nothing found here. Changes the gradients.
 */
void dr_run_search_nan(dr_run *r, const dr_step_place *p, dr_str *found);

/* The last parameter of [begin, end) of the trained part, which backward finished first, whose
 * gradient is not finite; or NULL. */
const dr_param *dr_run_bad_gradient(const dr_run *r, int64_t begin, int64_t end);

/* ---- run_inject.c ---- */

/* A NaN into the input of a leaf, when --inject wants one in this step. */
DR_MUST_USE dr_status dr_run_inject_input(dr_run *r, int64_t global_step, const dr_leaf_input *in);
/* What --inject wants of the sum of the gradients in this step. DR_INVALID: no such parameter. */
DR_MUST_USE dr_status dr_run_inject_gradients(dr_run *r, int64_t global_step);

/* The same of one trained weight of this rank, after its update: its last bit is flipped. */
DR_MUST_USE dr_status dr_run_inject_flip(dr_run *r, int64_t global_step);

/* ---- rank_check.c ---- */

/* Collective. After a step that --check_ranks_every names, and before every save: all ranks must
 * hold the same weights, bit for bit. DR_NUMERIC names the rank that has others and the first of
 * them.
 */
DR_MUST_USE dr_status dr_run_check_ranks(dr_run *r, bool saving);
/* Walks the check on a dry context. */
DR_MUST_USE dr_status dr_run_plan_rank_check(const dr_run *r, dr_context *dry);

/* ---- nan_policy.c ---- */

/*
 * Collective. The loss or the gradient of the step is not finite and nothing was changed by it:
 * says where it began and does what --nan says. DR_OK: the step is over without an update (skip),
 * or r->going_back is set (rollback). DR_NUMERIC: the run ends.
 */
DR_MUST_USE dr_status dr_run_not_finite(dr_run *r, const dr_step_place *p, double loss,
                                        double norm);
/* A step with finite numbers is over. */
void dr_run_was_finite(dr_run *r);
/* run_state.c. Rank 0: r->resume_facts of the state r->resume. */
DR_MUST_USE dr_status dr_run_open_facts(dr_run *r);
/* run_state.c. Collective. Weights and optimizer of r->resume, which is known to fit. */
DR_MUST_USE dr_status dr_run_read_state(dr_run *r);
/* run_notes.c. The next step is left out. */
void dr_run_note_left_out(dr_run *r, uint32_t epoch);
/* Collective. Weights, optimizer and step of the newest state. */
DR_MUST_USE dr_status dr_run_go_back(dr_run *r);
/* Whether a rollback has decided that the step is not to be run. */
bool dr_run_leaves_out(const dr_run *r, int64_t global_step);

/* ---- dead_parameters.c ---- */

/* Before the first step, and after the weights came from elsewhere: begins to watch. */
DR_MUST_USE dr_status dr_dead_watch_begin(dr_run *r);
void dr_dead_watch_end(dr_run *r);
/* Gradients [begin, end) of the trained part are final; r->group_frozen is of this step. */
DR_MUST_USE dr_status dr_dead_watch_gradients(dr_run *r, dr_context *cx, int64_t begin,
                                              int64_t end);
/* After an update with the learning-rate factor. Once a group has seen enough steps: DR_NUMERIC
 * names what is dead in it. */
DR_MUST_USE dr_status dr_dead_watch_step(dr_run *r, double lr_factor);

/* ---- run_report.c ---- */

bool dr_run_wants_report(const dr_run *r);
/* Rank 0, after training: the page of --report, or in the log's folder. how it went; a page that
 * cannot be written is a warning. */
void dr_run_write_report(dr_run *r, dr_status how);

/* ---- base_check.c ---- */

/* Collective. Before the first step of a run: whether the U-Net predicts what the flags say. */
DR_MUST_USE dr_status dr_run_check_base(dr_run *r);

#endif
