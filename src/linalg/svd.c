#include "linalg/svd.h"

#include "base/arena.h"

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

static dr_status alloc_result(int64_t m, int64_t n, int64_t k, dr_svd *out)
{
    *out = (dr_svd){.m = m, .n = n, .k = k};
    dr_status st = alloc(m, k, sizeof(float), &out->u);
    if (st == DR_OK) {
        st = alloc(k, 1, sizeof(double), &out->s);
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

dr_status dr_svd_dense(float *a, int64_t m, int64_t n, dr_svd *out)
{
    const int64_t k = m < n ? m : n;
    float *s = NULL;
    DR_TRY(alloc_result(m, n, k, out));
    dr_status st = alloc(k, 1, sizeof(float), &s);
    if (st == DR_OK) {
        st = check_info(LAPACKE_sgesdd(LAPACK_COL_MAJOR, 'S', (lapack_int)n, (lapack_int)m, a,
                                       (lapack_int)n, s, out->vt, (lapack_int)n, out->u,
                                       (lapack_int)k));
    }
    for (int64_t i = 0; st == DR_OK && i < k; i++) {
        out->s[i] = (double)s[i];
    }
    free(s);
    if (st != DR_OK) {
        dr_svd_deinit(out);
    }
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
    const dr_status st = dr_svd_dense(a, m, n, out);
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
    DR_TRY(alloc_result(m, n, r, out));
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
