#include "dist/messages.h"

#include "dist/dist_internal.h"

#include <limits.h>
#include <time.h>

enum { TAG = 7, NAP_NS = 1000000 };

void dr_dist_nap(void)
{
    const struct timespec t = {.tv_nsec = NAP_NS};
    (void)nanosleep(&t, NULL);
}

dr_status dr_dist_send(dr_dist *d, int to, const void *data, size_t bytes)
{
    DR_CHECK(d->uses_mpi && to != d->rank && bytes <= INT_MAX, "message of %zu bytes to rank %d",
             bytes, to);
    MPI_Request request;
    DR_MPI(MPI_Isend(data, (int)bytes, MPI_BYTE, to, TAG, d->messages, &request));
    for (int done = 0; done == 0;) {
        DR_MPI(MPI_Test(&request, &done, MPI_STATUS_IGNORE));
        if (done == 0) {
            dr_dist_nap();
        }
    }
    return DR_OK;
}

dr_status dr_dist_poll(dr_dist *d, int from, int *sender, size_t *bytes)
{
    int found = 0;
    int n = 0;
    MPI_Status status;
    *sender = -1;
    if (!d->uses_mpi) {
        return DR_OK;
    }
    DR_MPI(MPI_Iprobe(from < 0 ? MPI_ANY_SOURCE : from, TAG, d->messages, &found, &status));
    if (found != 0) {
        DR_MPI(MPI_Get_count(&status, MPI_BYTE, &n));
        *sender = status.MPI_SOURCE;
        *bytes = (size_t)n;
    }
    return DR_OK;
}

dr_status dr_dist_wait(dr_dist *d, int from, int *sender, size_t *bytes)
{
    DR_TRY(dr_dist_poll(d, from, sender, bytes));
    while (*sender < 0) {
        dr_dist_nap();
        DR_TRY(dr_dist_poll(d, from, sender, bytes));
    }
    return DR_OK;
}

dr_status dr_dist_receive(dr_dist *d, int from, void *data, size_t bytes)
{
    DR_MPI(MPI_Recv(data, (int)bytes, MPI_BYTE, from, TAG, d->messages, MPI_STATUS_IGNORE));
    return DR_OK;
}
