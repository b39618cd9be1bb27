/*
 * train/report/run_profile.h - the timeline of a run's first steps (--profile). Private to train.
 */
#ifndef DR_TRAIN_RUN_PROFILE_H
#define DR_TRAIN_RUN_PROFILE_H

#include "train/run_internal.h"

/* Collective. Begins the timeline if one is wanted; DR_OUTPUT: it could not be written. */
DR_MUST_USE dr_status dr_run_profile_begin(dr_run *r);
/* Collective. After a step: ends the timeline when it shows enough of them. */
DR_MUST_USE dr_status dr_run_profile_step(dr_run *r);
/* Collective. Writes the timeline unless that is done. */
DR_MUST_USE dr_status dr_run_profile_end(dr_run *r);

#endif
