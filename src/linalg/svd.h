/*
 * linalg/svd.h - singular value decompositions, by LAPACK's gesdd.
 *
 * Layer:    linalg.  The only place that knows LAPACKE.
 * Threads:  those of the BLAS below it (OPENBLAS_NUM_THREADS); results may differ in the last bits
 *           between numbers of threads.
 */
#ifndef DR_LINALG_SVD_H
#define DR_LINALG_SVD_H

#include "dreamrun/status.h"

typedef struct dr_svd { /* A (m,n) = u diag(s) vt, all row-major; owned */
    int64_t m, n, k;
    float *u;  /* (m,k), orthonormal columns */
    double *s; /* k, descending */
    float *vt; /* (k,n), orthonormal rows */
} dr_svd;

/* Of a matrix; k = min(m, n). a is overwritten. Errors: DR_NOMEM; DR_NUMERIC (a NaN or an infinity
 * in it, or LAPACK did not converge). On error *out is empty. */
DR_MUST_USE dr_status dr_svd_dense(float *a, int64_t m, int64_t n, dr_svd *out);
/*
 * Of the product up (m,r) down (r,n), without forming it where r < min(m, n): k = min(m, n, r),
 * computed in double. Errors as above.
 */
DR_MUST_USE dr_status dr_svd_product(const float *up, const float *down, int64_t m, int64_t n,
                                     int64_t r, dr_svd *out);
void dr_svd_deinit(dr_svd *svd);

#endif
