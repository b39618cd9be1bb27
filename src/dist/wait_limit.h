/*
 * dist/wait_limit.h - how long one exchange may wait for the other ranks (--ddp_timeout).
 *
 * Layer:    dist.
 * Threads:  an exchange belongs to one thread at a time; dr_dist_overdue and dr_dist_forgive may be
 *           called by any, without MPI.
 *
 * All ranks make the same exchanges in the same order, so a count of those begun tells who is
 * missing. Messages (dist/messages.h) are no exchanges: who waits for work waits as long as it
 * takes.
 */
#ifndef DR_DIST_WAIT_LIMIT_H
#define DR_DIST_WAIT_LIMIT_H

#include "dist/dist.h"

typedef enum dr_wait_lane { DR_WAIT_CONTROL, DR_WAIT_GRADIENTS, DR_WAIT_COUNT } dr_wait_lane;

struct dr_board;

/* From now on exchanges are counted on the board, which must live until this is called with NULL.
 * seconds: the limit; 0: none. */
void dr_dist_limit_waits(dr_dist *d, struct dr_board *board, double seconds);
/* The limit in seconds; 0: none. */
double dr_dist_wait_limit(const dr_dist *d);

typedef struct dr_overdue {
    const char *name; /* of the exchange, as in "the exchange of gradients" */
    dr_wait_lane lane;
    double waited_s;
} dr_overdue;

/* Whether this rank has waited too long; fills *out then. */
bool dr_dist_overdue(dr_dist *d, dr_overdue *out);
/* Seconds in which nobody could work are not held against the waits that go on. */
void dr_dist_forgive(dr_dist *d, double seconds);

#endif
