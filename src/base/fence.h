/*
 * base/fence.h - one writer per run: a lock on its output folder, and a number that fences off
 * writers that were given up.
 *
 * Layer:    base.  Linux.
 * Threads:  one.
 * Source:   spec/launcher.md 7.1.
 *
 * FOLDER/.dreamrun/lock holds who writes and an epoch that every writer raises. The kernel drops
 * the lock when its process ends, however that was. A process that lives on behind a cut cable
 * finds another epoch before it would make a save appear, and ends.
 */
#ifndef DR_BASE_FENCE_H
#define DR_BASE_FENCE_H

#include "dreamrun/status.h"

/* Takes the lock of a run's output folder, which is there, until the process ends or releases it.
 * DR_OUTPUT names the process that has it. */
DR_MUST_USE dr_status dr_fence_take(const char *folder);
/* Before a rename that makes a save appear: DR_REFUSED when another writer has taken over. DR_OK
 * without a lock. */
DR_MUST_USE dr_status dr_fence_check(void);
void dr_fence_release(void);

#endif
