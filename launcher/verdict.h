/*
 * launcher/verdict.h - how an attempt ended, in one line and one exit code.
 *
 * Layer:    launcher.  May include base/ only.
 */
#ifndef DR_LAUNCHER_VERDICT_H
#define DR_LAUNCHER_VERDICT_H

#include "launcher/machine.h"
#include "launcher/plan.h"
#include "launcher/supervise.h"

typedef struct dr_attempt_end {
    int code;
    dr_str text; /* "" after success; the caller frees it */
} dr_attempt_end;

/* The first rank that failed, its host, what ended it and its last words; else how it was stopped.
 * out_of_memory: the cgroup's memory where the system killed for it meanwhile; NULL: it did not. */
void dr_verdict_of(const dr_launch_plan *p, const dr_ranks *ranks, const dr_supervised *r,
                   const dr_memory_use *out_of_memory, dr_attempt_end *out);
/* "bad input data or model file", "Killed": what an exit code means. */
const char *dr_code_meaning(int code);

#endif
