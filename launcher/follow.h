/*
 * launcher/follow.h - the launch on a machine other than machine 0, which starts the ranks of all.
 *
 * Layer:    launcher.  May include base/ only.  Linux.
 * Threads:  called from a process with one thread; takes over its signals.
 *
 * It comes to machine 0, runs the commands that machine 0's mpirun needs here (Open MPI's daemon),
 * passes requests to stop on, and ends as the job does. When machine 0 is gone, everything that it
 * started here is killed; when this launch is killed, the kernel kills it.
 */
#ifndef DR_LAUNCHER_FOLLOW_H
#define DR_LAUNCHER_FOLLOW_H

#include "launcher/plan.h"

/*
 * *code gets the exit code of the job, whose verdict is printed. Errors: DR_DEVICE: machine 0 does
 * not answer within --start_timeout, or went away; DR_INVALID: machine 0 refuses this machine.
 */
DR_MUST_USE dr_status dr_follow(const dr_launch_plan *p, const dr_launch_facts *f, int argc,
                                const char *const *argv, int *code);

#endif
