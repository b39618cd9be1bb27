/*
 * backend/ref/ref_internal.h - what the reference ops share. Private to backend/ref.
 *
 * Every source here is compiled twice: dr_real is float, or double with DR_REF_F64. Exported names
 * go through DR_REF() so that both copies live in one library.
 */
#ifndef DR_REF_INTERNAL_H
#define DR_REF_INTERNAL_H

#include "ops/context.h"

#include <math.h>

#ifdef DR_REF_F64
typedef double dr_real;
#define DR_REAL_DTYPE DR_F64
#define DR_REF(name)  dr_ref64_##name
#define DR_MATH(name) name
#else
typedef float dr_real;
#define DR_REAL_DTYPE DR_F32
#define DR_REF(name)  dr_ref32_##name
#define DR_MATH(name) name##f
#endif

/* The op functions: dr_ref32_linear, dr_ref64_linear, ... */
#define X(name, group) dr_status DR_REF(name)(dr_context * cx, const dr_##name##_args *a);
#include "ops/op_list.def"
#undef X

/* Scratch memory of the ops that need some (dr_backend.work_bytes). */
size_t DR_REF(conv2d_work_bytes)(dr_op_id op, const void *args);
size_t DR_REF(attention_work_bytes)(const dr_context *cx, const dr_attention_args *a);

/* The elements of t; panics when t is not of this backend's type. NULL gives NULL. */
static inline dr_real *dr_ref_data(const dr_tensor *t)
{
    if (t == NULL) {
        return NULL;
    }
    DR_CHECK(t->dtype == DR_REAL_DTYPE, "the reference backend computes in %s only, found %s",
             dr_dtype_name(DR_REAL_DTYPE), dr_dtype_name(t->dtype));
    return t->data;
}

/* Element i of t, and storing one, whatever floating-point type t has. */
static inline dr_real dr_ref_get(const dr_tensor *t, int64_t i)
{
    dr_real value;
    dr_convert(&value, DR_REAL_DTYPE, (const char *)t->data + i * (int64_t)dr_dtype_size(t->dtype),
               t->dtype, 1);
    return value;
}

static inline void dr_ref_store(const dr_tensor *t, int64_t i, dr_real value)
{
    dr_convert((char *)t->data + i * (int64_t)dr_dtype_size(t->dtype), t->dtype, &value,
               DR_REAL_DTYPE, 1);
}

/* Writes or adds, as mode says. */
static inline void dr_ref_put(dr_real *p, dr_real value, dr_write mode)
{
    *p = mode == DR_ADD ? *p + value : value;
}

/* c(i,j) = or += sum over l of a(i,l) b(l,j), plus bias(j); a and b have any strides. */
typedef struct dr_ref_matmul {
    int64_t m, n, k;
    const dr_real *a; /* a(i,l) = a[i * a_row + l * a_col] */
    int64_t a_row, a_col;
    const dr_real *b; /* b(l,j) = b[l * b_row + j * b_col] */
    int64_t b_row, b_col;
    const dr_real *bias; /* (n), or NULL */
    dr_real *c;          /* (m,n), rows contiguous */
    dr_write mode;
} dr_ref_matmul;
void DR_REF(matmul)(const dr_ref_matmul *p, int threads);

/* sums[j] += sum over rows i of x(i,j), in double; x is (rows,cols). */
void DR_REF(add_column_sums)(dr_real *sums, const dr_real *x, int64_t rows, int64_t cols,
                             int threads);

#endif
