/*
 * Matrix products by oneDNN's sgemm (or our own kernels for some shapes), one thread per block of
 * C. The only includer of dnnl.h.
 *
 * Inside a parallel region oneDNN stays on the calling thread; outside it would start a team of its
 * own and cut the product by the number of threads, so the thread's limit is set to one there: both
 * ways it walks the same code, and tests/ops compares the bits.
 */
#include "backend/cpu/cpu_internal.h"
#include "backend/cpu/cpu_tiles.h"

#include <dnnl.h>
#include <omp.h>

const dr_cpu_tiles *dr_cpu_tiles_here(void)
{
#ifdef DR_CPU_HAVE_TILES
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw")) {
        return &dr_cpu_tiles_avx512;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        return &dr_cpu_tiles_avx2;
    }
#endif
    return NULL;
}

int64_t dr_cpu_dot_most(const dr_cpu_tiles *tiles)
{
#ifdef DR_CPU_HAVE_TILES
    if (tiles->lanes == 16 && __builtin_cpu_is("intel")) {
        return 48;
    }
#endif
    return tiles->dot_most;
}

void dr_cpu_gemm(const dr_cpu_matmul *g)
{
    if (dr_cpu_dot(g) || dr_cpu_thin(g)) {
        return;
    }
    const int limit = omp_get_max_threads();
    if (limit != 1) {
        omp_set_num_threads(1);
    }
    const dnnl_status_t st =
        dnnl_sgemm(g->ta ? 'T' : 'N', g->tb ? 'T' : 'N', g->m, g->n, g->k, g->alpha, g->a, g->lda,
                   g->b, g->ldb, g->beta, g->c, g->ldc);
    if (limit != 1) {
        omp_set_num_threads(limit);
    }
    DR_CHECK(st == dnnl_success, "oneDNN sgemm %lld x %lld x %lld: status %d", (long long)g->m,
             (long long)g->n, (long long)g->k, (int)st);
}

DR_CPU_CLONES
void dr_cpu_bias_rows(float *c, int64_t ldc, int64_t m, int64_t n, const float *bias, bool add)
{
    for (int64_t i = 0; i < m; i++) {
        float *restrict row = c + i * ldc;
        for (int64_t j = 0; j < n; j++) {
            row[j] = add ? row[j] + bias[j] : bias[j];
        }
    }
}

typedef struct blocks_job {
    dr_cpu_matmul g;
    const float *bias;
    int64_t mb, nb; /* rows and columns of a block */
    int64_t n_cols; /* blocks side by side         */
} blocks_job;

/*
 * Halves the longer side while blocks are few: at most 32 of them, none thinner than 128 (each
 * block packs its own slices of A and B, which costs about as much as 30 columns of products) and
 * none under 8 MFLOP (a task costs about a microsecond).
 */
static void choose_blocks(blocks_job *job)
{
    const dr_cpu_matmul *g = &job->g;
    int64_t mb = g->m;
    int64_t nb = g->n;
    while (dr_cpu_ceil_div(g->m, mb) * dr_cpu_ceil_div(g->n, nb) < 32 &&
           (double)mb * (double)nb * (double)g->k > 8e6 && (mb >= 256 || nb >= 256)) {
        if (mb >= nb) {
            mb = dr_cpu_ceil_div(mb, 32) * 16;
        } else {
            nb = dr_cpu_ceil_div(nb, 32) * 16;
        }
    }
    job->mb = mb;
    job->nb = nb;
    job->n_cols = dr_cpu_ceil_div(g->n, nb);
}

static void run_block(const void *job_, int64_t i, int thread)
{
    (void)thread;
    const blocks_job *job = job_;
    dr_cpu_matmul g = job->g;
    const int64_t m0 = i / job->n_cols * job->mb;
    const int64_t n0 = i % job->n_cols * job->nb;
    g.m = dr_cpu_min(job->mb, g.m - m0);
    g.n = dr_cpu_min(job->nb, g.n - n0);
    g.a += g.ta ? m0 : m0 * g.lda;
    g.b += g.tb ? n0 * g.ldb : n0;
    g.c += m0 * g.ldc + n0;
    if (job->bias != NULL) {
        dr_cpu_bias_rows(g.c, g.ldc, g.m, g.n, job->bias + n0, g.beta != 0.0f);
        g.beta = 1.0f;
    }
    dr_cpu_gemm(&g);
}

void dr_cpu_gemm_blocks(const dr_context *cx, const dr_cpu_matmul *g, const float *bias)
{
    if (g->m == 0 || g->n == 0) {
        return;
    }
    blocks_job job = {.g = *g, .bias = bias};
    choose_blocks(&job);
    dr_cpu_run(cx, dr_cpu_ceil_div(g->m, job.mb) * job.n_cols, run_block, &job);
}
