#include "linalg/svd.h"

#include "base/arena.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/*
 * LAPACK's matrices are column-major, so a row-major A (m,n) is its A' (n,m). From A' = V S U' it
 * returns V column by column, which is V' row by row, and U' likewise: nothing is turned around.
 */

static dr_status alloc(int64_t rows, int64_t cols, size_t size, void *out)
{
    void *p = NULL;
    DR_TRY(dr_try_calloc((size_t)rows * (size_t)cols, size, &p));
    memcpy(out, &p, sizeof p);
    return DR_OK;
}

void dr_svd_deinit(dr_svd *svd)
{
    free(svd->u);
    free(svd->s);
    free(svd->vt);
    *svd = (dr_svd){0};
}

static dr_status alloc_result(int64_t m, int64_t n, int64_t k, int64_t n_values, dr_svd *out)
{
    *out = (dr_svd){.m = m, .n = n, .k = k, .n_values = n_values};
    dr_status st = alloc(m, k, sizeof(float), &out->u);
    if (st == DR_OK) {
        st = alloc(n_values, 1, sizeof(double), &out->s);
    }
    if (st == DR_OK) {
        st = alloc(k, n, sizeof(float), &out->vt);
    }
    if (st != DR_OK) {
        dr_svd_deinit(out);
    }
    return st;
}

static dr_status check_info(lapack_int info)
{
    if (info != 0) {
        DR_FAIL(info == LAPACK_WORK_MEMORY_ERROR ? DR_NOMEM : DR_NUMERIC,
                "LAPACK: no singular values of a matrix (info %d): %s", (int)info,
                info > 0 ? "it does not converge" : "it holds a NaN or an infinity");
    }
    return DR_OK;
}

/* ---- a matrix ------------------------------------------------------------------------------ */

/*
 * The matrix is taken as B (p,q) with p <= q: A, or A' where A has more rows than columns. B B' =
 * Z diag(l) Z', so s = sqrt(l), one side's vectors are Z and the other's are Z' B / s.
 */
typedef struct dense {
    const float *a;
    int64_t n; /* columns of A */
    bool turned;
    int64_t p, q, k;
    double *piece;       /* (p,PIECE) of B */
    double *gram;        /* (p,p) */
    double *d, *e, *tau; /* its tridiagonal form */
    double *values;      /* p, ascending */
    double *off;         /* e again: LAPACK destroys it */
    double *z;           /* (k,p) row-major, ascending */
    double *across;      /* (k,q): z B */
    lapack_int *support; /* of dstemr */
} dense;

enum { PIECE = 256 };

static void free_dense(dense *w)
{
    double *const all[] = {w->piece, w->gram, w->d,      w->e,     w->tau,
                           w->off,   w->z,    w->values, w->across};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        free(all[i]);
    }
    free(w->support);
}

static dr_status alloc_dense(dense *w)
{
    DR_TRY(alloc(w->p, PIECE, sizeof(double), &w->piece));
    DR_TRY(alloc(w->p, w->p, sizeof(double), &w->gram));
    DR_TRY(alloc(w->p, 1, sizeof(double), &w->d));
    DR_TRY(alloc(w->p, 1, sizeof(double), &w->e));
    DR_TRY(alloc(w->p, 1, sizeof(double), &w->tau));
    DR_TRY(alloc(w->p, 1, sizeof(double), &w->off));
    DR_TRY(alloc(w->p, 1, sizeof(double), &w->values));
    DR_TRY(alloc(w->k, w->p, sizeof(double), &w->z));
    DR_TRY(alloc(w->k, w->q, sizeof(double), &w->across));
    return alloc(2 * w->k, 1, sizeof(lapack_int), &w->support);
}

