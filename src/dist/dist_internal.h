/*
 * dist/dist_internal.h - MPI types shared by dist's files. Private to dist.
 */
#ifndef DR_DIST_INTERNAL_H
#define DR_DIST_INTERNAL_H

#include "dist/wait_limit.h"

#include <mpi.h>
#include <pthread.h>

typedef struct dr_waits { /* dist/wait_limit.h */
    pthread_mutex_t lock;
    struct dr_board *board; /* NULL: nobody looks */
    double limit_s;
    const char *name[DR_WAIT_COUNT]; /* of the exchange that goes on, or NULL */
    double began_s[DR_WAIT_COUNT];
} dr_waits;

struct dr_dist {
    int rank, world, local_rank, local_world;
    bool uses_mpi;
    MPI_Comm control; /* duplicates of MPI_COMM_WORLD: one per thread that communicates */
    MPI_Comm gradients;
    MPI_Comm messages;
    dr_waits waits;
};

/* Turns an MPI error code into a record. */
dr_status dr_mpi_error(int code, const char *call, const char *file, int line);
#define DR_MPI(call)                                                                               \
    do {                                                                                           \
        const int dr_mpi_code_ = (call);                                                           \
        if (dr_mpi_code_ != MPI_SUCCESS) {                                                         \
            return dr_mpi_error(dr_mpi_code_, #call, __FILE__, __LINE__);                          \
        }                                                                                          \
    } while (0)

/* The same for a call that waits for other ranks. */
void dr_wait_begin(dr_dist *d, dr_wait_lane lane, const char *name);
void dr_wait_end(dr_dist *d, dr_wait_lane lane);
#define DR_MPI_WAIT(d, lane, name, call)                                                           \
    do {                                                                                           \
        dr_wait_begin(d, lane, name);                                                              \
        const int dr_mpi_wait_code_ = (call);                                                      \
        dr_wait_end(d, lane);                                                                      \
        if (dr_mpi_wait_code_ != MPI_SUCCESS) {                                                    \
            return dr_mpi_error(dr_mpi_wait_code_, #call, __FILE__, __LINE__);                     \
        }                                                                                          \
    } while (0)

#endif
