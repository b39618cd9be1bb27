#include "dist/dist_internal.h"

#include "base/arena.h"
#include "base/log.h"
#include "base/note.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

static dr_dist *panicking; /* the process's ranks, for the panic hook */

dr_status dr_mpi_error(int code, const char *call, const char *file, int line)
{
    char text[MPI_MAX_ERROR_STRING];
    int n = 0;
    if (MPI_Error_string(code, text, &n) != MPI_SUCCESS) {
        (void)snprintf(text, sizeof text, "MPI error %d", code);
    }
    return dr_error_set(DR_COMM, file, line, "%.60s: %s", call, text);
}

/* mpirun sets OMPI_COMM_WORLD_SIZE; srun --mpi=pmix sets PMIX_NAMESPACE inside a step. A step
 * without PMIx would start N lone programs: refuse that. */
static dr_status started_by_mpi(bool *out)
{
    const char *ompi = getenv("OMPI_COMM_WORLD_SIZE");
    const char *pmix = getenv("PMIX_NAMESPACE");
    const char *tasks = getenv("SLURM_NTASKS");
    const char *step = getenv("SLURM_STEP_ID");
    *out = ompi != NULL || pmix != NULL;
    if (!*out && step != NULL && tasks != NULL && strcmp(tasks, "1") != 0) {
        DR_FAIL(DR_DEVICE,
                "started by srun as one of %s tasks, but without PMIx: use "
                "srun --mpi=pmix, or dreamrun launch",
                tasks);
    }
    return DR_OK;
}

static void abort_all(const char *message)
{
    (void)fprintf(stderr, "dreamrun: rank %d: %s\n", panicking->rank, message);
    (void)MPI_Abort(MPI_COMM_WORLD, 70);
}

static dr_status join(dr_dist *d)
{
    int provided = MPI_THREAD_SINGLE;
    DR_MPI(MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &provided));
    if (provided < MPI_THREAD_MULTIPLE) {
        DR_FAIL(DR_COMM, "this MPI library does not support MPI_THREAD_MULTIPLE (got level %d)",
                provided);
    }
    DR_MPI(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
    DR_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &d->control));
    DR_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &d->gradients));
    DR_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &d->messages));
    DR_MPI(MPI_Comm_rank(d->control, &d->rank));
    DR_MPI(MPI_Comm_size(d->control, &d->world));
    MPI_Comm local;
    DR_MPI(MPI_Comm_split_type(d->control, MPI_COMM_TYPE_SHARED, d->rank, MPI_INFO_NULL, &local));
    DR_MPI(MPI_Comm_rank(local, &d->local_rank));
    DR_MPI(MPI_Comm_size(local, &d->local_world));
    DR_MPI(MPI_Comm_free(&local));
    panicking = d;
    dr_panic_set_hook(abort_all);
    return DR_OK;
}

/* dreamrun launch says how many ranks it has started: fewer, or lone ones, are never trained on. */
static dr_status check_world(const dr_dist *d)
{
    const char *text = getenv("DREAMRUN_WORLD");
    int64_t want = 0;
    if (text != NULL && dr_parse_i64(text, &want) && want != d->world) {
        DR_FAIL(DR_INVALID,
                "dreamrun launch started %lld ranks, but this process found %d: is it linked with "
                "another MPI than that of mpirun?",
                (long long)want, d->world);
    }
    return DR_OK;
}

dr_status dr_dist_init(dr_dist **out)
{
    bool mpi = false;
    DR_TRY(started_by_mpi(&mpi));
    dr_dist *d = dr_xcalloc(1, sizeof *d);
    d->world = 1;
    d->local_world = 1;
    d->uses_mpi = mpi;
    (void)pthread_mutex_init(&d->waits.lock, NULL);
    dr_status st = mpi ? join(d) : DR_OK;
    if (st == DR_OK) {
        st = check_world(d);
    }
    if (st != DR_OK) {
        (void)pthread_mutex_destroy(&d->waits.lock);
        free(d);
        return st;
    }
    dr_note("joined");
    *out = d;
    return DR_OK;
}

void dr_dist_finalize(dr_dist *d)
{
    if (d == NULL) {
        return;
    }
    if (d->uses_mpi) {
        dr_panic_set_hook(NULL);
        (void)MPI_Comm_free(&d->control);
        (void)MPI_Comm_free(&d->gradients);
        (void)MPI_Comm_free(&d->messages);
        (void)MPI_Finalize();
    }
    (void)pthread_mutex_destroy(&d->waits.lock);
    free(d);
}

int dr_dist_rank(const dr_dist *d)
{
    return d->rank;
}

