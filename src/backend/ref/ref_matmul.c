#include "backend/ref/ref_internal.h"

#include <string.h>

/*
 * The one blocked loop nest under linear and conv2d. A tile of MT x NT outputs is one task; l runs
 * in blocks of KT, so that the panel of b (16 KiB in f64) stays in the first cache level, and in
 * steps of STEP terms, so that an output is loaded and stored once per STEP products. KT products
 * are summed in dr_real, these sums in double. The order of the sum over l depends on nothing but
 * l: not on threads, tiles or vector width.
 */
enum { MT = 128, NT = 64, KT = 32, STEP = 4, ROWS = 2 };

/* GCC picks the widest of these when the program starts; sanitizers do not survive ifuncs. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) &&                             \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define DR_REF_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define DR_REF_CLONES
#endif

static int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* panel(l,j) = b(l0+l, j0+j); zeros beyond the last column and the last term. */
static inline void copy_panel(const dr_ref_matmul *p, int64_t l0, int64_t j0, dr_real panel[KT][NT])
{
    const int64_t depth = min_i64(KT, p->k - l0);
    const int64_t cols = min_i64(NT, p->n - j0);
    if (depth < KT || cols < NT) {
        memset(panel, 0, sizeof(dr_real) * KT * NT);
    }
    const dr_real *b = p->b + l0 * p->b_row + j0 * p->b_col;
    if (p->b_col == 1) {
        for (int64_t l = 0; l < depth; l++) {
            memcpy(panel[l], b + l * p->b_row, sizeof(dr_real) * (size_t)cols);
        }
        return;
    }
    for (int64_t j = 0; j < cols; j++) {
        for (int64_t l = 0; l < depth; l++) {
            panel[l][j] = b[l * p->b_row + j * p->b_col];
        }
    }
}

/* acc(r,j) += sum over the panel's l of a(r,l) panel(l,j), for ROWS rows of a. */
static inline void add_products(dr_real a[ROWS][KT], dr_real panel[KT][NT], double acc[ROWS][NT])
{
    dr_real sum[ROWS][NT] = {{0}};
    for (int l = 0; l < KT; l += STEP) {
        const dr_real *restrict b0 = panel[l];
        const dr_real *restrict b1 = panel[l + 1];
        const dr_real *restrict b2 = panel[l + 2];
        const dr_real *restrict b3 = panel[l + 3];
        const dr_real *u = a[0] + l;
        const dr_real *v = a[1] + l;
        const dr_real u0 = u[0], u1 = u[1], u2 = u[2], u3 = u[3];
        const dr_real v0 = v[0], v1 = v[1], v2 = v[2], v3 = v[3];
        dr_real *restrict c0 = sum[0];
        dr_real *restrict c1 = sum[1];
        for (int j = 0; j < NT; j++) {
            c0[j] = c0[j] + u0 * b0[j] + u1 * b1[j] + u2 * b2[j] + u3 * b3[j];
            c1[j] = c1[j] + v0 * b0[j] + v1 * b1[j] + v2 * b2[j] + v3 * b3[j];
        }
    }
    for (int r = 0; r < ROWS; r++) {
        for (int j = 0; j < NT; j++) {
            acc[r][j] += (double)sum[r][j];
        }
    }
}

static inline void store_tile(const dr_ref_matmul *p, int64_t i0, int64_t j0, double acc[MT][NT])
{
    const int64_t rows = min_i64(MT, p->m - i0);
    const int64_t cols = min_i64(NT, p->n - j0);
    for (int64_t i = 0; i < rows; i++) {
        dr_real *c = p->c + (i0 + i) * p->n + j0;
        for (int64_t j = 0; j < cols; j++) {
            const double bias = p->bias != NULL ? (double)p->bias[j0 + j] : 0.0;
            dr_ref_put(&c[j], (dr_real)(acc[i][j] + bias), p->mode);
        }
    }
}

DR_REF_CLONES static void compute_tile(const dr_ref_matmul *p, int64_t i0, int64_t j0)
{
    double acc[MT][NT];
    dr_real panel[KT][NT];
    dr_real a[ROWS][KT];
    const int64_t rows = min_i64(MT, p->m - i0);
    memset(acc, 0, sizeof acc);
    for (int64_t l0 = 0; l0 < p->k; l0 += KT) {
        const int64_t depth = min_i64(KT, p->k - l0);
        copy_panel(p, l0, j0, panel);
        for (int64_t i = 0; i < rows; i += ROWS) {
            memset(a, 0, sizeof a);
            for (int64_t r = 0; r < min_i64(ROWS, rows - i); r++) {
                for (int64_t l = 0; l < depth; l++) {
                    a[r][l] = p->a[(i0 + i + r) * p->a_row + (l0 + l) * p->a_col];
                }
            }
            add_products(a, panel, acc + i);
        }
    }
    store_tile(p, i0, j0, acc);
}

void DR_REF(matmul)(const dr_ref_matmul *p, int threads)
{
    const int64_t row_tiles = (p->m + MT - 1) / MT;
    const int64_t col_tiles = (p->n + NT - 1) / NT;
    /* Row tiles run fastest: neighbours in time share their part of b. */
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t t = 0; t < row_tiles * col_tiles; t++) {
        compute_tile(p, t % row_tiles * MT, t / row_tiles * NT);
    }
}

void DR_REF(add_column_sums)(dr_real *sums, const dr_real *x, int64_t rows, int64_t cols,
                             int threads)
{
    enum { BLOCK = 16 }; /* columns summed together: one or two cache lines per row */
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t j0 = 0; j0 < cols; j0 += BLOCK) {
        const int64_t n = min_i64(BLOCK, cols - j0);
        double sum[BLOCK] = {0};
        for (int64_t i = 0; i < rows; i++) {
            for (int64_t j = 0; j < n; j++) {
                sum[j] += (double)x[i * cols + j0 + j];
            }
        }
        for (int64_t j = 0; j < n; j++) {
            sums[j0 + j] += (dr_real)sum[j];
        }
    }
}
