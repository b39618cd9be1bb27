/*
 * Matrix products by cuBLASLt, sums in f32. One plan (descriptors and the algorithm that the
 * library's heuristic names first) per shape, kept until the GPU is closed.
 *
 * cuBLASLt thinks in columns: a row-major (m,n) matrix is its (n,m) one. So c = a b is asked for as
 * c^T = b^T a^T, and the bias, one number per column of c, is its "one number per row".
 */
#include "backend/cuda/cuda_gemm.h"

#include "backend/cuda/cuda_library.h"
#include "base/arena.h"

#include <cublasLt.h>
#include <cuda_runtime_api.h>
#include <stdlib.h>
#include <string.h>

#define LIBRARY "libcublasLt.so.13"
#define FUNCTIONS(X)                                                                               \
    X(cublasLtCreate)                                                                              \
    X(cublasLtDestroy)                                                                             \
    X(cublasLtGetStatusString)                                                                     \
    X(cublasLtMatmul)                                                                              \
    X(cublasLtMatmulAlgoGetHeuristic)                                                              \
    X(cublasLtMatmulDescCreate)                                                                    \
    X(cublasLtMatmulDescDestroy)                                                                   \
    X(cublasLtMatmulDescSetAttribute)                                                              \
    X(cublasLtMatmulPreferenceCreate)                                                              \
    X(cublasLtMatmulPreferenceDestroy)                                                             \
    X(cublasLtMatmulPreferenceSetAttribute)                                                        \
    X(cublasLtMatrixLayoutCreate)                                                                  \
    X(cublasLtMatrixLayoutDestroy)                                                                 \
    X(cublasLtMatrixLayoutSetAttribute)

enum { BUCKETS = 256 };
enum { WORKSPACE = 32 << 20 }; /* what cuBLAS takes for itself on Hopper */

typedef struct plan_key { /* all bytes count: zeroed before it is filled */
    int64_t m, n, k, batch, a_ld, b_ld, c_ld, a_stride, b_stride, c_stride;
    uint32_t a_align, b_align, c_align;
    int32_t dtype, c_dtype, transposed, has_bias, adds;
} plan_key;

typedef struct plan {
    plan_key key;
    struct plan *next;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t a, b, c; /* in cuBLASLt's order: a is our b */
    cublasLtMatmulAlgo_t algo;
} plan;

static struct {
#define X(name) __typeof__(&(name)) name;
    FUNCTIONS(X)
#undef X
    void *library;
    cublasLtHandle_t handle;
    cublasLtMatmulPreference_t preference;
    void *workspace;
    bool tf32;
    plan *buckets[BUCKETS];
} lt;

