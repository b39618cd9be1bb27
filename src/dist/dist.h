/*
 * dist/dist.h - ranks: who I am, control messages, agreement.
 *
 * Layer:    dist, the only includer of mpi.h.
 * Threads:  all calls from one thread; the reducer has a communicator and a thread of its own.
 *
 * Started by mpirun or srun the program joins its ranks; started alone it is rank 0 of 1 and never
 * touches MPI. A call marked collective must be made by every rank, in the same order.
 */
#ifndef DR_DIST_H
#define DR_DIST_H

#include "dreamrun/status.h"

typedef struct dr_dist dr_dist;

/* Joins the ranks. DR_COMM when MPI cannot start or lacks thread support; DR_INVALID when they are
 * not as many as dreamrun launch has started (DREAMRUN_WORLD). */
DR_MUST_USE dr_status dr_dist_init(dr_dist **out);
/* Leaves; collective when there are several ranks. */
void dr_dist_finalize(dr_dist *d);
int dr_dist_rank(const dr_dist *d);
int dr_dist_world(const dr_dist *d);
/* Rank among, and number of, the ranks on this host (MPI_Comm_split_type). */
int dr_dist_local_rank(const dr_dist *d);
int dr_dist_local_world(const dr_dist *d);

/* Collective. Waits for every rank. */
DR_MUST_USE dr_status dr_dist_barrier(dr_dist *d);
/* Collective. bytes of rank root's data into every rank's data. */
DR_MUST_USE dr_status dr_dist_bcast(dr_dist *d, void *data, size_t bytes, int root);
/* Collective. Every rank's bytes, in rank order, into out (world * bytes) on every rank. */
DR_MUST_USE dr_status dr_dist_allgather(dr_dist *d, const void *in, void *out, size_t bytes);
/*
 * Collective. bytes[r] of each rank r to rank 0's out, in rank order; out and bytes matter on rank
 * 0 only, except bytes[own rank].
 */
DR_MUST_USE dr_status dr_dist_gatherv(dr_dist *d, const void *in, size_t n, void *out,
                                      const size_t *bytes);
/*
 * Collective. Every rank returns the status of the first rank that has one other than DR_OK, with
 * that rank's message in the record; DR_OK when all have DR_OK.
 */
DR_MUST_USE dr_status dr_dist_agree(dr_dist *d, dr_status mine);
/* Collective. DR_INVALID unless all ranks have the same 128-bit hash of `what`. */
DR_MUST_USE dr_status dr_dist_check_equal(dr_dist *d, const void *data, size_t n, const char *what);
/* Not collective: prints the record with this rank's number and ends all ranks with its exit code.
 */
DR_NORETURN void dr_dist_abort(dr_dist *d, dr_status st);

#endif
