#include "ops/optimizer_ops.h"
#include "backend/ref/ref_internal.h"

dr_status DR_REF(sumsq)(dr_context *cx, const dr_sumsq_args *a)
{
    enum { PARTS = 64 }; /* fixed, so that the order of the sum does not depend on threads */
    double part[PARTS] = {0};
    const int64_t n = dr_numel(a->x);
    const int64_t length = (n + PARTS - 1) / PARTS;
#pragma omp parallel for num_threads(cx->threads) schedule(static)
    for (int64_t p = 0; p < PARTS; p++) {
        const int64_t end = (p + 1) * length < n ? (p + 1) * length : n;
        double sum = 0.0;
        for (int64_t i = p * length; i < end; i++) {
            const double x = (double)dr_ref_get(a->x, i);
            sum += x * x;
        }
        part[p] = sum;
    }
    double sum = 0.0;
    for (int p = 0; p < PARTS; p++) {
        sum += part[p];
    }
    *(double *)a->out->data += sum;
    return DR_OK;
}

dr_status DR_REF(checksum)(dr_context *cx, const dr_checksum_args *a)
{
    const bool wide = dr_dtype_size(a->x->dtype) == 4;
    double *out = a->out->data;
    uint64_t sum[DR_CHECKSUM_PARTS] = {0};
    const int64_t n = dr_numel(a->x);
    (void)cx;
    for (int64_t i = 0; i < n; i++) {
        const uint32_t x =
            wide ? ((const uint32_t *)a->x->data)[i] : ((const uint16_t *)a->x->data)[i];
        uint64_t h = x ^ (uint64_t)(i + 1) * 0x9e3779b97f4a7c15U;
        h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9U;
        h = (h ^ h >> 27) * 0x94d049bb133111ebU;
        h ^= h >> 31;
        for (int k = 0; k < DR_CHECKSUM_PARTS; k++) {
            sum[k] += h >> 16 * k & 0xffff;
        }
    }
    for (int k = 0; k < DR_CHECKSUM_PARTS; k++) {
        out[k] += (double)sum[k];
    }
    return DR_OK;
}

/* Rounds once: the scalars of an update are formed in double. */
static dr_real fused(double a, dr_real b, dr_real c)
{
    return DR_MATH(fma)((dr_real)a, b, c);
}

static dr_real lerp(dr_real from, dr_real to, double weight)
{
    return fabs(weight) < 0.5 ? fused(weight, to - from, from)
                              : DR_MATH(fma)((dr_real)weight - 1, to - from, to);
}

dr_status DR_REF(lerp)(dr_context *cx, const dr_lerp_args *a)
{
    const dr_real *x = dr_ref_data(a->x);
    dr_real *y = dr_ref_data(a->y);
#pragma omp parallel for num_threads(cx->threads) schedule(static)
    for (int64_t i = 0; i < dr_numel(a->y); i++) {
        y[i] = lerp(y[i], x[i], a->weight);
    }
    return DR_OK;
}

dr_status DR_REF(adamw)(dr_context *cx, const dr_adamw_args *a)
{
    const double correction1 = 1.0 - pow(a->beta1, (double)a->step);
    const dr_real root2 = (dr_real)sqrt(1.0 - pow(a->beta2, (double)a->step));
    const dr_real decay = (dr_real)(1.0 - a->lr * a->weight_decay);
    const dr_real step_size = (dr_real)(-(a->lr / correction1));
    const dr_real *grad = dr_ref_data(a->g);
    dr_real *p = dr_ref_data(a->p);
    dr_real *m = dr_ref_data(a->m);
    dr_real *v = dr_ref_data(a->v);
#pragma omp parallel for num_threads(cx->threads) schedule(static)
    for (int64_t i = 0; i < dr_numel(a->p); i++) {
        const dr_real g = (dr_real)a->grad_scale * grad[i];
        m[i] = lerp(m[i], g, 1.0 - a->beta1);
        v[i] = DR_MATH(fma)((dr_real)(1.0 - a->beta2) * g, g, (dr_real)a->beta2 * v[i]);
        const dr_real denominator = DR_MATH(sqrt)(v[i]) / root2 + (dr_real)a->eps;
        p[i] = decay * p[i] + step_size * m[i] / denominator;
    }
    return DR_OK;
}

static dr_real sign_of(dr_real x)
{
    return (dr_real)((x > 0) - (x < 0));
}

dr_status DR_REF(lion)(dr_context *cx, const dr_lion_args *a)
{
    const dr_real decay = (dr_real)(1.0 - a->lr * a->weight_decay);
    const dr_real *grad = dr_ref_data(a->g);
    dr_real *p = dr_ref_data(a->p);
    dr_real *m = dr_ref_data(a->m);
    dr_real *s = dr_ref_data(a->s);
    double dot = 0.0;
    double sum = 0.0;
    (void)cx;
    for (int64_t i = 0; i < dr_numel(a->p); i++) {
        const dr_real g = (dr_real)a->grad_scale * grad[i];
        const dr_real u = sign_of(fused(1.0 - a->beta1, g, (dr_real)a->beta1 * m[i]));
        p[i] = fused(-a->lr, u, decay * p[i]);
        m[i] = fused(a->rate, g, (dr_real)a->beta2 * m[i]);
        if (s != NULL) {
            dot += (double)u * (double)s[i];
            s[i] = fused(a->s_rate, u, (dr_real)a->s_keep * s[i]);
            sum += fabs((double)s[i]);
        }
    }
    if (s != NULL) {
        ((double *)a->sums->data)[0] += dot;
        ((double *)a->sums->data)[1] += sum;
    }
    return DR_OK;
}

