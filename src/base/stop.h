/*
 * base/stop.h - a request to save and leave: SIGINT, SIGTERM or SIGUSR1.
 *
 * Layer:    base.
 * Threads:  installed by one thread; the question may be asked by any.
 * Source:   spec/launcher.md 4 (R1, R2).
 *
 * The handler only takes a note, so that work ends at a place where it can be saved. A second
 * SIGINT or SIGTERM ends the process at once with exit code 128 + signal. Schedulers send several
 * signals for one wish, so those of the first half second and further SIGUSR1 do not count.
 */
#ifndef DR_BASE_STOP_H
#define DR_BASE_STOP_H

#include "dreamrun/status.h"

/* Before it, and after dr_stop_restore, the signals do what they did when the program started. */
DR_MUST_USE dr_status dr_stop_install(void);
void dr_stop_restore(void);
/* The signal that asked to stop; 0: none so far. */
int dr_stop_signal(void);
/* "SIGTERM"; "a signal" for those not named above. */
const char *dr_stop_signal_name(int sig);

#endif
