/*
 * cuDNN 9's graph API: the library, graphs, the choice of a plan.
 *
 * A graph of operations is given to the heuristics, which name engine configurations in the order
 * of their expected speed; the first that keeps our rules and can be finalised is the plan. Rules
 * are read from an engine's numerical notes. cuDNN keeps pointers into what a plan was made of, so
 * all of it lives as long as the plan.
 */
#include "backend/cuda/cuda_cudnn.h"

#include "backend/cuda/cuda_cudnn_internal.h"
#include "backend/cuda/cuda_library.h"

#include <stdio.h>
#include <string.h>

#define LIBRARY "libcudnn.so.9"
#define FUNCTIONS(X)                                                                               \
    X(cudnnBackendCreateDescriptor)                                                                \
    X(cudnnBackendDestroyDescriptor)                                                               \
    X(cudnnBackendExecute)                                                                         \
    X(cudnnBackendFinalize)                                                                        \
    X(cudnnBackendGetAttribute)                                                                    \
    X(cudnnBackendSetAttribute)                                                                    \
    X(cudnnCreate)                                                                                 \
    X(cudnnDestroy)                                                                                \
    X(cudnnGetErrorString)                                                                         \
    X(cudnnGetLastErrorString)                                                                     \
    X(cudnnGetVersion)                                                                             \
    X(cudnnSetStream)

enum { CANDIDATES = 16 }; /* configurations asked of a heuristic */

static struct {
#define X(name) __typeof__(&(name)) name;
    FUNCTIONS(X)
#undef X
    void *library;
    cudnnHandle_t handle;
    cudnnBackendDescriptor_t device; /* instead of a handle: plans for a GPU that is not here */
    char why[256];
} dnn;

static void fail(dr_cudnn_graph *g, const char *what, cudnnStatus_t st)
{
    if (!g->failed) {
        char words[160] = "";
        dnn.cudnnGetLastErrorString(words, sizeof words);
        (void)snprintf(g->why, sizeof g->why, "%s: %s %s", what, dnn.cudnnGetErrorString(st),
                       words);
        g->failed = true;
    }
}

cudnnBackendDescriptor_t dr_cudnn_make(dr_cudnn_graph *g, cudnnBackendDescriptorType_t type)
{
    cudnnBackendDescriptor_t d = NULL;
    if (g->failed) {
        return NULL;
    }
    DR_CHECK(g->n_made < DR_CUDNN_MAX_MADE, "a graph of more than %d parts", g->n_made);
    const cudnnStatus_t st = dnn.cudnnBackendCreateDescriptor(type, &d);
    if (st != CUDNN_STATUS_SUCCESS) {
        fail(g, "create", st);
        return NULL;
    }
    g->made[g->n_made++] = d;
    return d;
}

void dr_cudnn_set(dr_cudnn_graph *g, cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                  cudnnBackendAttributeType_t type, int64_t n, const void *values)
{
    if (g->failed) {
        return;
    }
    const cudnnStatus_t st = dnn.cudnnBackendSetAttribute(d, name, type, n, values);
    if (st != CUDNN_STATUS_SUCCESS) {
        char what[32];
        (void)snprintf(what, sizeof what, "attribute %d", (int)name);
        fail(g, what, st);
    }
}

void dr_cudnn_set_descriptor(dr_cudnn_graph *g, cudnnBackendDescriptor_t d,
                             cudnnBackendAttributeName_t name, cudnnBackendDescriptor_t value)
{
    dr_cudnn_set(g, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value);
}

void dr_cudnn_finish(dr_cudnn_graph *g, cudnnBackendDescriptor_t d)
{
    if (g->failed) {
        return;
    }
    const cudnnStatus_t st = dnn.cudnnBackendFinalize(d);
    if (st != CUDNN_STATUS_SUCCESS) {
        fail(g, "finalize", st);
    }
}

void dr_cudnn_add_op(dr_cudnn_graph *g, cudnnBackendDescriptor_t op)
{
    dr_cudnn_finish(g, op);
    if (!g->failed) {
        DR_CHECK(g->n_ops < DR_CUDNN_MAX_OPS, "a graph of more than %d operations", g->n_ops);
        g->op[g->n_ops++] = op;
    }
}

void dr_cudnn_free(dr_cudnn_graph *g)
{
    while (g->n_made > 0) {
        (void)dnn.cudnnBackendDestroyDescriptor(g->made[--g->n_made]);
    }
    g->plan = NULL;
}

