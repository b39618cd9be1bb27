/*
 * launcher/supervise.h - runs one attempt to its end and leaves nothing of it behind.
 *
 * Layer:    launcher.  May include base/ only.  Linux.
 * Threads:  called from a process with one thread; takes over its signals for the time of the call.
 */
#ifndef DR_LAUNCHER_SUPERVISE_H
#define DR_LAUNCHER_SUPERVISE_H

#include "launcher/machines.h"
#include "launcher/ranks.h"

#include <signal.h>

typedef struct dr_supervise_options {
    double grace_s;         /* from a stop request to the end by force                            */
    double start_timeout_s; /* until all ranks have joined; with ranks only                       */
    uint64_t save_signals;  /* bit n: signal n to this process means save and leave               */
    dr_ranks *ranks;        /* of the command; NULL: it has none, its output is not ours          */
    dr_machines *machines;  /* launches on other machines, which may ask to stop; NULL: none      */
    bool show_starter;      /* what the command itself prints goes to stderr                      */
} dr_supervise_options;

typedef struct dr_supervised {
    int exit_code; /* of the command; 128 + signal when a signal ended it                        */
    int signal;    /* that asked this process to stop (INT, TERM, HUP, USR1); 0: none            */
    bool killed;   /* the command did not end in time and was killed                             */
    bool start_timed_out;
    dr_str starter; /* the end of what the command itself printed; the caller frees it           */
} dr_supervised;

/*
 * Blocks INT, TERM, HUP, USR1 and CHLD, with stops TSTP too, and returns a descriptor that reads
 * them without waiting; -1: errno says why. before: gets the mask of until now; NULL: not wanted.
 */
int dr_watch_signals(bool stops, sigset_t *before);

/*
 * Starts argv[0] with argv and env (both NULL-terminated), stdin from /dev/null, in a process group
 * of its own, and waits. INT, TERM, HUP and USR1 reach the ranks (without ranks: the command) as
 * USR1: save and leave; after grace_s seconds, or at the second such signal, everything left is
 * killed. ^Z (TSTP) stops the ranks together with this process, CONT lets
 * them go on. When a rank fails, the others have 0.3 s to end by themselves. When this process is
 * killed, the kernel kills the command and its agents. Processes that outlive the command, and any
 * other child of this process, are killed before the call returns.
 *
 * Errors: DR_IO when the command cannot be started; *out is then untouched.
 */
DR_MUST_USE dr_status dr_supervise(const char *const *argv, const char *const *env,
                                   const dr_supervise_options *o, dr_supervised *out);

/* Kills and reaps every child of this process, also those that it got as the reaper of others. */
void dr_kill_children(void);

#endif
