/*
 * launcher/relay.h - what stands in for ssh when every machine has a launch of its own.
 *
 * Layer:    launcher.  May include base/ only.
 */
#ifndef DR_LAUNCHER_RELAY_H
#define DR_LAUNCHER_RELAY_H

#include "dreamrun/status.h"

/*
 * `dreamrun relay HOST WORDS`: has the launch on that machine (found in $DREAMRUN_MACHINES, see
 * launcher/machines.h) run the words as one command line of the shell, and waits for its end. What
 * the command prints goes to stderr, *code gets its exit code. Errors: DR_INVALID, DR_IO.
 */
DR_MUST_USE dr_status dr_relay_run(int argc, const char *const *argv, int *code);

#endif