/* Columns [at, at + count) of B. */
static void take_piece(const dense *w, int64_t at, int64_t count)
{
    for (int64_t i = 0; i < w->p && !w->turned; i++) {
        for (int64_t j = 0; j < count; j++) {
            w->piece[i * PIECE + j] = (double)w->a[i * w->n + at + j];
        }
    }
    for (int64_t j = 0; j < count && w->turned; j++) {
        for (int64_t i = 0; i < w->p; i++) {
            w->piece[i * PIECE + j] = (double)w->a[(at + j) * w->n + i];
        }
    }
}

static int64_t piece_at(const dense *w, int64_t at)
{
    return w->q - at < PIECE ? w->q - at : PIECE;
}

/* The lower triangle of B B', which is symmetric: row-major or not is the same but for the name. */
static dr_status find_gram(dense *w)
{
    const int p = (int)w->p;
    double trace = 0.0;
    for (int64_t at = 0; at < w->q; at += PIECE) {
        take_piece(w, at, piece_at(w, at));
        cblas_dsyrk(CblasRowMajor, CblasUpper, CblasNoTrans, p, (int)piece_at(w, at), 1.0, w->piece,
                    PIECE, 1.0, w->gram, p);
    }
    for (int64_t i = 0; i < w->p; i++) {
        trace += w->gram[i * w->p + i];
    }
    if (!isfinite(trace)) { /* squares of floats are finite doubles */
        DR_FAIL(DR_NUMERIC, "no singular values of a matrix: it holds a NaN or an infinity");
    }
    return DR_OK;
}

/* All eigenvalues of the Gram matrix, and the vectors of the k largest. */
static dr_status solve_gram(dense *w)
{
    const lapack_int p = (lapack_int)w->p;
    const lapack_int k = (lapack_int)w->k;
    lapack_int found = 0;
    lapack_logical precise = 1;
    DR_TRY(check_info(LAPACKE_dsytrd(LAPACK_COL_MAJOR, 'L', p, w->gram, p, w->d, w->e, w->tau)));
    memcpy(w->values, w->d, (size_t)w->p * sizeof *w->values);
    memcpy(w->off, w->e, (size_t)w->p * sizeof *w->off);
    DR_TRY(check_info(LAPACKE_dsterf(p, w->values, w->off)));
    memcpy(w->off, w->e, (size_t)w->p * sizeof *w->off);
    double *ascending = w->across; /* of the k; room for q of them */
    DR_TRY(
        check_info(LAPACKE_dstemr(LAPACK_COL_MAJOR, 'V', 'I', p, w->d, w->off, 0.0, 0.0, p - k + 1,
                                  p, &found, ascending, w->z, p, k, w->support, &precise)));
    DR_CHECK(found == k, "%d eigenvectors, expected %d", (int)found, (int)k);
    return check_info(
        LAPACKE_dormtr(LAPACK_COL_MAJOR, 'L', 'L', 'N', p, k, w->gram, p, w->tau, w->z, p));
}

static void go_across(dense *w)
{
    for (int64_t at = 0; at < w->q; at += PIECE) {
        take_piece(w, at, piece_at(w, at));
        cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)w->k, (int)piece_at(w, at),
                    (int)w->p, 1.0, w->z, (int)w->p, w->piece, PIECE, 0.0, w->across + at,
                    (int)w->q);
    }
}

/* Vector i of one side: from times factor. */
static void put_column(dr_svd *out, int64_t i, const double *from, double factor)
{
    for (int64_t j = 0; j < out->m; j++) {
        out->u[j * out->k + i] = (float)(factor * from[j]);
    }
}

static void put_row(dr_svd *out, int64_t i, const double *from, double factor)
{
    for (int64_t j = 0; j < out->n; j++) {
        out->vt[i * out->n + j] = (float)(factor * from[j]);
    }
}