#define LT(call)                                                                                   \
    do {                                                                                           \
        const cublasStatus_t lt_st_ = (call);                                                      \
        if (lt_st_ != CUBLAS_STATUS_SUCCESS) {                                                     \
            DR_FAIL(DR_DEVICE, "cuBLASLt: %.60s: %s", #call, lt.cublasLtGetStatusString(lt_st_));  \
        }                                                                                          \
    } while (0)

static cudaDataType_t type_of(dr_dtype t)
{
    return t == DR_F16 ? CUDA_R_16F : t == DR_BF16 ? CUDA_R_16BF : CUDA_R_32F;
}

/* The largest power of two up to 256 that divides the address and all row and batch steps. */
static uint32_t alignment(const void *p, int64_t ld, int64_t stride, dr_dtype t)
{
    const uint64_t size = dr_dtype_size(t);
    const uint64_t bits =
        (uint64_t)(uintptr_t)p | (uint64_t)ld * size | (uint64_t)stride * size | 256;
    return (uint32_t)(bits & (~bits + 1));
}

static plan_key key_of(const dr_cuda_gemm_args *g)
{
    plan_key k;
    memset(&k, 0, sizeof k);
    k.m = g->m;
    k.n = g->n;
    k.k = g->k;
    k.batch = g->batch;
    k.a_ld = g->a.ld;
    k.b_ld = g->b.ld;
    k.c_ld = g->c_ld;
    k.a_stride = g->a.stride;
    k.b_stride = g->b.stride;
    k.c_stride = g->c_stride;
    k.a_align = alignment(g->a.data, g->a.ld, g->a.stride, g->dtype);
    k.b_align = alignment(g->b.data, g->b.ld, g->b.stride, g->dtype);
    k.c_align = alignment(g->c, g->c_ld, g->c_stride, g->c_dtype);
    if (g->bias != NULL) { /* its epilogue loads the bias as it stores c */
        const uint32_t bias = alignment(g->bias, 0, 0, g->dtype);
        k.c_align = k.c_align < bias ? k.c_align : bias;
    }
    k.dtype = (int32_t)g->dtype;
    k.c_dtype = (int32_t)g->c_dtype;
    k.transposed = (g->a.transposed ? 1 : 0) | (g->b.transposed ? 2 : 0);
    k.has_bias = g->bias != NULL;
    k.adds = g->beta != 0.0f;
    return k;
}

static size_t bucket_of(const plan_key *k)
{
    uint64_t h = 14695981039346656037ULL; /* FNV-1a */
    const unsigned char *bytes = (const unsigned char *)k;
    for (size_t i = 0; i < sizeof *k; i++) {
        h = (h ^ bytes[i]) * 1099511628211ULL;
    }
    return (size_t)(h % BUCKETS);
}

/* (rows,cols) in columns; a transposed matrix of ours is one without transposition there. */
static dr_status make_layout(cublasLtMatrixLayout_t *out, dr_dtype t, int64_t rows, int64_t cols,
                             int64_t ld, int64_t stride, int64_t batch)
{
    const int32_t count = (int32_t)batch;
    LT(lt.cublasLtMatrixLayoutCreate(out, type_of(t), (uint64_t)rows, (uint64_t)cols, ld));
    LT(lt.cublasLtMatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count,
                                           sizeof count));
    LT(lt.cublasLtMatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                           &stride, sizeof stride));
    return DR_OK;
}

static dr_status set_alignment(cublasLtMatmulPreferenceAttributes_t what, uint32_t bytes)
{
    LT(lt.cublasLtMatmulPreferenceSetAttribute(lt.preference, what, &bytes, sizeof bytes));
    return DR_OK;
}

static dr_status set_bias(cublasLtMatmulDesc_t desc, const void *bias)
{
    LT(lt.cublasLtMatmulDescSetAttribute(desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias,
                                         sizeof bias));
    return DR_OK;
}

static dr_status describe(plan *p, const dr_cuda_gemm_args *g)
{
    const bool fast = lt.tf32 && g->dtype == DR_F32;
    const cublasOperation_t op_a = g->b.transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t op_b = g->a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    LT(lt.cublasLtMatmulDescCreate(
        &p->desc, fast ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, CUDA_R_32F));
    LT(lt.cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_TRANSA, &op_a, sizeof op_a));
    LT(lt.cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_TRANSB, &op_b, sizeof op_b));
    if (g->bias != NULL) {
        LT(lt.cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                             sizeof epilogue));
        DR_TRY(set_bias(p->desc, g->bias));
    }
    DR_TRY(make_layout(&p->a, g->dtype, g->b.transposed ? g->k : g->n,
                       g->b.transposed ? g->n : g->k, g->b.ld, g->b.stride, g->batch));
    DR_TRY(make_layout(&p->b, g->dtype, g->a.transposed ? g->m : g->k,
                       g->a.transposed ? g->k : g->m, g->a.ld, g->a.stride, g->batch));
    return make_layout(&p->c, g->c_dtype, g->n, g->m, g->c_ld, g->c_stride, g->batch);
}

static dr_status choose(plan *p, const dr_cuda_gemm_args *g)
{
    cublasLtMatmulHeuristicResult_t found;
    int n = 0;
    DR_TRY(set_alignment(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, p->key.b_align));
    DR_TRY(set_alignment(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, p->key.a_align));
    DR_TRY(set_alignment(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, p->key.c_align));
    DR_TRY(set_alignment(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, p->key.c_align));
    const cublasStatus_t st = lt.cublasLtMatmulAlgoGetHeuristic(
        lt.handle, p->desc, p->a, p->b, p->c, p->c, lt.preference, 1, &found, &n);
    if (st != CUBLAS_STATUS_SUCCESS || n == 0) {
        DR_FAIL(DR_UNSUPPORTED,
                "cuBLASLt knows no algorithm for a %s product of %lld x %lld x %lld (%s)",
                dr_dtype_name(g->dtype), (long long)g->m, (long long)g->n, (long long)g->k,
                lt.cublasLtGetStatusString(st));
    }
    p->algo = found.algo;
    return DR_OK;
}

