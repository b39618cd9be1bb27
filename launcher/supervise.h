/*
 * launcher/supervise.h - runs one command to its end and leaves nothing of it behind.
 *
 * Layer:    launcher.  May include base/ only.  Linux.
 * Threads:  called from a process with one thread; takes over its signals for the time of the call.
 */
#ifndef DR_LAUNCHER_SUPERVISE_H
#define DR_LAUNCHER_SUPERVISE_H

#include "base/str.h"

typedef struct dr_supervised {
    int exit_code; /* of the command; 128 + signal when a signal ended it                        */
    int signal;    /* that asked this process to stop (INT, TERM, HUP, USR1); 0: none            */
    bool killed;   /* the command did not end in time and was killed                             */
} dr_supervised;

/*
 * Starts argv[0] with argv and env (both NULL-terminated), stdin from /dev/null, in a process group
 * of its own, and waits. INT, TERM, HUP and USR1 are passed on as USR1 (save and leave); after
 * grace_s seconds, or at the second such signal, everything left is killed. When this process is
 * killed, the command gets TERM from the kernel. Processes that outlive the command, and any other
 * child of this process, are killed before the call returns.
 *
 * Errors: DR_IO when the command cannot be started; *out is then untouched.
 */
DR_MUST_USE dr_status dr_supervise(const char *const *argv, const char *const *env, double grace_s,
                                   dr_supervised *out);

#endif
