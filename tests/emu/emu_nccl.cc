/*
 * tests/emu/emu_nccl.cc - NCCL over MPI, a shared library with NCCL's names and types that works on
 * the emulated GPU's memory in the order of its streams.
 *
 * A communicator is ready after a few questions, not at once; data must be device memory; sends and
 * receives exist in groups only. DREAMRUN_EMU_NCCL=never: ranks never meet. =lost N: from the N-th
 * operation on a peer is gone.
 */
#include "dist/nccl_api.h"
#include "emu_internal.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mpi.h>
#include <vector>

namespace
{
struct message {
    void *data;
    size_t n;
    int peer;
    bool sends;
};
struct communicator {
    MPI_Comm ranks = MPI_COMM_NULL;
    int world = 0, questions = 3, operations = 0;
    bool lost = false;
};

std::vector<message> group;
cudaStream_t group_stream;
communicator *group_comm;
int group_depth;

const char *wish(const char *what)
{
    const char *text = getenv("DREAMRUN_EMU_NCCL");
    return text != nullptr && strncmp(text, what, strlen(what)) == 0 ? text + strlen(what)
                                                                     : nullptr;
}

communicator *of(dr_nccl_comm comm)
{
    return static_cast<communicator *>(comm);
}

/* One more operation; false: the communicator is not ready for it. */
bool count(communicator *c)
{
    const char *limit = wish("lost ");
    c->operations++;
    c->lost = c->lost || (limit != nullptr && c->operations >= strtol(limit, nullptr, 10));
    return c->questions == 0;
}

void move(communicator *c, const std::vector<message> &messages)
{
    std::vector<MPI_Request> requests(messages.size());
    for (size_t i = 0; i < messages.size(); i++) {
        const message &m = messages[i];
        const int n = static_cast<int>(m.n);
        if (m.sends) {
            (void)MPI_Isend(m.data, n, MPI_FLOAT, m.peer, 0, c->ranks, &requests[i]);
        } else {
            (void)MPI_Irecv(m.data, n, MPI_FLOAT, m.peer, 0, c->ranks, &requests[i]);
        }
    }
    (void)MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE);
}

/* Last rank first: another order than the tree's. */
void sum_all(communicator *c, float *data, size_t n)
{
    std::vector<float> all(n * static_cast<size_t>(c->world));
    (void)MPI_Allgather(data, static_cast<int>(n), MPI_FLOAT, all.data(), static_cast<int>(n),
                        MPI_FLOAT, c->ranks);
    for (size_t i = 0; i < n; i++) {
        float sum = 0.0f;
        for (size_t q = static_cast<size_t>(c->world); q > 0; q--) {
            sum += all[(q - 1) * n + i];
        }
        data[i] = sum;
    }
}

int queue(void *data, size_t n, int type, int peer, dr_nccl_comm comm, void *stream, bool sends)
{
    if (group_depth == 0 || type != DR_NCCL_FLOAT || peer < 0 || peer >= of(comm)->world ||
        !emu_is_device(data, n * sizeof(float))) {
        return DR_NCCL_INVALID_ARGUMENT;
    }
    group.push_back(message{data, n, peer, sends});
    group_stream = static_cast<cudaStream_t>(stream);
    group_comm = of(comm);
    return DR_NCCL_SUCCESS;
}
} // namespace

extern "C" {
int ncclGetVersion(int *version)
{
    *version = 22800;
    return DR_NCCL_SUCCESS;
}

int ncclGetUniqueId(dr_nccl_id *id)
{
    (void)snprintf(id->bytes, sizeof id->bytes, "emulated");
    return DR_NCCL_SUCCESS;
}

int ncclCommInitRankConfig(dr_nccl_comm *comm, int world, dr_nccl_id id, int rank,
                           dr_nccl_config *config)
{
    if (strcmp(id.bytes, "emulated") != 0 || config->magic != DR_NCCL_CONFIG_MAGIC ||
        config->size != sizeof *config || config->blocking != 0) {
        return DR_NCCL_INVALID_ARGUMENT;
    }
    communicator *c = new communicator;
    c->world = world;
    (void)MPI_Comm_split(MPI_COMM_WORLD, 0, rank, &c->ranks);
    *comm = c;
    return DR_NCCL_IN_PROGRESS;
}

int ncclCommGetAsyncError(dr_nccl_comm comm, int *error)
{
    communicator *c = of(comm);
    if (c->questions > 0 && wish("never") == nullptr) {
        c->questions--;
    }
    *error =
        c->lost ? DR_NCCL_REMOTE_ERROR : (c->questions > 0 ? DR_NCCL_IN_PROGRESS : DR_NCCL_SUCCESS);
    return DR_NCCL_SUCCESS;
}

int ncclCommFinalize(dr_nccl_comm)
{
    return DR_NCCL_IN_PROGRESS;
}

int ncclCommDestroy(dr_nccl_comm comm)
{
    (void)MPI_Comm_free(&of(comm)->ranks);
    delete of(comm);
    return DR_NCCL_SUCCESS;
}

int ncclCommAbort(dr_nccl_comm comm)
{
    delete of(comm); /* its peers may be gone: nothing is asked of them */
    return DR_NCCL_SUCCESS;
}

const char *ncclGetErrorString(int result)
{
    switch (result) {
    case DR_NCCL_SUCCESS:
        return "no error";
    case DR_NCCL_INVALID_ARGUMENT:
        return "invalid argument";
    case DR_NCCL_REMOTE_ERROR:
        return "remote process exited or there was a network error";
    default:
        return "another error";
    }
}

const char *ncclGetLastError(dr_nccl_comm)
{
    return "";
}

int ncclAllReduce(const void *in, void *out, size_t n, int type, int op, dr_nccl_comm comm,
                  void *stream)
{
    communicator *c = of(comm);
    float *data = static_cast<float *>(out);
    if (!count(c) || in != out || type != DR_NCCL_FLOAT || op != DR_NCCL_SUM ||
        !emu_is_device(out, n * sizeof(float))) {
        return DR_NCCL_INVALID_ARGUMENT;
    }
    if (!c->lost) {
        emu_enqueue(static_cast<cudaStream_t>(stream), [=]() { sum_all(c, data, n); });
    }
    return DR_NCCL_IN_PROGRESS;
}

int ncclSend(const void *data, size_t n, int type, int peer, dr_nccl_comm comm, void *stream)
{
    return queue(const_cast<void *>(data), n, type, peer, comm, stream, true);
}

int ncclRecv(void *data, size_t n, int type, int peer, dr_nccl_comm comm, void *stream)
{
    return queue(data, n, type, peer, comm, stream, false);
}

int ncclGroupStart(void)
{
    group_depth++;
    return DR_NCCL_SUCCESS;
}

int ncclGroupEnd(void)
{
    if (--group_depth > 0 || group.empty()) {
        return DR_NCCL_SUCCESS;
    }
    communicator *c = group_comm;
    const std::vector<message> messages = std::move(group);
    group.clear();
    if (!count(c)) {
        return DR_NCCL_INVALID_ARGUMENT;
    }
    if (!c->lost) {
        emu_enqueue(group_stream, [=]() { move(c, messages); });
    }
    return DR_NCCL_IN_PROGRESS;
}
}
