/*
 * apps/option_facts.h - the options that decide what is trained, for a state to remember.
 *
 * Layer:    apps.
 */
#ifndef DR_APPS_OPTION_FACTS_H
#define DR_APPS_OPTION_FACTS_H

#include "apps/options.h"
#include "train/train.h"

/*
 * Every available option of the program with its value, given or default, except those that a run
 * may change without changing its numbers: places, names, logs, samples, threads, length. Strings
 * and the list live in the arena.
 */
const dr_train_fact *dr_options_facts(const dr_options *o, dr_arena *arena, size_t *n);

/*
 * Every available option of the program with its value, for the header and the report of a run;
 * secrets are left out. Strings and the list live in the arena.
 */
const dr_train_option *dr_options_effective(const dr_options *o, dr_arena *arena, size_t *n);
/* Of these, as sd-scripts' --log_config logs them: those with a value, without paths and secrets.
 */
const dr_event_hparam *dr_options_hparams(const dr_options *o, dr_arena *arena, size_t *n);

#endif