static void put_vectors(const dense *w, dr_svd *out)
{
    for (int64_t i = 0; i < w->p; i++) {
        const double value = w->values[w->p - 1 - i];
        out->s[i] = value > 0.0 ? sqrt(value) : 0.0;
    }
    for (int64_t i = 0; i < w->k; i++) {
        const double *z = w->z + (w->k - 1 - i) * w->p;
        const double *across = w->across + (w->k - 1 - i) * w->q;
        const double length = cblas_dnrm2((int)w->q, across, 1);
        const double factor = length > 0.0 ? 1.0 / length : 0.0;
        out->s[i] = length; /* better than the root where it is small */
        put_column(out, i, w->turned ? across : z, w->turned ? factor : 1.0);
        put_row(out, i, w->turned ? z : across, w->turned ? 1.0 : factor);
    }
}

dr_status dr_svd_dense(const float *a, int64_t m, int64_t n, int64_t k, dr_svd *out)
{
    const bool turned = m > n;
    dense w = {.a = a, .n = n, .turned = turned, .p = turned ? n : m, .q = turned ? m : n, .k = k};
    DR_CHECK(k >= 1 && k <= w.p, "%lld of %lld", (long long)k, (long long)w.p);
    DR_TRY(alloc_result(m, n, k, w.p, out));
    dr_status st = alloc_dense(&w);
    if (st == DR_OK) {
        st = find_gram(&w);
    }
    if (st == DR_OK) {
        st = solve_gram(&w);
    }
    if (st == DR_OK) {
        go_across(&w);
        put_vectors(&w, out);
    } else {
        dr_svd_deinit(out);
    }
    free_dense(&w);
    return st;
}

/* ---- products ------------------------------------------------------------------------------ */

typedef struct factors { /* of up = qu l' and down = r' qd; all double */
    double *qu;          /* (m,r) row-major */
    double *qd;          /* (r,n) row-major */
    double *tau;
    double *core;         /* (r,r) row-major: l' r' */
    double *uc, *s, *vct; /* of the core */
    double *l, *right;    /* (r,r) row-major triangles */
} factors;

static void free_factors(factors *f)
{
    double *const all[] = {f->qu, f->qd, f->tau, f->core, f->uc, f->s, f->vct, f->l, f->right};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        free(all[i]);
    }
}

static dr_status alloc_factors(factors *f, int64_t m, int64_t n, int64_t r)
{
    DR_TRY(alloc(m, r, sizeof(double), &f->qu));
    DR_TRY(alloc(r, n, sizeof(double), &f->qd));
    DR_TRY(alloc(r, 1, sizeof(double), &f->tau));
    DR_TRY(alloc(r, r, sizeof(double), &f->core));
    DR_TRY(alloc(r, r, sizeof(double), &f->uc));
    DR_TRY(alloc(r, 1, sizeof(double), &f->s));
    DR_TRY(alloc(r, r, sizeof(double), &f->vct));
    DR_TRY(alloc(r, r, sizeof(double), &f->l));
    return alloc(r, r, sizeof(double), &f->right);
}

/* up' (r,m column-major) = l q: l[i,j] for j <= i; qu becomes q' row by row. */
static dr_status split_up(factors *f, int64_t m, int64_t r)
{
    const lapack_int lr = (lapack_int)r;
    DR_TRY(check_info(LAPACKE_dgelqf(LAPACK_COL_MAJOR, lr, (lapack_int)m, f->qu, lr, f->tau)));
    for (int64_t i = 0; i < r; i++) {
        for (int64_t j = 0; j <= i; j++) {
            f->l[i * r + j] = f->qu[j * r + i];
        }
    }
    return check_info(LAPACKE_dorglq(LAPACK_COL_MAJOR, lr, (lapack_int)m, lr, f->qu, lr, f->tau));
}

