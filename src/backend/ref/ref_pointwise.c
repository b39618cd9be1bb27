#include "ops/pointwise.h"
#include "backend/ref/ref_internal.h"

static const dr_real one = 1;
static const dr_real half = (dr_real)0.5;
static const dr_real sqrt_half = (dr_real)0.70710678118654752440;        /* 1/sqrt(2)     */
static const dr_real sqrt_half_inv_pi = (dr_real)0.39894228040143267794; /* 1/sqrt(2 pi)  */
static const dr_real quick = (dr_real)1.702;
static const dr_real three = 3;

static dr_real sigmoid(dr_real x)
{
    return one / (one + DR_MATH(exp)(-x));
}

/* Phi(x) = (1 + erf(x/sqrt 2)) / 2 */
static dr_real normal_cdf(dr_real x)
{
    return half * (one + DR_MATH(erf)(x * sqrt_half));
}

static dr_real normal_pdf(dr_real x)
{
    return sqrt_half_inv_pi * DR_MATH(exp)(-half * x * x);
}

static dr_real act(dr_act kind, dr_real x)
{
    switch (kind) {
    case DR_ACT_SILU:
        return x * sigmoid(x);
    case DR_ACT_GELU:
        return x * normal_cdf(x);
    case DR_ACT_QUICK_GELU:
        return x * sigmoid(quick * x);
    case DR_ACT_RELU:
        return x > 0 ? x : 0;
    case DR_ACT_TANH3:
        return three * DR_MATH(tanh)(x / three);
    }
    dr_panic("kind", __FILE__, __LINE__, "activation %d does not exist", (int)kind);
}

/* d act / dx; RELU's slope at 0 is 0, as torch's. */
static dr_real act_slope(dr_act kind, dr_real x)
{
    dr_real s;
    switch (kind) {
    case DR_ACT_SILU:
        s = sigmoid(x);
        return s * (one + x * (one - s));
    case DR_ACT_GELU:
        return normal_cdf(x) + x * normal_pdf(x);
    case DR_ACT_QUICK_GELU:
        s = sigmoid(quick * x);
        return s + quick * x * s * (one - s);
    case DR_ACT_RELU:
        return x > 0 ? one : 0;
    case DR_ACT_TANH3:
        s = DR_MATH(tanh)(x / three);
        return one - s * s;
    }
    dr_panic("kind", __FILE__, __LINE__, "activation %d does not exist", (int)kind);
}

dr_status DR_REF(activation)(dr_context *cx, const dr_activation_args *a)
{
    const dr_real *x = dr_ref_data(a->x);
    dr_real *y = dr_ref_data(a->y);
#pragma omp parallel for num_threads(cx->threads) schedule(static)
    for (int64_t i = 0; i < dr_numel(a->x); i++) {
        y[i] = act(a->kind, x[i]);
    }
    return DR_OK;
}

dr_status DR_REF(activation_backward)(dr_context *cx, const dr_activation_backward_args *a)
{
    const dr_real *x = dr_ref_data(a->x);
    const dr_real *dy = dr_ref_data(a->dy);
    dr_real *dx = dr_ref_data(a->dx);
#pragma omp parallel for num_threads(cx->threads) schedule(static)
    for (int64_t i = 0; i < dr_numel(a->x); i++) {
        dr_ref_put(&dx[i], dy[i] * act_slope(a->kind, x[i]), a->mode);
    }
    return DR_OK;
}

dr_status DR_REF(geglu)(dr_context *cx, const dr_geglu_args *a)
{
    const int64_t f = dr_cols(a->y);
#pragma omp parallel for num_threads(cx->threads) schedule(static)
    for (int64_t r = 0; r < dr_rows(a->y); r++) {
        const dr_real *value = dr_ref_data(a->x) + r * 2 * f;
        const dr_real *gate = value + f;
        dr_real *y = dr_ref_data(a->y) + r * f;
        for (int64_t i = 0; i < f; i++) {
            y[i] = value[i] * act(DR_ACT_GELU, gate[i]);
        }
    }
    return DR_OK;
}

