/*
 * train/save_plan.h - when models and states are saved, under which names, and which ones go.
 *
 * Layer:    train.
 * Source:   spec/sdscripts.md 8.2; names and numbers are those of sd-scripts.
 *
 * Steps and epochs count from 1. The last epoch and the end of a run are saved under the plain name
 * only; a step save may fall on the last step all the same.
 */
#ifndef DR_TRAIN_SAVE_PLAN_H
#define DR_TRAIN_SAVE_PLAN_H

#include "base/str.h"

typedef struct dr_save_options { /* 0: not given */
    const char *name;            /* --output_name, or NULL */
    int64_t every_n_epochs, n_epoch_ratio, every_n_steps;
    int64_t last_n_epochs, last_n_epochs_state, last_n_steps, last_n_steps_state;
    bool state;        /* with every saved model */
    bool state_at_end; /* with the last one */
} dr_save_options;

typedef enum dr_save_kind { DR_SAVE_EPOCH, DR_SAVE_STEP, DR_SAVE_LAST } dr_save_kind;

/* "{name}-000003", "{name}-step00000120", "{name}"; without a name "epoch", "at", "last". */
void dr_save_name(const dr_save_options *o, dr_save_kind kind, int64_t number, dr_str *out);

/* Epochs between saves: --save_every_n_epochs, or what the ratio gives for the run; 0: never. */
int64_t dr_save_epoch_interval(const dr_save_options *o, int64_t n_epochs);
bool dr_save_due_at_epoch(const dr_save_options *o, int64_t epoch, int64_t n_epochs);
bool dr_save_due_at_step(const dr_save_options *o, int64_t step);

/* The first step after this one at whose end something is saved; the run's last step at most. */
int64_t dr_save_next_step(const dr_save_options *o, int64_t step, int64_t steps_per_epoch,
                          int64_t n_steps);

/* The number whose model (or state) goes once this one is saved; -1: none. */
int64_t dr_save_expired_epoch(const dr_save_options *o, int64_t epoch, int64_t n_epochs,
                              bool state);
int64_t dr_save_expired_step(const dr_save_options *o, int64_t step, bool state);

#endif
