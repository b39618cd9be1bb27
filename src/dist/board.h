/*
 * dist/board.h - memory that the ranks of a host share: what each of them is doing.
 *
 * Layer:    dist.
 * Threads:  the slots are atomics; any thread may read and write them, without MPI.
 */
#ifndef DR_DIST_BOARD_H
#define DR_DIST_BOARD_H

#include "dist/wait_limit.h"

#include <stdatomic.h>

typedef struct dr_board_slot { /* of one rank */
    atomic_int rank;           /* its number among all                                           */
    atomic_int activity;       /* what it does, as its user counts that                          */
    atomic_llong step;         /* of the run                                                     */
    atomic_llong calls[DR_WAIT_COUNT]; /* exchanges begun                                        */
} dr_board_slot;

typedef struct dr_board {
    dr_board_slot *slots; /* one per rank of this host, in local order */
    int n, own;
    void *map; /* NULL: private memory */
    size_t bytes;
} dr_board;

/* Collective. Where memory cannot be shared the board has this rank's slot alone. */
DR_MUST_USE dr_status dr_board_open(dr_dist *d, dr_board *b);
void dr_board_close(dr_board *b);

#endif
