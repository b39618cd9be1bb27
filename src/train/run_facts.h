/*
 * train/run_facts.h - what a run's model file says of how it was trained. Private to train.
 */
#ifndef DR_TRAIN_RUN_FACTS_H
#define DR_TRAIN_RUN_FACTS_H

#include "train/run_internal.h"

/*
 * The ss_* facts of the model as it is now; texts live in the arena, or longer. Reads the files
 * trained from at its first call for a LoRA. Errors: DR_IO.
 */
DR_MUST_USE dr_status dr_run_facts(dr_run *r, dr_arena *arena, int64_t epoch, int64_t global_step,
                                   dr_ss_facts *f);

#endif
