/*
 * launcher/agent.h - the process between mpirun or srun and one rank.
 *
 * Layer:    launcher.  May include base/ only.  Linux.
 *
 * Starts the rank below itself, hands its output, notes and end to the launcher, and the launcher's
 * signals to it. When the launcher is gone, the rank is killed: over hosts, whatever mpirun does.
 */
#ifndef DR_LAUNCHER_AGENT_H
#define DR_LAUNCHER_AGENT_H

#include "dreamrun/status.h"

/*
 * Runs argv (NULL-terminated, argv[0] a path) as a rank. Without DREAMRUN_SUPERVISOR in the
 * environment it becomes the program. Otherwise *code gets the program's exit code, or this process
 * ends by the signal that ended it. Errors: DR_IO.
 */
DR_MUST_USE dr_status dr_agent_run(const char *const *argv, int *code);

#endif
