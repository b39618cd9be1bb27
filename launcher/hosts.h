/*
 * launcher/hosts.h - lists of hosts: hostfiles of Open MPI, node lists of Slurm.
 *
 * Layer:    launcher.  May include base/ only.
 * Errors:   DR_INVALID names what cannot be read, with its line.
 */
#ifndef DR_LAUNCHER_HOSTS_H
#define DR_LAUNCHER_HOSTS_H

#include "base/str.h"

typedef struct dr_host {
    char *name;  /* as mpirun or srun is to call it                                        */
    char *label; /* as its ranks call it; NULL: the same                                   */
    int slots;   /* ranks that it offers, at least 1                                             */
    int ranks;   /* ranks that dr_hosts_share gave it                                            */
} dr_host;

typedef struct dr_hosts {
    dr_host *at;
    size_t n, cap;
} dr_hosts;

void dr_hosts_add(dr_hosts *h, const char *name, int slots);
/* Names the last host for messages. */
void dr_hosts_label(dr_hosts *h, const char *label);
const char *dr_host_label(const dr_host *h);
void dr_hosts_free(dr_hosts *h);
int dr_hosts_slots(const dr_hosts *h);
/* Removes a host; false: it is not in the list. */
bool dr_hosts_remove(dr_hosts *h, const char *name);

/* Adds the hosts of an Open MPI hostfile: "host slots=N [max_slots=M]", # comments. */
DR_MUST_USE dr_status dr_hosts_read(dr_hosts *h, const char *path);
/*
 * Adds the nodes of a Slurm node list ("dn[1-3,7],head") with the tasks of each from Slurm's
 * compressed form ("2(x3),1,4"; NULL: one each).
 */
DR_MUST_USE dr_status dr_hosts_from_slurm(dr_hosts *h, const char *nodes, const char *tasks);
/*
 * Deals n ranks out in turn, at most its slots to each (no limit with oversubscribe). False: there
 * are fewer slots than ranks.
 */
bool dr_hosts_share(dr_hosts *h, int n, bool oversubscribe);

#endif
