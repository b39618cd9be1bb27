/*
 * launcher/job.h - a run from its first attempt to its end: restarts, record, verdict.
 *
 * Layer:    launcher.  May include base/ only.  Linux.
 */
#ifndef DR_LAUNCHER_JOB_H
#define DR_LAUNCHER_JOB_H

#include "launcher/plan.h"

/*
 * Starts what the supervised plan p says, again after failures as its options say, and prints one
 * line last. *code: the exit code of the whole (docs/errors.md). f, argc and argv are those that p
 * was made from; attempts after the first are planned anew.
 */
DR_MUST_USE dr_status dr_job_run(const dr_launch_plan *p, const dr_launch_facts *f, int argc,
                                 const char *const *argv, int *code);

#endif
