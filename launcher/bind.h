/*
 * launcher/bind.h - the cores of one rank.
 *
 * Layer:    launcher.  May include base/ only.  Linux.
 */
#ifndef DR_LAUNCHER_BIND_H
#define DR_LAUNCHER_BIND_H

#include "dreamrun/status.h"

/*
 * Binds this process, a rank of mpirun or srun, to its share of the host's cores when DREAMRUN_BIND
 * says so: "cores", or "gpu" for cores of the NUMA node of its GPU. Ranks of one node get disjoint
 * runs of cores in their order; with more ranks than cores nothing is bound.
 */
void dr_bind_rank(void);
/* Cores of share i of n equal, contiguous ones: first and count; count 0: there are fewer than n.
 */
void dr_bind_share(int n_cores, int i, int n, int *first, int *count);

#endif
