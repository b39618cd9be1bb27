/*
 * base/fault.h - faults on demand: a run can be shown what a kill or a full disk does to it.
 *
 * Layer:    base.
 * Threads:  set up once, before other threads start; the points may be passed by any thread.
 * Source:   spec/launcher.md 2.2 (--inject).
 *
 * A specification is KIND:KEY=VALUE,..., several of them separated by ';':
 *   kill   SIGKILL to itself           stop   SIGSTOP to itself
 *   exit   leaves with code=N (1)      delay  sleeps for seconds=N (1)
 *   enospc the write fails, and all that follow, as on a full disk
 *   nan    the step meets a NaN: in its input, or with param=NAME in the sum of the gradients of
 *          that parameter (on all ranks)
 *   dead   from that step on the sum of the gradients of param=NAME is zero (on all ranks)
 *   oom    takes mib=N (1024) MiB of memory and keeps them
 *   flip   after the step a bit of a trained weight, or of param=NAME, is another one
 *
 * Where: step=N, before the N-th optimizer step of the run; or write=N, before the N-th change that
 * the process makes to its files (base/file.h: open, write, flush, sync, rename; whoever changes
 * files in another way passes the point itself). rank=N: on that rank only; otherwise on every
 * rank. attempt=N: in that start of a run that dreamrun launch restarts; 0: in each; otherwise in
 * the first. A program killed at write=1, 2, 3, ... until it survives was killed at every point of
 * its saves.
 */
#ifndef DR_BASE_FAULT_H
#define DR_BASE_FAULT_H

#include "dreamrun/status.h"

#include <stdbool.h>
#include <stdint.h>

/* The faults of spec, or where it is NULL of the environment's DREAMRUN_INJECT. Warns of what is
 * to come. DR_INVALID names what is wrong with the specification. */
DR_MUST_USE dr_status dr_fault_setup(const char *spec, int rank);

/* The points. step counts from 1. */
void dr_fault_at_step(int64_t step);
/* True: the write must fail; errno is ENOSPC. */
DR_MUST_USE bool dr_fault_at_write(void);

/* What a step is to meet; the parameter's name, or NULL. */
typedef struct dr_fault_numbers {
    bool nan_input, flip;
    const char *nan_param, *dead_param, *flip_param; /* flip_param: NULL for any */
} dr_fault_numbers;
dr_fault_numbers dr_fault_numbers_at(int64_t step);

#endif
