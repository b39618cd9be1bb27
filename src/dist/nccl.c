#include "dist/nccl.h"

#include "base/arena.h"
#include "base/clock.h"
#include "dist/messages.h"
#include "dist/nccl_api.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIBRARY "libnccl.so.2"
enum {
    CALL_SECONDS = 600
}; /* for a call that goes on in the background; connecting takes longest */

struct dr_nccl {
#define X(result, name, parameters) result(*name) parameters;
    DR_NCCL_FUNCTIONS(X)
#undef X
    void *library;
    dr_nccl_comm comm; /* NULL: not joined, or aborted */
};

/* ---- the library ------------------------------------------------------------------------------
 */

typedef struct symbol {
    const char *name;
    void **address;
} symbol;

static bool open_library(dr_nccl *n, char why[256])
{
    const symbol symbols[] = {
#define X(result, name, parameters) {#name, (void **)(void *)&n->name},
        DR_NCCL_FUNCTIONS(X)
#undef X
    };
    const char *named = getenv("DREAMRUN_NCCL");
    const char *file = named != NULL ? named : LIBRARY;
    n->library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (n->library == NULL) {
        (void)snprintf(why, 256, "%s", dlerror());
        return false;
    }
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        *symbols[i].address = dlsym(n->library, symbols[i].name);
        if (*symbols[i].address == NULL) {
            (void)snprintf(why, 256, "%.100s has no function %s", file, symbols[i].name);
            return false;
        }
    }
    return true;
}

static void release(dr_nccl *n)
{
    if (n->library != NULL) {
        (void)dlclose(n->library);
    }
    free(n);
}

/* ---- calls that go on in the background -------------------------------------------------------
 */

static dr_status fail(dr_nccl *n, const char *call, int result)
{
    const char *more = n->comm != NULL ? n->ncclGetLastError(n->comm) : NULL;
    DR_FAIL(DR_COMM, "NCCL: %s: %s%s%.120s", call, n->ncclGetErrorString(result),
            more != NULL && more[0] != '\0' ? ": " : "", more != NULL ? more : "");
}

/* Waits until the communicator is done with a call. */
static dr_status settle(dr_nccl *n, const char *call, int result, double seconds)
{
    const double end = dr_now_s() + seconds;
    while (result == DR_NCCL_IN_PROGRESS) {
        int state = DR_NCCL_SUCCESS;
        result = n->ncclCommGetAsyncError(n->comm, &state);
        if (result == DR_NCCL_SUCCESS) {
            result = state;
        }
        if (result == DR_NCCL_IN_PROGRESS) {
            if (dr_now_s() > end) {
                DR_FAIL(DR_COMM,
                        "NCCL: %s did not finish within %.0f s: a rank is missing, or the network "
                        "between the GPUs is blocked (NCCL_DEBUG=INFO tells more)",
                        call, seconds);
            }
            dr_dist_nap();
        }
    }
    return result == DR_NCCL_SUCCESS ? DR_OK : fail(n, call, result);
}

#define CALL(n, call) settle((n), #call, (n)->call, CALL_SECONDS)

/* ---- joining ----------------------------------------------------------------------------------
 */

/* Whether all ranks have the library; *rank: the first that lacks it, with its reason in why. */
static dr_status all_have(dr_dist *d, bool mine, char why[256], int *rank)
{
    const int world = dr_dist_world(d);
    const unsigned char has = mine ? 1 : 0;
    unsigned char *all = dr_xcalloc((size_t)world, 1);
    dr_status st = dr_dist_allgather(d, &has, all, 1);
    *rank = 0;
    while (*rank < world && all[*rank] != 0) {
        ++*rank;
    }
    if (st == DR_OK && *rank < world) {
        st = dr_dist_bcast(d, why, 256, *rank);
    }
    free(all);
    return st;
}

