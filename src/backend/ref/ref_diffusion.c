#include "ops/diffusion_ops.h"
#include "backend/ref/ref_internal.h"

dr_status DR_REF(mix)(dr_context *cx, const dr_mix_args *a)
{
    const int64_t elems = dr_numel(a->x) / a->x->dim[0]; /* of one sample */
    const dr_real *x = dr_ref_data(a->x);
    const dr_real *z = dr_ref_data(a->z);
    const dr_real *factor_x = dr_ref_data(a->a);
    const dr_real *factor_z = dr_ref_data(a->b);
    dr_real *y = dr_ref_data(a->y);
#pragma omp parallel for num_threads(cx->threads) schedule(static)
    for (int64_t i = 0; i < dr_numel(a->x); i++) {
        const int64_t n = i / elems;
        y[i] = factor_x[n] * x[i] + factor_z[n] * z[i];
    }
    return DR_OK;
}

static double loss_of(dr_loss_kind kind, double d, double c)
{
    const double root = sqrt(d * d + c * c);
    switch (kind) {
    case DR_LOSS_L1:
        return fabs(d);
    case DR_LOSS_HUBER:
        return 2.0 * c * (root - c);
    case DR_LOSS_SMOOTH_L1:
        return 2.0 * (root - c);
    default:
        return d * d;
    }
}

/* Its derivative by d. */
static dr_real slope_of(dr_loss_kind kind, dr_real d, dr_real c)
{
    const dr_real root = DR_MATH(sqrt)(d * d + c * c);
    switch (kind) {
    case DR_LOSS_L1:
        return (dr_real)((d > 0) - (d < 0));
    case DR_LOSS_HUBER:
        return root > 0 ? 2 * c * d / root : 0;
    case DR_LOSS_SMOOTH_L1:
        return root > 0 ? 2 * d / root : 0;
    default:
        return 2 * d;
    }
}

dr_status DR_REF(mse)(dr_context *cx, const dr_mse_args *a)
{
    const int64_t elems = dr_numel(a->pred) / a->pred->dim[0]; /* of one sample */
    const int64_t channels = dr_cols(a->pred);
    const dr_real *mask = dr_ref_data(a->mask);
    dr_real *dpred = dr_ref_data(a->dpred);
#pragma omp parallel for num_threads(cx->threads) schedule(static)
    for (int64_t n = 0; n < a->pred->dim[0]; n++) {
        const dr_real *pred = dr_ref_data(a->pred) + n * elems;
        const dr_real *target = dr_ref_data(a->target) + n * elems;
        const double c = a->threshold != NULL ? (double)dr_ref_data(a->threshold)[n] : 0.0;
        double sum = 0.0;
        for (int64_t i = 0; i < elems; i++) {
            const double d = (double)pred[i] - (double)target[i];
            const double m = mask != NULL ? (double)mask[(n * elems + i) / channels] : 1.0;
            sum += m * loss_of(a->kind, d, c);
        }
        dr_ref_data(a->loss)[n] = (dr_real)(sum / (double)elems);
        const dr_real factor = (dr_real)((double)dr_ref_data(a->weight)[n] / (double)elems);
        for (int64_t i = 0; i < elems && dpred != NULL; i++) {
            const dr_real m = mask != NULL ? mask[(n * elems + i) / channels] : 1;
            dpred[n * elems + i] = factor * m * slope_of(a->kind, pred[i] - target[i], (dr_real)c);
        }
    }
    return DR_OK;
}

dr_status DR_REF(posterior_sample)(dr_context *cx, const dr_posterior_sample_args *a)
{
    const int64_t channels = dr_cols(a->z);
    const dr_real *noise = dr_ref_data(a->noise);
#pragma omp parallel for num_threads(cx->threads) schedule(static)
    for (int64_t r = 0; r < dr_rows(a->z); r++) {
        const dr_real *mean = dr_ref_data(a->moments) + r * 2 * channels;
        const dr_real *logvar = mean + channels;
        dr_real *z = dr_ref_data(a->z) + r * channels;
        for (int64_t c = 0; c < channels; c++) {
            const dr_real clamped = DR_MATH(fmin)(DR_MATH(fmax)(logvar[c], -30), 20);
            const dr_real std = DR_MATH(exp)(clamped / 2);
            z[c] = noise != NULL ? mean[c] + std * noise[r * channels + c] : mean[c];
        }
    }
    return DR_OK;
}
