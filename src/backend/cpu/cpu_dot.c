/*
 * C = alpha A B^T + beta C by dot products along k, for weights stored (n,k).
 *
 * sgemm copies B^T element by element into its own layout, which costs a quarter of the time at 64
 * rows and more than half at 16 (docs/perf-log.md). Here both operands are read as they lie: a tile
 * of rows of A times rows of B keeps one vector accumulator per pair. While a group of B's rows is
 * used from L1, the next group is prefetched, because with few rows of A it comes from memory.
 */
#include "backend/cpu/cpu_internal.h"

#if defined(__x86_64__) && defined(__GNUC__)

enum {
    LANES = 16,
    MAX_MR = 4,
    MAX_NR = 6,
    K_BLOCK = 3072,       /* 6 rows of B: 72 KiB                                 */
    A_BLOCK = 192 * 1024, /* floats of A used again and again from L2: 768 KiB   */
    MIN_K = 512           /* below, adding up the lanes costs more than copying */
};

typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef float lanes_at __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

/* One tile's operands. ahead: rows of B to prefetch. */
typedef struct tile_args {
    int64_t k;
    float alpha, beta;
    const float *a, *b, *ahead[2];
    float *c;
    int64_t lda, ldb, ldc;
} tile_args;

typedef void (*tile_fn)(const tile_args *t);

/* The body of all tiles: mr and nr are constants in every copy. */
DR_CPU_INLINE void tile_body(const tile_args *t, const int mr, const int nr)
{
    lanes acc[MAX_MR][MAX_NR];
#pragma GCC unroll 4
    for (int i = 0; i < mr; i++) {
#pragma GCC unroll 6
        for (int j = 0; j < nr; j++) {
            acc[i][j] = (lanes){0.0f};
        }
    }
    const int64_t whole = t->k / LANES * LANES;
    const float *a = t->a;
    const float *b = t->b;
    const int64_t lda = t->lda;
    const int64_t ldb = t->ldb;
    for (int64_t p = 0; p < whole; p += LANES) {
        __builtin_prefetch(t->ahead[0] + p, 0, 2);
        __builtin_prefetch(t->ahead[1] + p, 0, 2);
        lanes bv[MAX_NR];
#pragma GCC unroll 6
        for (int j = 0; j < nr; j++) {
            bv[j] = *(const lanes_at *)(b + j * ldb + p);
        }
#pragma GCC unroll 4
        for (int i = 0; i < mr; i++) {
            const lanes av = *(const lanes_at *)(a + i * lda + p);
#pragma GCC unroll 6
            for (int j = 0; j < nr; j++) {
                acc[i][j] += av * bv[j];
            }
        }
    }
#pragma GCC unroll 4
    for (int i = 0; i < mr; i++) {
#pragma GCC unroll 6
        for (int j = 0; j < nr; j++) {
            typedef float half __attribute__((vector_size(32)));
            typedef float quarter __attribute__((vector_size(16)));
            const half h =
                __builtin_shufflevector(acc[i][j], acc[i][j], 0, 1, 2, 3, 4, 5, 6, 7) +
                __builtin_shufflevector(acc[i][j], acc[i][j], 8, 9, 10, 11, 12, 13, 14, 15);
            const quarter q = __builtin_shufflevector(h, h, 0, 1, 2, 3) +
                              __builtin_shufflevector(h, h, 4, 5, 6, 7);
            float sum = (q[0] + q[2]) + (q[1] + q[3]);
            for (int64_t p = whole; p < t->k; p++) {
                sum += a[i * lda + p] * b[j * ldb + p];
            }
            float *c = t->c + i * t->ldc + j;
            *c = t->beta != 0.0f ? t->beta * *c + t->alpha * sum : t->alpha * sum;
        }
    }
}

#define TILE(level, mr, nr)                                                                        \
    __attribute__((target(level))) static void tile_##mr##x##nr(const tile_args *t)                \
    {                                                                                              \
        tile_body(t, mr, nr);                                                                      \
    }
