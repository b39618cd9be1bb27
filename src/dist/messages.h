/*
 * dist/messages.h - messages between two ranks, for work that must not wait in a collective.
 *
 * Layer:    dist.
 * Threads:  one thread per rank at a time, which may be another one than that of dist/dist.h: these
 *           messages have a communicator of their own.
 *
 * Waiting leaves the processor to others: it looks every millisecond.
 */
#ifndef DR_DIST_MESSAGES_H
#define DR_DIST_MESSAGES_H

#include "dist/dist.h"

/* Sends bytes (at most INT_MAX) to a rank; data may be reused afterwards. */
DR_MUST_USE dr_status dr_dist_send(dr_dist *d, int to, const void *data, size_t bytes);
/* The oldest message of a rank, or of any with from -1, that waits to be received: its sender
 * (-1: there is none) and its size. Never waits. */
DR_MUST_USE dr_status dr_dist_poll(dr_dist *d, int from, int *sender, size_t *bytes);
/* The same, waiting until there is one. */
DR_MUST_USE dr_status dr_dist_wait(dr_dist *d, int from, int *sender, size_t *bytes);
/* Receives the message that poll or wait told of. */
DR_MUST_USE dr_status dr_dist_receive(dr_dist *d, int from, void *data, size_t bytes);
/* What a thread that polls sleeps between two looks. */
void dr_dist_nap(void);

#endif
