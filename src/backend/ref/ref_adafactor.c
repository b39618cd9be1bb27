#include "base/arena.h"
#include "ops/optimizer_ops.h"
#include "backend/ref/ref_internal.h"

#include <stdlib.h>

/* Element i of (outer,a,b,inner) lies at these places of row (outer,a,inner) and col. */
static int64_t row_of(const dr_factored *f, int64_t i)
{
    return i / (f->b * f->inner) * f->inner + i % f->inner;
}

static int64_t col_of(const dr_factored *f, int64_t i)
{
    const int64_t plane = f->b * f->inner;
    return i / (f->a * plane) * plane + i % plane;
}

/* Sums of g^2 + eps, one per element of `of`, in double; the caller frees. */
static double *square_sums(const dr_adafactor_moments_args *a, int64_t n_out,
                           int64_t (*place)(const dr_factored *, int64_t))
{
    double *sum = dr_xcalloc((size_t)n_out, sizeof *sum);
    const dr_real *g = dr_ref_data(a->g);
    for (int64_t i = 0; i < dr_numel(a->g); i++) {
        const dr_real scaled = (dr_real)a->grad_scale * g[i];
        sum[place(&a->f, i)] += (double)(scaled * scaled + (dr_real)a->eps);
    }
    return sum;
}

static void move_towards(dr_real *state, dr_real mean, double keep)
{
    *state = DR_MATH(fma)((dr_real)(1.0 - keep), mean, (dr_real)keep * *state);
}

static void move_means(const dr_adafactor_moments_args *a, dr_tensor *state, int64_t of,
                       int64_t (*place)(const dr_factored *, int64_t))
{
    double *sum = square_sums(a, dr_numel(state), place);
    for (int64_t i = 0; i < dr_numel(state); i++) {
        move_towards(dr_ref_data(state) + i, (dr_real)(sum[i] / (double)of), a->keep);
    }
    free(sum);
}

dr_status DR_REF(adafactor_moments)(dr_context *cx, const dr_adafactor_moments_args *a)
{
    (void)cx;
    if (a->f.v == NULL) {
        move_means(a, a->f.row, a->f.b, row_of);
        move_means(a, a->f.col, a->f.a, col_of);
        return DR_OK;
    }
    const dr_real *g = dr_ref_data(a->g);
    for (int64_t i = 0; i < dr_numel(a->g); i++) {
        const dr_real scaled = (dr_real)a->grad_scale * g[i];
        move_towards(dr_ref_data(a->f.v) + i, scaled * scaled + (dr_real)a->eps, a->keep);
    }
    return DR_OK;
}

/* rsqrt(row / mean of row over a) of the row that holds element i. */
static dr_real row_factor(const dr_factored *f, int64_t i)
{
    const int64_t plane = f->a * f->inner;
    const int64_t at = row_of(f, i);
    const dr_real *rows = dr_ref_data(f->row) + at / plane * plane + at % f->inner;
    double sum = 0.0;
    for (int64_t k = 0; k < f->a; k++) {
        sum += (double)rows[k * f->inner];
    }
    const dr_real mean = (dr_real)(sum / (double)f->a);
    return 1 / DR_MATH(sqrt)(dr_ref_data(f->row)[at] / mean);
}

static dr_real update_of(const dr_factored *f, int64_t i, dr_real g)
{
    if (f->v != NULL) {
        return g / DR_MATH(sqrt)(dr_ref_data(f->v)[i]);
    }
    return row_factor(f, i) * (1 / DR_MATH(sqrt)(dr_ref_data(f->col)[col_of(f, i)])) * g;
}

dr_status DR_REF(adafactor_sums)(dr_context *cx, const dr_adafactor_sums_args *a)
{
    const dr_real *g = dr_ref_data(a->g);
    const dr_real *p = dr_ref_data(a->p);
    double *sums = a->sums->data;
    (void)cx;
    sums[0] = 0.0;
    sums[1] = 0.0;
    sums[2] = 0.0;
    for (int64_t i = 0; i < dr_numel(a->g); i++) {
        const double u = (double)update_of(&a->f, i, (dr_real)a->grad_scale * g[i]);
        sums[0] += u * u;
        sums[1] += (double)p[i] * (double)p[i];
    }
    return DR_OK;
}

dr_status DR_REF(adafactor_apply)(dr_context *cx, const dr_adafactor_apply_args *a)
{
    const dr_real *g = dr_ref_data(a->g);
    dr_real *p = dr_ref_data(a->p);
    dr_real *m = dr_ref_data(a->m);
    double *sums = a->sums->data;
    const double n = (double)dr_numel(a->p);
    const double rate = a->lr * (a->scale_parameter ? fmax(a->least_scale, sqrt(sums[1] / n)) : 1);
    const double factor = rate / fmax(1.0, sqrt(sums[0] / n) / a->clip);
    (void)cx;
    for (int64_t i = 0; i < dr_numel(a->p); i++) {
        dr_real u = update_of(&a->f, i, (dr_real)a->grad_scale * g[i]) * (dr_real)factor;
        if (m != NULL) {
            m[i] = DR_MATH(fma)((dr_real)(1.0 - a->beta1), u, (dr_real)a->beta1 * m[i]);
            u = m[i];
        }
        p[i] = DR_MATH(fma)((dr_real)(-a->weight_decay * rate), p[i], p[i]) - u;
    }
    sums[2] = rate;
    return DR_OK;
}
