/*
 * linalg/svd.h - singular value decompositions, by LAPACK.
 *
 * Layer:    linalg.  The only place that knows LAPACKE and CBLAS.
 * Threads:  those of the BLAS below it (OPENBLAS_NUM_THREADS); results may differ in the last bits
 *           between numbers of threads.
 */
#ifndef DR_LINALG_SVD_H
#define DR_LINALG_SVD_H

#include "dreamrun/status.h"

typedef struct dr_svd { /* A (m,n) ~ u diag(s) vt with the k largest, all row-major; owned */
    int64_t m, n, k;
    int64_t n_values; /* k or more */
    float *u;         /* (m,k), orthonormal columns */
    double *s;        /* n_values, descending */
    float *vt;        /* (k,n), orthonormal rows */
} dr_svd;

/*
 * The k largest of a matrix, and all min(m, n) singular values; 1 <= k <= min(m, n). By the
 * eigenvalues of the smaller of A A' and A' A in double: u diag(s) vt is A projected on the space
 * of the k largest, and a singular value is good to about 1e-8 of the largest (sgesdd: 1e-6); of
 * those below that, vectors of the longer side need not be orthogonal. Needs 8 bytes x
 * (2 min(m, n)^2 + k (m + n)) beside A. Errors: DR_NOMEM; DR_NUMERIC (a NaN or an infinity in it,
 * or LAPACK did not converge). On error *out is empty.
 */
DR_MUST_USE dr_status dr_svd_dense(const float *a, int64_t m, int64_t n, int64_t k, dr_svd *out);
/*
 * Of the product up (m,r) down (r,n), without forming it where r < min(m, n): k = n_values =
 * min(m, n, r), computed in double. Errors as above.
 */
DR_MUST_USE dr_status dr_svd_product(const float *up, const float *down, int64_t m, int64_t n,
                                     int64_t r, dr_svd *out);
void dr_svd_deinit(dr_svd *svd);

#endif
