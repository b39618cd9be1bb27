/* Compiled with DR_LANES 8 (AVX2, 16 registers) and 16 (AVX-512, 32 registers). */
#include "backend/cpu/cpu_tiles.h"

enum { LANES = DR_LANES, MAX_ROWS = 8, MAX_COLS = 6 };

#define INLINE static inline __attribute__((always_inline))

typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef float lanes_at __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef float quad __attribute__((vector_size(16)));

INLINE float sum_of(const lanes *x)
{
    quad q[LANES / 4];
    __builtin_memcpy(q, x, sizeof q);
#if DR_LANES == 16
    q[0] += q[2];
    q[1] += q[3];
#endif
    q[0] += q[1];
    return (q[0][0] + q[0][2]) + (q[0][1] + q[0][3]);
}

/* mr rows of a times nr rows of b; both are constants in every copy. */
INLINE void dot_body(const dr_cpu_dot_args *t, const int mr, const int nr)
{
    lanes acc[MAX_ROWS][MAX_COLS];
#pragma GCC unroll 8
    for (int i = 0; i < mr; i++) {
#pragma GCC unroll 6
        for (int j = 0; j < nr; j++) {
            acc[i][j] = (lanes){0.0f};
        }
    }
    const int64_t whole = t->k / LANES * LANES;
    for (int64_t p = 0; p < whole; p += LANES) {
        __builtin_prefetch(t->ahead[0] + p, 0, 2);
        __builtin_prefetch(t->ahead[1] + p, 0, 2);
        lanes bv[MAX_COLS];
#pragma GCC unroll 6
        for (int j = 0; j < nr; j++) {
            bv[j] = *(const lanes_at *)(t->b + j * t->ldb + p);
        }
#pragma GCC unroll 8
        for (int i = 0; i < mr; i++) {
            const lanes av = *(const lanes_at *)(t->a + i * t->lda + p);
#pragma GCC unroll 6
            for (int j = 0; j < nr; j++) {
                acc[i][j] += av * bv[j];
            }
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < mr; i++) {
#pragma GCC unroll 6
        for (int j = 0; j < nr; j++) {
            float sum = sum_of(&acc[i][j]);
            for (int64_t p = whole; p < t->k; p++) {
                sum += t->a[i * t->lda + p] * t->b[j * t->ldb + p];
            }
            float *c = t->c + i * t->ldc + j;
            *c = t->beta != 0.0f ? t->beta * *c + t->alpha * sum : t->alpha * sum;
        }
    }
}

/* mr rows of a times nv vectors of b's columns; both are constants in every copy. */
INLINE void thin_body(const dr_cpu_thin_args *t, const int mr, const int nv)
{
    lanes acc[MAX_ROWS][MAX_COLS];
#pragma GCC unroll 8
    for (int i = 0; i < mr; i++) {
#pragma GCC unroll 3
        for (int j = 0; j < nv; j++) {
            const int64_t at = i * t->ldc + j * LANES;
            __builtin_prefetch((const void *)(t->next_c + (uintptr_t)at * sizeof(float)), 1, 3);
            acc[i][j] = (lanes){0.0f};
            if (t->add) {
                acc[i][j] = *(const lanes_at *)(t->c + at);
            }
        }
    }
    const float *a = t->a;
    const float *b = t->b;
    for (int64_t p = 0; p < t->k; p++, a += t->a_col, b += t->ldb) {
        lanes bv[MAX_COLS];
#pragma GCC unroll 3
        for (int j = 0; j < nv; j++) {
            __builtin_prefetch((const void *)((uintptr_t)(b + j * LANES) + t->ahead), 0, 2);
            bv[j] = *(const lanes_at *)(b + j * LANES);
        }
#pragma GCC unroll 8
        for (int i = 0; i < mr; i++) {
            const float av = a[i * t->a_row];
#pragma GCC unroll 3
            for (int j = 0; j < nv; j++) {
                acc[i][j] += av * bv[j];
            }
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < mr; i++) {
#pragma GCC unroll 3
        for (int j = 0; j < nv; j++) {
            *(lanes_at *)(t->c + i * t->ldc + j * LANES) = acc[i][j];
        }
    }
}

#define TILE(kind, mr, n)                                                                          \
    static void kind##_##mr##x##n(const dr_cpu_##kind##_args *t)                                   \
    {                                                                                              \
        kind##_body(t, mr, n);                                                                     \
    }
TILE(dot, 4, 1)
TILE(dot, 1, 1)
TILE(thin, 4, 3)
TILE(thin, 4, 1)
TILE(thin, 1, 3)
TILE(thin, 1, 1)
#if DR_LANES == 16
TILE(dot, 4, 6)
TILE(dot, 4, 4)
TILE(dot, 1, 6)
TILE(dot, 1, 4)
TILE(thin, 8, 3)
TILE(thin, 8, 1)
const dr_cpu_tiles dr_cpu_tiles_avx512 = {
    .lanes = LANES,
    .dot_most = INT64_MAX,
    .dot_mr = 4,
    .dot = {{6, dot_4x6, dot_1x6}, {4, dot_4x4, dot_1x4}, {1, dot_4x1, dot_1x1}},
    .thin = {{8, thin_8x3, thin_8x1}, {4, thin_4x3, thin_4x1}, {1, thin_1x3, thin_1x1}}};
#else
TILE(dot, 4, 3)
TILE(dot, 4, 2)
TILE(dot, 1, 3)
TILE(dot, 1, 2)
TILE(thin, 2, 3)
TILE(thin, 2, 1)
const dr_cpu_tiles dr_cpu_tiles_avx2 = {
    .lanes = LANES,
    .dot_most = 64,
    .dot_mr = 4,
    .dot = {{3, dot_4x3, dot_1x3}, {2, dot_4x2, dot_1x2}, {1, dot_4x1, dot_1x1}},
    .thin = {{4, thin_4x3, thin_4x1}, {2, thin_2x3, thin_2x1}, {1, thin_1x3, thin_1x1}}};
#endif
