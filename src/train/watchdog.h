/*
 * train/watchdog.h - a thread that ends a run whose progress has stopped, and says which rank is
 * silent.
 *
 * Layer:    train.
 * Threads:  the calls come from the main thread, dr_watchdog_alive from any. The watchdog calls no
 * MPI. Source:   spec/launcher.md 4.
 *
 * DREAMRUN_HANG_TIMEOUT (dreamrun launch --hang_timeout) is "auto", seconds, or "0" and unset for
 * no look at progress. It watches progress, not the age of one call: a phase outside the steps has
 * a budget of its own, and signs of life begin it anew.
 */
#ifndef DR_TRAIN_WATCHDOG_H
#define DR_TRAIN_WATCHDOG_H

#include "dist/dist.h"

typedef enum dr_activity { /* what a rank does; dr_watchdog_name */
                           DR_DOES_PREPARE,
                           DR_DOES_CACHE,
                           DR_DOES_STEP,
                           DR_DOES_WAIT, /* for the others, within a step */
                           DR_DOES_SAVE,
                           DR_DOES_VALIDATE,
                           DR_DOES_SAMPLE,
                           DR_DOES_COUNT
} dr_activity;

const char *dr_watchdog_name(dr_activity a);
/* Collective. Begins with DR_DOES_PREPARE. wait_limit_s: of one exchange between ranks
 * (dist/wait_limit.h), after which the run ends with the same code; 0: none. */
DR_MUST_USE dr_status dr_watchdog_start(dr_dist *d, double wait_limit_s);
void dr_watchdog_stop(void);
/* The rank does something else from now on; its budget of time begins. */
void dr_watchdog_does(dr_activity a);
/* The same, and it is after step `step`. A step that ends is progress. */
void dr_watchdog_step(int64_t step);
/* A sign of life in a long phase. */
void dr_watchdog_alive(void);

#endif
