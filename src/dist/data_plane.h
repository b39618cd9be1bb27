/*
 * dist/data_plane.h - what summing gradients on a GPU needs of the device.
 *
 * Layer:    dist.  Filled in by the app from a backend; dist names no backend.
 * Threads:  called from the compute thread only.
 *
 * Sums and exchanges run on a stream of their own beside the backend's. add and copy are enqueued
 * there in order; so is what NCCL is given.
 */
#ifndef DR_DIST_DATA_PLANE_H
#define DR_DIST_DATA_PLANE_H

#include "dist/nccl.h"
#include "tensor/device.h"

typedef struct dr_data_plane {
    const dr_device *device; /* whose memory the gradients are in */
    void *stream;            /* a cudaStream_t */
    /* The stream waits for all that the backend has enqueued so far. */
    dr_status (*after_compute)(void);
    /* What the backend enqueues from now on waits for all that is in the stream. */
    dr_status (*before_compute)(void);
    /* sum = left + sum, n numbers. */
    dr_status (*add)(float *sum, const float *left, int64_t n);
    dr_status (*copy)(float *to, const float *from, int64_t n);
    /* Whether the stream has nothing left to do; never waits. */
    dr_status (*is_done)(bool *done);
    /* Between ranks; NULL with one rank. */
    dr_nccl *nccl;
    bool strict; /* the fixed tree over all leaves; else NCCL's all-reduce over ranks */
} dr_data_plane;

#endif