dr_status DR_REF(momentum)(dr_context *cx, const dr_momentum_args *a)
{
    const dr_real *grad = dr_ref_data(a->g);
    dr_real *p = dr_ref_data(a->p);
    dr_real *m = dr_ref_data(a->m);
#pragma omp parallel for num_threads(cx->threads) schedule(static)
    for (int64_t i = 0; i < dr_numel(a->p); i++) {
        const dr_real g = fused(a->weight_decay, p[i], (dr_real)a->grad_scale * grad[i]);
        m[i] = a->first ? g : fused(1.0 - a->dampening, g, (dr_real)a->momentum * m[i]);
        p[i] = fused(-a->lr, a->nesterov ? fused(a->momentum, m[i], g) : m[i], p[i]);
    }
    return DR_OK;
}

dr_status DR_REF(dadapt)(dr_context *cx, const dr_dadapt_args *a)
{
    const dr_real *grad = dr_ref_data(a->g);
    const dr_real *p = dr_ref_data(a->p);
    const dr_real *p0 = dr_ref_data(a->p0);
    const dr_real eps = (dr_real)a->eps;
    dr_real *m = dr_ref_data(a->m);
    dr_real *v = dr_ref_data(a->v);
    dr_real *s = dr_ref_data(a->s);
    double sum[3] = {0.0};
    (void)cx;
    for (int64_t i = 0; i < dr_numel(a->p); i++) {
        const dr_real g = fused(a->l2, p[i], (dr_real)a->grad_scale * grad[i]);
        if (a->kind == DR_DADAPT_PRODIGY) {
            sum[0] += (double)g * (double)(p0[i] - p[i]);
        } else if (a->kind == DR_DADAPT_ADAM) {
            sum[0] += (double)g * (double)(s[i] / (DR_MATH(sqrt)(v[i]) + eps));
        }
        m[i] = fused(a->m_rate, g, (dr_real)a->m_keep * m[i]);
        v[i] = DR_MATH(fma)((dr_real)a->v_rate * g, g, (dr_real)a->v_keep * v[i]);
        s[i] = fused(a->s_rate, g, (dr_real)a->s_keep * s[i]);
        sum[1] += fabs((double)s[i]);
        if (a->kind == DR_DADAPT_PREPRINT) {
            const dr_real denominator = DR_MATH(sqrt)(v[i]) + eps;
            sum[0] += (double)(g * g / denominator);
            sum[2] += (double)(s[i] * s[i] / denominator);
        }
    }
    for (int k = 0; k < 3; k++) {
        ((double *)a->sums->data)[k] += sum[k];
    }
    return DR_OK;
}

dr_status DR_REF(adam_apply)(dr_context *cx, const dr_adam_apply_args *a)
{
    const dr_real *m = dr_ref_data(a->m);
    const dr_real *v = dr_ref_data(a->v);
    dr_real *p = dr_ref_data(a->p);
#pragma omp parallel for num_threads(cx->threads) schedule(static)
    for (int64_t i = 0; i < dr_numel(a->p); i++) {
        const dr_real denominator = DR_MATH(sqrt)(v[i]) + (dr_real)a->eps;
        p[i] = fused(-a->decay, p[i], p[i]) + (dr_real)-a->rate * m[i] / denominator;
    }
    return DR_OK;
}

dr_status DR_REF(schedule_free)(dr_context *cx, const dr_schedule_free_args *a)
{
    const dr_real *grad = dr_ref_data(a->g);
    dr_real *y = dr_ref_data(a->y);
    dr_real *z = dr_ref_data(a->z);
    dr_real *v = dr_ref_data(a->v);
#pragma omp parallel for num_threads(cx->threads) schedule(static)
    for (int64_t i = 0; i < dr_numel(a->y); i++) {
        dr_real u = (dr_real)a->grad_scale * grad[i];
        if (v != NULL) {
            v[i] = DR_MATH(fma)((dr_real)(1.0 - a->beta2) * u, u, (dr_real)a->beta2 * v[i]);
        }
        if (a->normalized) {
            u = u / (DR_MATH(sqrt)(v[i] / (dr_real)a->correction) + (dr_real)a->eps);
        }
        u = fused(a->weight_decay, y[i], u);
        y[i] = fused(a->y_rate, u, lerp(y[i], z[i], a->average));
        z[i] = fused(-a->lr, u, z[i]);
    }
    return DR_OK;
}
