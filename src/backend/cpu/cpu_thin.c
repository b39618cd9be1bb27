/*
 * C = op(A) B + beta C where C has few rows (gradients behind 4x4 maps: B, the weights, comes from
 * memory once) or few products per element (gradients of those weights: C does).
 *
 * sgemm copies both operands first, which pays off only when they are used often. Here a tile of
 * rows by three vectors of columns stays in registers while B is read as it lies; the memory behind
 * the next steps is prefetched, because rows of B and C are pages apart and the hardware does not
 * follow. 1280 channels at 4x4: dx 56 to 90, dw 45 to 75 GFLOP/s on one thread.
 */
#include "backend/cpu/cpu_internal.h"
#include "backend/cpu/cpu_tiles.h"

enum {
    MIN_THIN = 4, /* rows or products from which and up to which this is faster than sgemm */
    THIN = 32,
    K_BLOCK = 64 /* rows of B used for all columns before the next are needed */
};

/* The tile at row m0, column n0; returns its columns. */
static int64_t run_tile(const dr_cpu_matmul *g, const dr_cpu_tiles *tiles, int i_tile, int64_t m0,
                        int64_t n0)
{
    const bool three = g->n - n0 >= 3 * tiles->lanes;
    const int64_t cols = (three ? 3 : 1) * tiles->lanes;
    dr_cpu_thin_args t = {.k = g->k,
                          .a = g->a + (g->ta ? m0 : m0 * g->lda),
                          .b = g->b + n0,
                          .c = g->c + m0 * g->ldc + n0,
                          .a_row = g->ta ? 1 : g->lda,
                          .a_col = g->ta ? g->lda : 1,
                          .ldb = g->ldb,
                          .ldc = g->ldc,
                          .add = g->beta != 0.0f};
    t.next_c = (uintptr_t)t.c;
    if (g->m > THIN) {
        t.next_c += (uintptr_t)(n0 + cols < g->n ? cols : tiles->thin[i_tile].mr * g->ldc - n0) *
                    sizeof(float);
    } else if (m0 == 0) { /* the rows after these find B in cache */
        t.ahead = (uintptr_t)(K_BLOCK * t.ldb) * sizeof(float);
    }
    (three ? tiles->thin[i_tile].three : tiles->thin[i_tile].one)(&t);
    return cols;
}

static int tile_for(const dr_cpu_tiles *tiles, int64_t rows)
{
    int i = 0;
    while (tiles->thin[i].mr > rows) {
        i++;
    }
    return i;
}

/* Few rows: blocks of B's rows, so that its memory is walked in runs as long as g is wide. */
static void strips(const dr_cpu_matmul *g, const dr_cpu_tiles *tiles)
{
    dr_cpu_matmul part = *g;
    for (int64_t k = 0; k < g->k; k += K_BLOCK) {
        part.k = dr_cpu_min(K_BLOCK, g->k - k);
        for (int64_t n = 0, cols = 0; n < g->n; n += cols) {
            for (int64_t m = 0; m < g->m;) {
                const int i = tile_for(tiles, g->m - m);
                cols = run_tile(&part, tiles, i, m, n);
                m += tiles->thin[i].mr;
            }
        }
        part.a += K_BLOCK * (g->ta ? g->lda : 1);
        part.b += K_BLOCK * g->ldb;
        part.beta = 1.0f;
    }
}

/* Few products: B stays in cache, C is walked along its rows. */
static void bands(const dr_cpu_matmul *g, const dr_cpu_tiles *tiles)
{
    for (int64_t m = 0; m < g->m;) {
        const int i = tile_for(tiles, g->m - m);
        for (int64_t n = 0; n < g->n;) {
            n += run_tile(g, tiles, i, m, n);
        }
        m += tiles->thin[i].mr;
    }
}

bool dr_cpu_thin(const dr_cpu_matmul *g)
{
    const dr_cpu_tiles *tiles = dr_cpu_tiles_here();
    const int64_t thickness = dr_cpu_min(g->m, g->k);
    if (tiles == NULL || g->tb || g->alpha != 1.0f || g->n < tiles->lanes ||
        g->n % tiles->lanes != 0 || thickness < MIN_THIN || thickness > THIN) {
        return false;
    }
    if (g->m <= THIN) {
        strips(g, tiles);
    } else {
        bands(g, tiles);
    }
    return true;
}