int dr_dist_world(const dr_dist *d)
{
    return d->world;
}

int dr_dist_local_rank(const dr_dist *d)
{
    return d->local_rank;
}

int dr_dist_local_world(const dr_dist *d)
{
    return d->local_world;
}

dr_status dr_dist_barrier(dr_dist *d)
{
    if (d->uses_mpi) {
        DR_MPI_WAIT(d, DR_WAIT_CONTROL, "a barrier", MPI_Barrier(d->control));
    }
    return DR_OK;
}

dr_status dr_dist_bcast(dr_dist *d, void *data, size_t bytes, int root)
{
    for (size_t at = 0; d->uses_mpi && at < bytes; at += INT_MAX) {
        size_t n = bytes - at < INT_MAX ? bytes - at : INT_MAX;
        DR_MPI_WAIT(d, DR_WAIT_CONTROL, "a broadcast",
                    MPI_Bcast((char *)data + at, (int)n, MPI_BYTE, root, d->control));
    }
    return DR_OK;
}

dr_status dr_dist_allgather(dr_dist *d, const void *in, void *out, size_t bytes)
{
    if (!d->uses_mpi) {
        memcpy(out, in, bytes);
        return DR_OK;
    }
    DR_CHECK(bytes <= INT_MAX, "allgather of %zu bytes", bytes);
    DR_MPI_WAIT(d, DR_WAIT_CONTROL, "the exchange of numbers",
                MPI_Allgather(in, (int)bytes, MPI_BYTE, out, (int)bytes, MPI_BYTE, d->control));
    return DR_OK;
}

static dr_status gather(dr_dist *d, const void *in, size_t n, void *out, const size_t *bytes)
{
    if (d->rank != 0) {
        DR_CHECK(n <= INT_MAX, "gather of %zu bytes", n);
        DR_MPI(MPI_Send(in, (int)n, MPI_BYTE, 0, 1, d->control));
        return DR_OK;
    }
    char *at = out;
    memcpy(at, in, n);
    at += n;
    for (int r = 1; r < d->world; r++) {
        DR_MPI(MPI_Recv(at, (int)bytes[r], MPI_BYTE, r, 1, d->control, MPI_STATUS_IGNORE));
        at += bytes[r];
    }
    return DR_OK;
}

dr_status dr_dist_gatherv(dr_dist *d, const void *in, size_t n, void *out, const size_t *bytes)
{
    dr_wait_begin(d, DR_WAIT_CONTROL, "a gather");
    dr_status st = gather(d, in, n, out, bytes);
    dr_wait_end(d, DR_WAIT_CONTROL);
    return st;
}

dr_status dr_dist_agree(dr_dist *d, dr_status mine)
{
    if (!d->uses_mpi) {
        return mine;
    }
    int key = mine != DR_OK ? d->rank : d->world;
    int first = d->world;
    DR_MPI_WAIT(d, DR_WAIT_CONTROL, "the agreement on how to go on",
                MPI_Allreduce(&key, &first, 1, MPI_INT, MPI_MIN, d->control));
    if (first == d->world) {
        return DR_OK;
    }
    if (d->rank == first && dr_error_status() != mine) { /* a status that came without a record */
        (void)dr_error_set(mine, __FILE__, __LINE__, "rank %d: %s", d->rank, dr_status_text(mine));
    }
    dr_error_copy record;
    dr_error_export(&record);
    DR_TRY(dr_dist_bcast(d, &record, sizeof record, first));
    dr_error_import(&record);
    return record.status;
}

dr_status dr_dist_check_equal(dr_dist *d, const void *data, size_t n, const char *what)
{
    XXH128_hash_t mine = XXH3_128bits(data, n);
    XXH128_hash_t *all = dr_xcalloc((size_t)d->world, sizeof *all);
    dr_status st = dr_dist_allgather(d, &mine, all, sizeof mine);
    for (int r = 1; st == DR_OK && r < d->world; r++) {
        if (!XXH128_isEqual(all[0], all[r])) {
            st = dr_error_set(DR_INVALID, __FILE__, __LINE__,
                              "rank %d has another %s than rank 0: all ranks must see the same "
                              "files and options",
                              r, what);
        }
    }
    free(all);
    return st;
}

void dr_dist_abort(dr_dist *d, dr_status st)
{
    int code = dr_status_exit_code(st);
    if (!d->uses_mpi) {
        dr_log_error_record();
        _exit(code);
    }
    dr_log_write(DR_LOG_ERROR, "rank %d: %s", d->rank, dr_error_message());
    if (d->world > 1) {
        (void)MPI_Abort(MPI_COMM_WORLD, code);
    }
    _exit(code);
}