/* ---- the choice of a plan ---------------------------------------------------------------------
 */

static cudnnBackendDescriptor_t operation_graph(dr_cudnn_graph *g)
{
    cudnnBackendDescriptor_t d = dr_cudnn_make(g, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
    dr_cudnn_set(g, d, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, g->n_ops,
                 g->op);
    if (dnn.device == NULL) {
        dr_cudnn_set(g, d, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &dnn.handle);
    }
    dr_cudnn_finish(g, d);
    return d;
}

/* Configurations named by a heuristic, owned by the graph. */
static int64_t ask(dr_cudnn_graph *g, cudnnBackendDescriptor_t ops, cudnnBackendHeurMode_t mode,
                   cudnnBackendDescriptor_t found[CANDIDATES])
{
    int64_t n = 0;
    cudnnBackendDescriptor_t heuristic = dr_cudnn_make(g, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
    dr_cudnn_set_descriptor(g, heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, ops);
    dr_cudnn_set(g, heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode);
    if (dnn.device != NULL) {
        dr_cudnn_set_descriptor(g, heuristic, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, dnn.device);
    }
    dr_cudnn_finish(g, heuristic);
    for (int i = 0; i < CANDIDATES; i++) {
        found[i] = dr_cudnn_make(g, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR);
    }
    if (g->failed) {
        return 0;
    }
    const cudnnStatus_t st =
        dnn.cudnnBackendGetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                     CUDNN_TYPE_BACKEND_DESCRIPTOR, CANDIDATES, &n, found);
    if (st != CUDNN_STATUS_SUCCESS) {
        fail(g, "heuristics", st);
        return 0;
    }
    return n < CANDIDATES ? n : CANDIDATES;
}

/* Whether the configuration's engine keeps the rules; else its note stands in why. */
static bool is_allowed(dr_cudnn_graph *g, cudnnBackendDescriptor_t config, bool no_tensor_cores)
{
    cudnnBackendNumericalNote_t note[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
    cudnnBackendDescriptor_t engine = dr_cudnn_make(g, CUDNN_BACKEND_ENGINE_DESCRIPTOR);
    int64_t n = 0;
    if (g->failed ||
        dnn.cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE,
                                     CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &n,
                                     &engine) != CUDNN_STATUS_SUCCESS ||
        dnn.cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE,
                                     CUDNN_TYPE_NUMERICAL_NOTE, CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &n,
                                     note) != CUDNN_STATUS_SUCCESS) {
        return false;
    }
    for (int64_t i = 0; i < n; i++) {
        switch (note[i]) {
        case CUDNN_NUMERICAL_NOTE_TENSOR_CORE:
            if (no_tensor_cores) {
                return false;
            }
            break;
        case CUDNN_NUMERICAL_NOTE_STRICT_NAN_PROP:
            break;
        default: /* other sums on other runs, or of fewer bits */
            return false;
        }
    }
    return true;
}

