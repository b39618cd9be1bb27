/*
 * launcher/decide.h - after an attempt: start again, with how many ranks, or end with which code.
 *
 * Layer:    launcher.  Pure.
 * Source:   spec/launcher.md 2.2, 7.1.
 */
#ifndef DR_LAUNCHER_DECIDE_H
#define DR_LAUNCHER_DECIDE_H

#include "dreamrun/status.h"

typedef enum dr_restart_policy {
    DR_RESTART_PROGRESS,
    DR_RESTART_ALWAYS,
    DR_RESTART_NEVER
} dr_restart_policy;

typedef struct dr_restart_rules {
    dr_restart_policy policy;
    int max_restarts;
    double delay_s;
    int least_ranks; /* with fewer the job ends; 0: the number of ranks never changes             */
} dr_restart_rules;

typedef struct dr_outcome { /* of one attempt */
    int code;               /* its exit code                                                      */
    int n_ranks, n_lost;    /* ranks it had; those whose host or device is gone                   */
    bool stopped;           /* it was asked to end                                                */
    bool joined;            /* all ranks had found each other                                     */
    bool out_of_memory;     /* the system killed a rank for its memory                            */
    int64_t step;           /* the last step done, 0: none                                        */
    int64_t state_step;     /* step of the newest whole state, 0: none                            */
} dr_outcome;

typedef struct dr_history { /* starts zeroed */
    int used;               /* restarts that count                                                */
    int in_vain;            /* attempts in a row that gained nothing                              */
    int64_t step, state_step;
} dr_history;

typedef struct dr_decision {
    bool restart;
    int n_ranks; /* of the next attempt                                                       */
    double delay_s;
    int code;        /* to end with                                                               */
    const char *why; /* a few words; "" when there is nothing to say                              */
} dr_decision;

dr_decision dr_decide(const dr_restart_rules *rules, dr_history *h, const dr_outcome *o);

#endif
