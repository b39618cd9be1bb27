/*
 * base/stop.h - a request to save and leave: SIGINT, SIGTERM or SIGUSR1.
 *
 * Layer:    base.
 * Threads:  dr_stop_watch before any other thread exists; the question may be asked by any.
 * Source:   spec/launcher.md 4 (R1, R2).
 *
 * The signals are blocked everywhere and taken by a thread that does nothing else. A handler would
 * run on whatever stack the interrupted code has: oneDNN 2.6's sgemm points the stack pointer into
 * a buffer on the heap, and a signal frame there destroys the heap.
 */
#ifndef DR_BASE_STOP_H
#define DR_BASE_STOP_H

#include "dreamrun/status.h"

/* Starts the watcher. Until dr_stop_take_notes the signals end the process, as by default. */
DR_MUST_USE dr_status dr_stop_watch(void);
/*
 * From now on the first signal is noted, so that work ends where it can be saved. A second SIGINT
 * or SIGTERM ends the process at once with exit code 128 + signal. Schedulers send several signals
 * for one wish, so those of the first half second and further SIGUSR1 do not count. on false: back
 * to the default.
 */
void dr_stop_take_notes(bool on);
/* The signal that asked to stop; 0: none so far. */
int dr_stop_signal(void);
/* "SIGTERM"; "a signal" for those not named above. */
const char *dr_stop_signal_name(int sig);

#endif