/* down' (n,r column-major) = q right: right[i,j] for j >= i; qd becomes q' row by row. */
static dr_status split_down(factors *f, int64_t n, int64_t r)
{
    const lapack_int lr = (lapack_int)r;
    const lapack_int ln = (lapack_int)n;
    DR_TRY(check_info(LAPACKE_dgeqrf(LAPACK_COL_MAJOR, ln, lr, f->qd, ln, f->tau)));
    for (int64_t i = 0; i < r; i++) {
        for (int64_t j = i; j < r; j++) {
            f->right[i * r + j] = f->qd[j * n + i];
        }
    }
    return check_info(LAPACKE_dorgqr(LAPACK_COL_MAJOR, ln, lr, lr, f->qd, ln, f->tau));
}

/* core = l' right', and its singular values */
static dr_status solve_core(factors *f, int64_t r)
{
    const lapack_int lr = (lapack_int)r;
    for (int64_t i = 0; i < r; i++) {
        for (int64_t j = 0; j < r; j++) {
            double sum = 0.0;
            for (int64_t k = 0; k < r; k++) {
                sum += f->l[k * r + i] * f->right[j * r + k];
            }
            f->core[i * r + j] = sum;
        }
    }
    return check_info(
        LAPACKE_dgesdd(LAPACK_COL_MAJOR, 'S', lr, lr, f->core, lr, f->s, f->vct, lr, f->uc, lr));
}

/* out (rows,cols) = a (rows,r) b (r,cols), rounded once */
static dr_status multiply(const double *a, const double *b, int64_t rows, int64_t r, int64_t cols,
                          float *out)
{
    double *row = NULL;
    DR_TRY(alloc(cols, 1, sizeof *row, &row));
    for (int64_t i = 0; i < rows; i++) {
        memset(row, 0, (size_t)cols * sizeof *row);
        for (int64_t k = 0; k < r; k++) {
            for (int64_t j = 0; j < cols; j++) {
                row[j] += a[i * r + k] * b[k * cols + j];
            }
        }
        for (int64_t j = 0; j < cols; j++) {
            out[i * cols + j] = (float)row[j];
        }
    }
    free(row);
    return DR_OK;
}

static dr_status solve_product(factors *f, dr_svd *out)
{
    const int64_t r = out->k;
    DR_TRY(split_up(f, out->m, r));
    DR_TRY(split_down(f, out->n, r));
    DR_TRY(solve_core(f, r));
    memcpy(out->s, f->s, (size_t)r * sizeof *out->s);
    DR_TRY(multiply(f->qu, f->uc, out->m, r, r, out->u));
    return multiply(f->vct, f->qd, r, r, out->n, out->vt);
}

/* The product itself, for ranks that save nothing. */
static dr_status form_product(const float *up, const float *down, int64_t m, int64_t n, int64_t r,
                              dr_svd *out)
{
    float *a = NULL;
    DR_TRY(alloc(m, n, sizeof *a, &a));
    for (int64_t i = 0; i < m; i++) {
        for (int64_t k = 0; k < r; k++) {
            for (int64_t j = 0; j < n; j++) {
                a[i * n + j] += up[i * r + k] * down[k * n + j];
            }
        }
    }
    const dr_status st = dr_svd_dense(a, m, n, m < n ? m : n, out);
    free(a);
    return st;
}

dr_status dr_svd_product(const float *up, const float *down, int64_t m, int64_t n, int64_t r,
                         dr_svd *out)
{
    *out = (dr_svd){0};
    if (r >= m || r >= n) {
        return form_product(up, down, m, n, r, out);
    }
    factors f = {0};
    DR_TRY(alloc_result(m, n, r, r, out));
    dr_status st = alloc_factors(&f, m, n, r);
    for (int64_t i = 0; st == DR_OK && i < m * r; i++) {
        f.qu[i] = (double)up[i];
    }
    for (int64_t i = 0; st == DR_OK && i < n * r; i++) {
        f.qd[i] = (double)down[i];
    }
    if (st == DR_OK) {
        st = solve_product(&f, out);
    }
    free_factors(&f);
    if (st != DR_OK) {
        dr_svd_deinit(out);
    }
    return st;
}