dr_status DR_REF(geglu_backward)(dr_context *cx, const dr_geglu_backward_args *a)
{
    const int64_t f = dr_cols(a->dy);
#pragma omp parallel for num_threads(cx->threads) schedule(static)
    for (int64_t r = 0; r < dr_rows(a->dy); r++) {
        const dr_real *value = dr_ref_data(a->x) + r * 2 * f;
        const dr_real *gate = value + f;
        const dr_real *dy = dr_ref_data(a->dy) + r * f;
        dr_real *dvalue = dr_ref_data(a->dx) + r * 2 * f;
        dr_real *dgate = dvalue + f;
        for (int64_t i = 0; i < f; i++) {
            dvalue[i] = dy[i] * act(DR_ACT_GELU, gate[i]);
            dgate[i] = dy[i] * value[i] * act_slope(DR_ACT_GELU, gate[i]);
        }
    }
    return DR_OK;
}

dr_status DR_REF(add)(dr_context *cx, const dr_add_args *a)
{
    const dr_real *x = dr_ref_data(a->x);
    const dr_real *z = dr_ref_data(a->z);
    dr_real *y = dr_ref_data(a->y);
    const dr_real alpha = (dr_real)a->alpha;
    const dr_real beta = (dr_real)a->beta;
#pragma omp parallel for num_threads(cx->threads) schedule(static)
    for (int64_t i = 0; i < dr_numel(a->x); i++) {
        y[i] = z != NULL ? alpha * x[i] + beta * z[i] : alpha * x[i];
    }
    return DR_OK;
}

dr_status DR_REF(add_rows)(dr_context *cx, const dr_add_rows_args *a)
{
    const int64_t channels = dr_cols(a->x);
    const int64_t pixels = dr_rows(a->x) / a->x->dim[0];
#pragma omp parallel for num_threads(cx->threads) schedule(static)
    for (int64_t r = 0; r < dr_rows(a->x); r++) {
        dr_real *x = dr_ref_data(a->x) + r * channels;
        const dr_real *t = dr_ref_data(a->t) + r / pixels * channels;
        for (int64_t c = 0; c < channels; c++) {
            x[c] += t[c];
        }
    }
    return DR_OK;
}

dr_status DR_REF(sum_rows)(dr_context *cx, const dr_sum_rows_args *a)
{
    const int64_t channels = dr_cols(a->dy);
    const int64_t pixels = dr_rows(a->dy) / a->dy->dim[0];
    for (int64_t n = 0; n < a->dy->dim[0]; n++) {
        dr_real *dt = dr_ref_data(a->dt) + n * channels;
        for (int64_t c = 0; c < channels && a->mode == DR_SET; c++) {
            dt[c] = 0;
        }
        DR_REF(add_column_sums)
        (dt, dr_ref_data(a->dy) + n * pixels * channels, pixels, channels, cx->threads);
    }
    return DR_OK;
}

dr_status DR_REF(multiply)(dr_context *cx, const dr_multiply_args *a)
{
    const int64_t channels = dr_cols(a->x);
    const int64_t pixels = dr_rows(a->x) / a->x->dim[0];
#pragma omp parallel for num_threads(cx->threads) schedule(static)
    for (int64_t r = 0; r < dr_rows(a->x); r++) {
        const dr_real *x = dr_ref_data(a->x) + r * channels;
        const dr_real *t = dr_ref_data(a->t) + r / pixels * channels;
        dr_real *y = dr_ref_data(a->y) + r * channels;
        for (int64_t c = 0; c < channels; c++) {
            y[c] = x[c] * t[c];
        }
    }
    return DR_OK;
}

dr_status DR_REF(dropout)(dr_context *cx, const dr_dropout_args *a)
{
    const dr_real *x = dr_ref_data(a->x);
    dr_real *y = dr_ref_data(a->y);
    const int64_t part = dr_numel(a->x) / a->outer;
#pragma omp parallel for num_threads(cx->threads) schedule(static)
    for (int64_t i = 0; i < dr_numel(a->x); i++) {
        const int64_t number = i / part * a->inner + i % a->inner;
        bool keeps[4];
        dr_dropout_keeps(a, (uint32_t)(number / 4), keeps);
        y[i] = keeps[number % 4] ? (dr_real)a->scale * x[i] : 0;
    }
    return DR_OK;
}
