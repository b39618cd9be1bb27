/*
 * dist/dist_internal.h - MPI types shared by dist's files. Private to dist.
 */
#ifndef DR_DIST_INTERNAL_H
#define DR_DIST_INTERNAL_H

#include "dist/dist.h"

#include <mpi.h>

struct dr_dist {
    int rank, world, local_rank, local_world;
    bool uses_mpi;
    MPI_Comm control; /* duplicates of MPI_COMM_WORLD: one per thread that communicates */
    MPI_Comm gradients;
    MPI_Comm messages;
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

#endif
