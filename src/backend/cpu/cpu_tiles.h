/*
 * backend/cpu/cpu_tiles.h - the inner loops of cpu_dot.c and cpu_thin.c, one set per vector unit.
 *
 * Layer:    backend/cpu, private. cpu_tiles.c is compiled once for each set.
 */
#ifndef DR_CPU_TILES_H
#define DR_CPU_TILES_H

#include <stdbool.h>
#include <stdint.h>

/* c[i,j] = alpha sum over p of a[i,p] b[j,p] + beta c[i,j]. ahead: two rows of b to prefetch. */
typedef struct dr_cpu_dot_args {
    int64_t k;
    float alpha, beta;
    const float *a, *b, *ahead[2];
    float *c;
    int64_t lda, ldb, ldc;
} dr_cpu_dot_args;
typedef void (*dr_cpu_dot_tile)(const dr_cpu_dot_args *t);

/*
 * c[i,j] = or += sum over p of a[i * a_row + p * a_col] b[p,j]. Prefetched: the same columns of c
 * at next_c, before the products, and of b `ahead` bytes further, step by step. Both may lie
 * outside of the arrays; they are never read. b goes to L2 only: its rows fall on few sets of L1
 * and would push a and c out.
 */
typedef struct dr_cpu_thin_args {
    int64_t k;
    const float *a, *b;
    float *c;
    int64_t a_row, a_col, ldb, ldc;
    bool add;
    uintptr_t next_c, ahead;
} dr_cpu_thin_args;
typedef void (*dr_cpu_thin_tile)(const dr_cpu_thin_args *t);

typedef struct dr_cpu_tiles {
    int lanes;        /* floats of a vector */
    int64_t dot_most; /* of machines with one multiplication of such vectors a cycle */
    int dot_mr;       /* rows of a in `many`; one row in `one`                   */
    struct {          /* by falling number of rows of b; the last is 1 */
        int nr;
        dr_cpu_dot_tile many, one;
    } dot[3];
    struct { /* by falling number of rows of a; the last is 1; three vectors of b, or one */
        int mr;
        dr_cpu_thin_tile three, one;
    } thin[3];
} dr_cpu_tiles;

extern const dr_cpu_tiles dr_cpu_tiles_avx2, dr_cpu_tiles_avx512;

/* The set of this machine, or NULL: another architecture, or an older one. */
const dr_cpu_tiles *dr_cpu_tiles_here(void);
/* Rows of a, or of b, up to which cpu_dot.c is faster than sgemm on this machine. */
int64_t dr_cpu_dot_most(const dr_cpu_tiles *tiles);

#endif