#define AVX512 "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"
#define AVX2   "avx2,fma"
TILE(AVX512, 4, 6)
TILE(AVX512, 4, 4)
TILE(AVX512, 4, 1)
TILE(AVX512, 1, 6)
TILE(AVX512, 1, 4)
TILE(AVX2, 2, 3)
TILE(AVX2, 2, 1)
TILE(AVX2, 1, 3)
TILE(AVX2, 1, 1)

/* Tiles of one instruction set: rows of A 'mr' or 1; rows of B by falling size, the last is 1. */
typedef struct tile_set {
    int mr, n;
    struct {
        int nr;
        tile_fn many, one;
    } tile[3];
} tile_set;

static const tile_set *tiles_of_this_machine(void)
{
    static const tile_set wide = {
        4, 3, {{6, tile_4x6, tile_1x6}, {4, tile_4x4, tile_1x4}, {1, tile_4x1, tile_1x1}}};
    static const tile_set narrow = {2, 2, {{3, tile_2x3, tile_1x3}, {1, tile_2x1, tile_1x1}}};
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw")) {
        return &wide;
    }
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &narrow : NULL;
}

/* All rows of A against nr rows of B. The rows of B that come next are prefetched, one or two by
 * each tile. */
static void row_group(const dr_cpu_matmul *g, const tile_set *set, int i_tile, const float *next)
{
    const int nr = set->tile[i_tile].nr;
    const int64_t n_tiles = g->m / set->mr;
    tile_args t = {.k = g->k,
                   .alpha = g->alpha,
                   .beta = g->beta,
                   .b = g->b,
                   .lda = g->lda,
                   .ldb = g->ldb,
                   .ldc = g->ldc};
    int64_t m = 0;
    for (int64_t i = 0; i < n_tiles; i++, m += set->mr) {
        t.a = g->a + m * g->lda;
        t.c = g->c + m * g->ldc;
        t.ahead[0] = next != NULL && i < nr ? next + i * g->ldb : g->b;
        t.ahead[1] = next != NULL && i + n_tiles < nr ? next + (i + n_tiles) * g->ldb : g->b;
        set->tile[i_tile].many(&t);
    }
    t.ahead[0] = t.ahead[1] = g->b;
    for (; m < g->m; m++) {
        t.a = g->a + m * g->lda;
        t.c = g->c + m * g->ldc;
        set->tile[i_tile].one(&t);
    }
}

static void all_rows_of_b(dr_cpu_matmul g, const tile_set *set)
{
    for (int i_tile = 0; i_tile < set->n; i_tile++) {
        const int nr = set->tile[i_tile].nr;
        for (; g.n >= nr; g.n -= nr) {
            row_group(&g, set, i_tile, g.n >= 2 * nr ? g.b + nr * g.ldb : NULL);
            g.b += nr * g.ldb;
            g.c += nr;
        }
    }
}

bool dr_cpu_dot(const dr_cpu_matmul *g)
{
    const tile_set *set = tiles_of_this_machine();
    if (set == NULL || g->ta || !g->tb || g->k < MIN_K) {
        return false;
    }
    for (int64_t k0 = 0; k0 < g->k; k0 += K_BLOCK) {
        const int64_t k = dr_cpu_min(K_BLOCK, g->k - k0);
        const int64_t rows = A_BLOCK / k / MAX_MR * MAX_MR;
        for (int64_t m0 = 0; m0 < g->m; m0 += rows) {
            dr_cpu_matmul part = *g;
            part.a += m0 * g->lda + k0;
            part.b += k0;
            part.c += m0 * g->ldc;
            part.m = dr_cpu_min(rows, g->m - m0);
            part.k = k;
            part.beta = k0 > 0 ? 1.0f : g->beta;
            all_rows_of_b(part, set);
        }
    }
    return true;
}

#else

bool dr_cpu_dot(const dr_cpu_matmul *g)
{
    (void)g;
    return false;
}

#endif