/* A plan of the configuration, when it can be made and wants no more memory than is allowed. */
static bool try_plan(dr_cudnn_graph *g, cudnnBackendDescriptor_t config)
{
    dr_cudnn_graph trial = {.n_made = 0};
    int64_t bytes = 0;
    int64_t n = 0;
    cudnnBackendDescriptor_t plan = dr_cudnn_make(&trial, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    dr_cudnn_set_descriptor(&trial, plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
    if (dnn.device == NULL) {
        dr_cudnn_set(&trial, plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1,
                     &dnn.handle);
    } else {
        dr_cudnn_set_descriptor(&trial, plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, dnn.device);
    }
    dr_cudnn_finish(&trial, plan);
    if (!trial.failed &&
        dnn.cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE,
                                     CUDNN_TYPE_INT64, 1, &n, &bytes) == CUDNN_STATUS_SUCCESS &&
        bytes <= DR_CUDA_CUDNN_MOST_WORK && g->n_made < DR_CUDNN_MAX_MADE) {
        g->made[g->n_made++] = plan;
        g->plan = plan;
        g->work_bytes = (size_t)bytes;
        return true;
    }
    (void)snprintf(g->why, sizeof g->why, "%s",
                   trial.failed ? trial.why : "every plan wants more than 272 MiB");
    dr_cudnn_free(&trial);
    return false;
}

bool dr_cudnn_find_plan(dr_cudnn_graph *g, bool no_tensor_cores)
{
    static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
    cudnnBackendDescriptor_t ops = operation_graph(g);
    for (size_t m = 0; m < sizeof modes / sizeof *modes && !g->failed; m++) {
        cudnnBackendDescriptor_t found[CANDIDATES];
        const int64_t n = ask(g, ops, modes[m], found);
        for (int64_t i = 0; i < n; i++) {
            if (is_allowed(g, found[i], no_tensor_cores) && try_plan(g, found[i])) {
                return true;
            }
        }
    }
    if (g->why[0] == '\0') {
        (void)snprintf(g->why, sizeof g->why, "no engine that is exact and deterministic");
    }
    return false;
}

dr_status dr_cudnn_execute(const dr_cudnn_graph *g, void *stream, int64_t n, const int64_t *ids,
                           void *const *pointers, void *work)
{
    dr_cudnn_graph pack = {.n_made = 0};
    cudnnStatus_t st = dnn.cudnnSetStream(dnn.handle, stream);
    cudnnBackendDescriptor_t d = dr_cudnn_make(&pack, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR);
    dr_cudnn_set(&pack, d, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, n, ids);
    dr_cudnn_set(&pack, d, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, n, pointers);
    dr_cudnn_set(&pack, d, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &work);
    dr_cudnn_finish(&pack, d);
    if (st == CUDNN_STATUS_SUCCESS && !pack.failed) {
        st = dnn.cudnnBackendExecute(dnn.handle, g->plan, d);
    }
    if (st != CUDNN_STATUS_SUCCESS) {
        fail(&pack, "execute", st);
    }
    dr_cudnn_free(&pack);
    if (pack.failed) {
        DR_FAIL(DR_DEVICE, "cuDNN: %s", pack.why);
    }
    return DR_OK;
}

/* ---- opening ----------------------------------------------------------------------------------
 */

static dr_status open_library(void)
{
    const dr_cuda_symbol symbols[] = {
#define X(name) {#name, (void **)&dnn.name},
        FUNCTIONS(X)
#undef X
    };
    return dr_cuda_library_open(LIBRARY, symbols, sizeof symbols / sizeof *symbols, &dnn.library);
}

dr_status dr_cuda_cudnn_open(bool tf32, const char **why)
{
    *why = NULL;
    if (open_library() != DR_OK) { /* the own kernels do without it */
        (void)snprintf(dnn.why, sizeof dnn.why, "%s", dr_error_message());
        dr_error_clear();
        *why = dnn.why;
        return DR_OK;
    }
    const cudnnStatus_t st = dnn.cudnnCreate(&dnn.handle);
    if (st != CUDNN_STATUS_SUCCESS) {
        DR_FAIL(DR_DEVICE, "cuDNN cannot start: %s", dnn.cudnnGetErrorString(st));
    }
    dr_cuda_cudnn_conv_begin(tf32);
    dr_cuda_sdpa_begin();
    return DR_OK;
}

dr_status dr_cuda_cudnn_open_for(const char *json, bool tf32)
{
    dr_cudnn_graph g = {.n_made = 0};
    DR_TRY(open_library());
    dnn.device = dr_cudnn_make(&g, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
    dr_cudnn_set(&g, dnn.device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR,
                 (int64_t)strlen(json), json);
    dr_cudnn_finish(&g, dnn.device);
    if (g.failed) {
        DR_FAIL(DR_UNSUPPORTED, "cuDNN plans for no GPU that is not here: %s", g.why);
    }
    dr_cuda_cudnn_conv_begin(tf32);
    dr_cuda_sdpa_begin();
    return DR_OK;
}

void dr_cuda_cudnn_close(void)
{
    dr_cuda_cudnn_conv_end();
    dr_cuda_sdpa_end();
    if (dnn.device != NULL) {
        (void)dnn.cudnnBackendDestroyDescriptor(dnn.device);
    }
    if (dnn.handle != NULL) {
        (void)dnn.cudnnDestroy(dnn.handle);
    }
    dr_cuda_library_close(dnn.library);
    memset(&dnn, 0, sizeof dnn);
}

int dr_cuda_cudnn_version(void)
{
    return dnn.library != NULL ? (int)dnn.cudnnGetVersion() : 0;
}
