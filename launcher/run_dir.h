/*
 * launcher/run_dir.h - the private folder of one launch: its socket and Open MPI's session files.
 *
 * Layer:    launcher.  May include base/ only.  Linux.
 *
 * In /dev/shm where that is, because Open MPI's shared memory lies in it. Named after user, process
 * and the process's start time, so that what a killed launch left is known and removed by the next.
 */
#ifndef DR_LAUNCHER_RUN_DIR_H
#define DR_LAUNCHER_RUN_DIR_H

#include "base/str.h"

/* Creates the folder of this process. Errors: DR_OUTPUT. */
DR_MUST_USE dr_status dr_run_dir_create(dr_str *path);
/* Removes the folders of this user's launches that have ended; returns their number. */
int dr_run_dir_sweep(void);

#endif
