/*
 * launcher/detect.h - where this process runs: alone, as a rank, in an allocation of Slurm.
 *
 * Layer:    launcher.  May include base/ only.  Pure: looks at the given environment alone.
 * Source:   spec/launcher.md 3.1. SLURM_PROCID, SLURM_LOCALID and SLURM_NTASKS of a rank that
 * mpirun started inside a job are those of its daemon, so they are never asked there.
 */
#ifndef DR_LAUNCHER_DETECT_H
#define DR_LAUNCHER_DETECT_H

#include "base/str.h"

typedef enum dr_place {
    DR_PLACE_ALONE,      /* a shell: whatever is started, we start                               */
    DR_PLACE_MPIRUN,     /* a rank of mpirun                                                     */
    DR_PLACE_SRUN,       /* a rank of srun with PMIx                                             */
    DR_PLACE_PER_NODE,   /* one task of srun per node, for more ranks: `srun accelerate launch`  */
    DR_PLACE_ALLOCATION, /* in a job of Slurm, in no task of it: sbatch, salloc                  */
    DR_PLACE_NO_PMIX     /* one of several tasks of srun that cannot find each other             */
} dr_place;

typedef struct dr_where {
    dr_place place;
    int world;   /* ranks of the job that this process is one of; else 0                      */
    int node;    /* PER_NODE: number of this node                                             */
    int n_tasks; /* ALLOCATION, PER_NODE: tasks that were asked of Slurm; 0: unknown           */
    int n_nodes; /* the same: nodes of the job; 0: unknown                                    */
    const char *job; /* SLURM_JOB_ID; NULL: none                                                */
} dr_where;

/* asked: --num_processes, 0 when it is not given. */
dr_where dr_detect(const char *const *env, int asked);
/* "a rank of mpirun", for messages. */
const char *dr_place_text(dr_place place);

#endif
