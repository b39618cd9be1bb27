#include "ops/optimizer_ops.h"
#include "backend/ref/ref_internal.h"

dr_status DR_REF(sumsq)(dr_context *cx, const dr_sumsq_args *a)
{
    enum { PARTS = 64 }; /* fixed, so that the order of the sum does not depend on threads */
    double part[PARTS] = {0};
    const dr_real *x = dr_ref_data(a->x);
    const int64_t n = dr_numel(a->x);
    const int64_t length = (n + PARTS - 1) / PARTS;
#pragma omp parallel for num_threads(cx->threads) schedule(static)
    for (int64_t p = 0; p < PARTS; p++) {
        const int64_t end = (p + 1) * length < n ? (p + 1) * length : n;
        double sum = 0.0;
        for (int64_t i = p * length; i < end; i++) {
            sum += (double)x[i] * (double)x[i];
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

/*
 * Order of operations of torch.optim.AdamW (single tensor): scalars in double, rounded once;
 * m = m + (1-b1)(g - m) is torch's lerp.
 */
dr_status DR_REF(adamw)(dr_context *cx, const dr_adamw_args *a)
{
    const double b1 = (double)a->beta1;
    const double b2 = (double)a->beta2;
    const double correction1 = 1.0 - pow(b1, (double)a->step);
    const double correction2 = 1.0 - pow(b2, (double)a->step);
    const dr_real keep = (dr_real)(1.0 - (double)a->lr * (double)a->weight_decay);
    const dr_real new1 = (dr_real)(1.0 - b1);
    const dr_real old2 = (dr_real)b2;
    const dr_real new2 = (dr_real)(1.0 - b2);
    const dr_real step_size = (dr_real)((double)a->lr / correction1);
    const dr_real root2 = (dr_real)sqrt(correction2);
    const dr_real eps = (dr_real)a->eps;
    const dr_real scale = (dr_real)a->grad_scale;
    const dr_real *grad = dr_ref_data(a->g);
    dr_real *p = dr_ref_data(a->p);
    dr_real *m = dr_ref_data(a->m);
    dr_real *v = dr_ref_data(a->v);
#pragma omp parallel for num_threads(cx->threads) schedule(static)
    for (int64_t i = 0; i < dr_numel(a->p); i++) {
        const dr_real g = scale * grad[i];
        m[i] = m[i] + new1 * (g - m[i]);
        v[i] = old2 * v[i] + new2 * g * g;
        const dr_real denominator = DR_MATH(sqrt)(v[i]) / root2 + eps;
        p[i] = keep * p[i] - step_size * m[i] / denominator;
    }
    return DR_OK;
}
