/*
 * dist/nccl.h - sums and messages between GPUs, by NCCL.
 *
 * Layer:    dist.
 * Threads:  one thread at a time.
 * Streams:  operations are enqueued on a stream (a cudaStream_t) and return; pointers are to device
 *           memory. What goes wrong later is told by dr_nccl_poll.
 *
 * libnccl.so.2 is opened at run time; DREAMRUN_NCCL names another file.
 */
#ifndef DR_DIST_NCCL_H
#define DR_DIST_NCCL_H

#include "dist/dist.h"

typedef struct dr_nccl dr_nccl;

/*
 * Collective; all ranks get the same status. The current GPU of each rank joins. Where some rank
 * cannot open the library *out is NULL, why says so and the status is DR_OK: the caller does
 * without. DR_COMM: the ranks did not all join within deadline_s seconds, or NCCL refused.
 */
DR_MUST_USE dr_status dr_nccl_open(dr_dist *d, double deadline_s, dr_nccl **out, char why[256]);
/* Leaves; waits for what is under way. NULL: nothing. */
void dr_nccl_close(dr_nccl *n);
/* NCCL's version as 22809. */
int dr_nccl_version(const dr_nccl *n);

/* Collective. data[0..n-1] becomes its sum over all ranks. */
DR_MUST_USE dr_status dr_nccl_all_reduce(dr_nccl *n, float *data, int64_t count, void *stream);
/* What stands between begin and end is one operation: no send waits for another call. */
DR_MUST_USE dr_status dr_nccl_group_begin(dr_nccl *n);
DR_MUST_USE dr_status dr_nccl_send(dr_nccl *n, const float *data, int64_t count, int to,
                                   void *stream);
DR_MUST_USE dr_status dr_nccl_recv(dr_nccl *n, float *data, int64_t count, int from, void *stream);
DR_MUST_USE dr_status dr_nccl_group_end(dr_nccl *n);
/* DR_COMM when an operation under way has failed (a peer is gone): all of them were ended then. */
DR_MUST_USE dr_status dr_nccl_poll(dr_nccl *n);
/* Ends all operations under way. */
void dr_nccl_abort(dr_nccl *n);

#endif
