/*
 * C = alpha A B^T + beta C by dot products along k, for weights stored (n,k).
 *
 * sgemm copies B^T element by element into its own layout, which cost a quarter of the time at 64
 * rows and half at 16 (oneDNN 2.6.3, EPYC Zen 4; Intel's two wide multiplications a cycle turn that
 * around above 48 rows: dr_cpu_dot_most). Here both operands are read as they lie: a tile
 * of rows of A times rows of B keeps one vector accumulator per pair. While a group of B's rows is
 * used from L1, the next group is prefetched, because with few rows of A it comes from memory.
 */
#include "backend/cpu/cpu_internal.h"
#include "backend/cpu/cpu_tiles.h"

enum {
    K_BLOCK = 3072,       /* 6 rows of B: 72 KiB                                 */
    A_BLOCK = 192 * 1024, /* floats of A used again and again from L2: 768 KiB   */
    MIN_K = 512           /* below, adding up the lanes costs more than copying  */
};

/* All rows of A against some rows of B, next: the rows of B that come after them, or NULL. */
static void row_group(const dr_cpu_matmul *g, const dr_cpu_tiles *tiles, int i_tile,
                      const float *next)
{
    const int nr = tiles->dot[i_tile].nr;
    const int64_t n_tiles = g->m / tiles->dot_mr;
    dr_cpu_dot_args t = {.k = g->k,
                         .alpha = g->alpha,
                         .beta = g->beta,
                         .b = g->b,
                         .lda = g->lda,
                         .ldb = g->ldb,
                         .ldc = g->ldc};
    int64_t m = 0;
    for (int64_t i = 0; i < n_tiles; i++, m += tiles->dot_mr) {
        t.a = g->a + m * g->lda;
        t.c = g->c + m * g->ldc;
        t.ahead[0] = next != NULL && i < nr ? next + i * g->ldb : g->b;
        t.ahead[1] = next != NULL && i + n_tiles < nr ? next + (i + n_tiles) * g->ldb : g->b;
        tiles->dot[i_tile].many(&t);
    }
    t.ahead[0] = t.ahead[1] = g->b;
    for (; m < g->m; m++) {
        t.a = g->a + m * g->lda;
        t.c = g->c + m * g->ldc;
        tiles->dot[i_tile].one(&t);
    }
}

/* Largest tiles first, but 4 + 4 rows rather than 6 + 1 + 1 at the end. */
static void all_rows_of_b(dr_cpu_matmul g, const dr_cpu_tiles *tiles)
{
    int i_tile = 0;
    while (g.n > 0) {
        const int nr = tiles->dot[i_tile].nr;
        const bool last_smaller = nr > 1 && g.n < 2 * nr && g.n % tiles->dot[i_tile + 1].nr == 0;
        if (g.n < nr || (last_smaller && g.n > nr)) {
            i_tile++;
            continue;
        }
        row_group(&g, tiles, i_tile, g.n >= 2 * nr ? g.b + nr * g.ldb : NULL);
        g.b += nr * g.ldb;
        g.c += nr;
        g.n -= nr;
    }
}

bool dr_cpu_dot(const dr_cpu_matmul *g)
{
    const dr_cpu_tiles *tiles = dr_cpu_tiles_here();
    if (tiles == NULL || g->ta || !g->tb || g->k < MIN_K ||
        dr_cpu_min(g->m, g->n) > dr_cpu_dot_most(tiles)) {
        return false;
    }
    for (int64_t k0 = 0; k0 < g->k; k0 += K_BLOCK) {
        const int64_t k = dr_cpu_min(K_BLOCK, g->k - k0);
        const int64_t rows = A_BLOCK / k / tiles->dot_mr * tiles->dot_mr;
        for (int64_t m0 = 0; m0 < g->m; m0 += rows) {
            dr_cpu_matmul part = *g;
            part.a += m0 * g->lda + k0;
            part.b += k0;
            part.c += m0 * g->ldc;
            part.m = dr_cpu_min(rows, g->m - m0);
            part.k = k;
            part.beta = k0 > 0 ? 1.0f : g->beta;
            all_rows_of_b(part, tiles);
        }
    }
    return true;
}
