/*
 * launcher/requeue.h - a job of Slurm that has saved goes back into the queue.
 *
 * Layer:    launcher.  May include base/ only.
 */
#ifndef DR_LAUNCHER_REQUEUE_H
#define DR_LAUNCHER_REQUEUE_H

#include <stdbool.h>

/* Puts the job back unless somebody cancelled it; says what it did. False: it was not put back. */
bool dr_requeue(const char *job);

#endif
