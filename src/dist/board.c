#include "dist/board.h"

#include "base/arena.h"
#include "dist/dist_internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { NAME_BYTES = 64 };

/* The first rank of the host makes the object, the others open it by name. */
static void *map_object(const char *name, bool creates, size_t bytes)
{
    int fd = shm_open(name, creates ? O_RDWR | O_CREAT | O_EXCL : O_RDWR, 0600);
    void *map = MAP_FAILED;
    if (fd >= 0 && (!creates || ftruncate(fd, (off_t)bytes) == 0)) {
        map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return map == MAP_FAILED ? NULL : map;
}

static dr_status share(dr_dist *d, MPI_Comm local, dr_board *b)
{
    char name[NAME_BYTES];
    bool first = d->local_rank == 0;
    int good = 1;
    int all = 0;
    (void)snprintf(name, sizeof name, "/dreamrun.board.%ld", (long)getpid());
    DR_MPI(MPI_Bcast(name, NAME_BYTES, MPI_CHAR, 0, local));
    b->map = first ? map_object(name, true, b->bytes) : NULL;
    DR_MPI(MPI_Barrier(local));
    if (!first) {
        b->map = map_object(name, false, b->bytes);
    }
    good = b->map != NULL;
    DR_MPI(MPI_Allreduce(&good, &all, 1, MPI_INT, MPI_MIN, local));
    if (first) { /* everybody has it open: the name is needed no more */
        (void)shm_unlink(name);
    }
    if (all == 0 && b->map != NULL) {
        (void)munmap(b->map, b->bytes);
        b->map = NULL;
    }
    return DR_OK;
}

dr_status dr_board_open(dr_dist *d, dr_board *b)
{
    *b = (dr_board){.n = d->local_world, .own = d->local_rank};
    b->bytes = (size_t)b->n * sizeof *b->slots;
    dr_status st = DR_OK;
    if (d->uses_mpi && d->local_world > 1) {
        MPI_Comm local;
        DR_MPI(
            MPI_Comm_split_type(d->control, MPI_COMM_TYPE_SHARED, d->rank, MPI_INFO_NULL, &local));
        st = share(d, local, b);
        DR_MPI(MPI_Comm_free(&local));
    }
    if (b->map == NULL) {
        b->n = 1;
        b->own = 0;
        b->slots = dr_xcalloc(1, sizeof *b->slots);
    } else {
        b->slots = b->map;
    }
    atomic_store(&b->slots[b->own].rank, d->rank);
    return st;
}

void dr_board_close(dr_board *b)
{
    if (b->map != NULL) {
        (void)munmap(b->map, b->bytes);
    } else {
        free(b->slots);
    }
    *b = (dr_board){0};
}