static dr_status join(dr_dist *d, dr_nccl *n, double deadline_s)
{
    dr_nccl_id id;
    dr_nccl_config config = {.size = sizeof config,
                             .magic = DR_NCCL_CONFIG_MAGIC,
                             .version = DR_NCCL_CONFIG_VERSION,
                             .blocking = 0};
    memset(&id, 0, sizeof id);
    dr_status st = DR_OK;
    if (dr_dist_rank(d) == 0) {
        const int result = n->ncclGetUniqueId(&id);
        st = result == DR_NCCL_SUCCESS ? DR_OK : fail(n, "ncclGetUniqueId", result);
    }
    DR_TRY(dr_dist_agree(d, st));
    DR_TRY(dr_dist_bcast(d, &id, sizeof id, 0));
    const int result =
        n->ncclCommInitRankConfig(&n->comm, dr_dist_world(d), id, dr_dist_rank(d), &config);
    st = settle(n, "joining the ranks", result, deadline_s);
    if (st != DR_OK) {
        dr_nccl_abort(n);
    }
    return dr_dist_agree(d, st);
}

dr_status dr_nccl_open(dr_dist *d, double deadline_s, dr_nccl **out, char why[256])
{
    dr_nccl *n = dr_xcalloc(1, sizeof *n);
    int lacking = 0;
    *out = NULL;
    dr_status st = all_have(d, open_library(n, why), why, &lacking);
    if (st != DR_OK || lacking < dr_dist_world(d)) {
        release(n);
        return st;
    }
    st = join(d, n, deadline_s);
    if (st != DR_OK) {
        dr_nccl_abort(n);
        release(n);
        return st;
    }
    *out = n;
    return DR_OK;
}

void dr_nccl_close(dr_nccl *n)
{
    if (n == NULL) {
        return;
    }
    if (n->comm != NULL) {
        if (CALL(n, ncclCommFinalize(n->comm)) == DR_OK) {
            (void)n->ncclCommDestroy(n->comm);
            n->comm = NULL;
        } else {
            dr_error_clear();
            dr_nccl_abort(n);
        }
    }
    release(n);
}

void dr_nccl_abort(dr_nccl *n)
{
    if (n->comm != NULL) {
        (void)n->ncclCommAbort(n->comm);
        n->comm = NULL;
    }
}

int dr_nccl_version(const dr_nccl *n)
{
    int version = 0;
    (void)n->ncclGetVersion(&version);
    return version;
}

/* ---- operations -------------------------------------------------------------------------------
 */

dr_status dr_nccl_all_reduce(dr_nccl *n, float *data, int64_t count, void *stream)
{
    return CALL(
        n, ncclAllReduce(data, data, (size_t)count, DR_NCCL_FLOAT, DR_NCCL_SUM, n->comm, stream));
}

dr_status dr_nccl_group_begin(dr_nccl *n)
{
    const int result = n->ncclGroupStart();
    return result == DR_NCCL_SUCCESS ? DR_OK : fail(n, "ncclGroupStart", result);
}

/* Inside a group nothing starts yet: there is nothing to wait for. */
static dr_status queued(dr_nccl *n, const char *call, int result)
{
    return result == DR_NCCL_SUCCESS || result == DR_NCCL_IN_PROGRESS ? DR_OK
                                                                      : fail(n, call, result);
}

dr_status dr_nccl_send(dr_nccl *n, const float *data, int64_t count, int to, void *stream)
{
    return queued(n, "ncclSend",
                  n->ncclSend(data, (size_t)count, DR_NCCL_FLOAT, to, n->comm, stream));
}

dr_status dr_nccl_recv(dr_nccl *n, float *data, int64_t count, int from, void *stream)
{
    return queued(n, "ncclRecv",
                  n->ncclRecv(data, (size_t)count, DR_NCCL_FLOAT, from, n->comm, stream));
}

dr_status dr_nccl_group_end(dr_nccl *n)
{
    return CALL(n, ncclGroupEnd());
}

dr_status dr_nccl_poll(dr_nccl *n)
{
    int state = DR_NCCL_SUCCESS;
    int result = n->ncclCommGetAsyncError(n->comm, &state);
    result = result == DR_NCCL_SUCCESS ? state : result;
    if (result == DR_NCCL_SUCCESS || result == DR_NCCL_IN_PROGRESS) {
        return DR_OK;
    }
    const dr_status st = fail(n, "an exchange of gradients", result);
    dr_nccl_abort(n);
    return st;
}
