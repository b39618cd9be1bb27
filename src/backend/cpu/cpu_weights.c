/* Products whose weights are F16 or BF16: panels of them are converted where they are used. */
#include "backend/cpu/cpu_narrow.h"

dr_widening dr_cpu_weight_widening(const dr_tensor *rows)
{
    return dr_rows(rows) <= DR_CPU_FEW_ROWS ? DR_WIDEN_ALL_BUT_WEIGHTS : DR_WIDEN_ALL;
}

/* B is stored (n,k): whole rows of it, or parts of one where k is very long. */
static void by_rows(dr_cpu_matmul g, const void *b, dr_dtype type, float *panel)
{
    const int64_t depth = dr_cpu_min(g.k, DR_CPU_WEIGHT_PANEL / 16);
    const int64_t rows = DR_CPU_WEIGHT_PANEL / depth;
    dr_cpu_matmul part = g;
    part.b = panel;
    part.ldb = depth;
    for (int64_t k0 = 0; k0 < g.k; k0 += depth) {
        part.k = dr_cpu_min(depth, g.k - k0);
        part.a = g.a + (g.ta ? k0 * g.lda : k0);
        for (int64_t n0 = 0; n0 < g.n; n0 += rows) {
            part.n = dr_cpu_min(rows, g.n - n0);
            for (int64_t n = 0; n < part.n; n++) {
                dr_cpu_widen(panel + n * depth, dr_cpu_at(b, type, (n0 + n) * g.ldb + k0), type,
                             part.k);
            }
            part.c = g.c + n0;
            dr_cpu_gemm(&part);
        }
        part.beta = 1.0f;
    }
}

/* B is stored (k,n): all columns of some rows. */
static void by_depth(dr_cpu_matmul g, const void *b, dr_dtype type, float *panel)
{
    const int64_t cols = dr_cpu_min(g.n, DR_CPU_WEIGHT_PANEL / 64);
    const int64_t depth = DR_CPU_WEIGHT_PANEL / cols;
    dr_cpu_matmul part = g;
    part.b = panel;
    part.ldb = cols;
    for (int64_t n0 = 0; n0 < g.n; n0 += cols) {
        part.n = dr_cpu_min(cols, g.n - n0);
        part.c = g.c + n0;
        part.beta = g.beta;
        for (int64_t k0 = 0; k0 < g.k; k0 += depth) {
            part.k = dr_cpu_min(depth, g.k - k0);
            for (int64_t k = 0; k < part.k; k++) {
                dr_cpu_widen(panel + k * cols, dr_cpu_at(b, type, (k0 + k) * g.ldb + n0), type,
                             part.n);
            }
            part.a = g.a + (g.ta ? k0 * g.lda : k0);
            dr_cpu_gemm(&part);
            part.beta = 1.0f;
        }
    }
}

void dr_cpu_gemm_narrow(const dr_cpu_matmul *g, const void *b, dr_dtype type, float *panel)
{
    if (type == DR_F32) {
        dr_cpu_matmul plain = *g;
        plain.b = b;
        dr_cpu_gemm(&plain);
    } else if (g->tb) {
        by_rows(*g, b, type, panel);
    } else {
        by_depth(*g, b, type, panel);
    }
}
