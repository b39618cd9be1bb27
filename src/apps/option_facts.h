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

#endif
