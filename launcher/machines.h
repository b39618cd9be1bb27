/*
 * launcher/machines.h - machine 0's view of the other machines of a job with one launch on each.
 *
 * Layer:    launcher.  May include base/ only.  Linux.
 */
#ifndef DR_LAUNCHER_MACHINES_H
#define DR_LAUNCHER_MACHINES_H

#include "launcher/plan.h"
#include "launcher/wire.h"

#include <netinet/in.h>

typedef struct dr_machine {
    bool here; /* it has come, and is not gone                                                  */
    int fd;    /* its launch's connection; -1: none, as machine 0's                             */
    dr_wire_reader reader;
    char host[128];  /* name that it gives itself                                              */
    char ip[16];     /* its address, as seen from here                                         */
    char label[160]; /* what its ranks call their host: its name, or with its address          */
    int n_gpus;
    int port; /* where it takes commands                                                       */
    char secret[DR_WIRE_TOKEN];
} dr_machine;

typedef struct dr_machines {
    int n; /* with machine 0, which is at[0]                                                    */
    dr_machine *at;
    struct in_addr ip; /* of machine 0                                                          */
    char network[24];  /* "10.0.0.0/24" that all are in; "": there is none                      */
} dr_machines;

/*
 * Waits for the launches of all other machines of p, at most --start_timeout. The caller ends it
 * with dr_machines_end, whatever is returned. Errors: DR_INVALID or DR_DEVICE: the address is not
 * this host's, the port is taken; DR_DEVICE: machines have not come (named).
 */
DR_MUST_USE dr_status dr_machines_gather(dr_machines *m, const dr_launch_plan *p,
                                         const dr_launch_facts *f, int argc,
                                         const char *const *argv);
/* Tells the others how the job ended, and lets them go. */
void dr_machines_end(dr_machines *m, int code, const char *text);

/* File descriptors to wait for, at most cap (dr_machines.n suffices). */
struct pollfd;
int dr_machines_poll(const dr_machines *m, struct pollfd *p, int cap);
/* Takes what came: a signal that somebody sent to another machine's launch (its number), else 0;
 * machines that went are no longer here. */
int dr_machines_take(dr_machines *m);
/* "10.0.0.2=PORT:SECRET,..." for the relays (launcher/relay.h). */
void dr_machines_addresses(const dr_machines *m, dr_str *out);

#endif