static void destroy_plan(plan *p)
{
    if (p->a != NULL) {
        (void)lt.cublasLtMatrixLayoutDestroy(p->a);
    }
    if (p->b != NULL) {
        (void)lt.cublasLtMatrixLayoutDestroy(p->b);
    }
    if (p->c != NULL) {
        (void)lt.cublasLtMatrixLayoutDestroy(p->c);
    }
    if (p->desc != NULL) {
        (void)lt.cublasLtMatmulDescDestroy(p->desc);
    }
    free(p);
}

static dr_status plan_of(const dr_cuda_gemm_args *g, plan **out)
{
    const plan_key key = key_of(g);
    plan **bucket = &lt.buckets[bucket_of(&key)];
    for (*out = *bucket; *out != NULL; *out = (*out)->next) {
        if (memcmp(&(*out)->key, &key, sizeof key) == 0) {
            return DR_OK;
        }
    }
    plan *p = dr_xcalloc(1, sizeof *p);
    p->key = key;
    dr_status st = describe(p, g);
    if (st == DR_OK) {
        st = choose(p, g);
    }
    if (st != DR_OK) {
        destroy_plan(p);
        return st;
    }
    p->next = *bucket;
    *bucket = p;
    *out = p;
    return DR_OK;
}

dr_status dr_cuda_gemm(void *stream, const dr_cuda_gemm_args *g)
{
    plan *p = NULL;
    DR_CHECK(g->bias == NULL || g->c_dtype == g->dtype, "a bias needs c of the operands' type");
    DR_TRY(plan_of(g, &p));
    if (g->bias != NULL) {
        DR_TRY(set_bias(p->desc, g->bias));
    }
    LT(lt.cublasLtMatmul(lt.handle, p->desc, &g->alpha, g->b.data, p->a, g->a.data, p->b, &g->beta,
                         g->c, p->c, g->c, p->c, &p->algo, lt.workspace, WORKSPACE,
                         (cudaStream_t)stream));
    return DR_OK;
}

dr_status dr_cuda_gemm_open(bool tf32)
{
    const dr_cuda_symbol symbols[] = {
#define X(name) {#name, (void **)&lt.name},
        FUNCTIONS(X)
#undef X
    };
    const uint64_t bytes = WORKSPACE;
    lt.tf32 = tf32;
    DR_TRY(dr_cuda_library_open(LIBRARY, symbols, sizeof symbols / sizeof *symbols, &lt.library));
    LT(lt.cublasLtCreate(&lt.handle));
    LT(lt.cublasLtMatmulPreferenceCreate(&lt.preference));
    LT(lt.cublasLtMatmulPreferenceSetAttribute(
        lt.preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &bytes, sizeof bytes));
    if (cudaMalloc(&lt.workspace, WORKSPACE) != cudaSuccess) {
        DR_FAIL(DR_NOMEM, "no %d bytes of GPU memory for cuBLASLt", (int)WORKSPACE);
    }
    return DR_OK;
}

void dr_cuda_gemm_close(void)
{
    for (size_t i = 0; i < BUCKETS; i++) {
        while (lt.buckets[i] != NULL) {
            plan *p = lt.buckets[i];
            lt.buckets[i] = p->next;
            destroy_plan(p);
        }
    }
    if (lt.workspace != NULL) {
        (void)cudaFree(lt.workspace);
    }
    if (lt.preference != NULL) {
        (void)lt.cublasLtMatmulPreferenceDestroy(lt.preference);
    }
    if (lt.handle != NULL) {
        (void)lt.cublasLtDestroy(lt.handle);
    }
    dr_cuda_library_close(lt.library);
    memset(&lt, 0, sizeof lt);
}
