#include "train/lora/lora_norms.h"

#include "ops/pointwise.h"

#include <math.h>
#include <stdlib.h>

static bool is_trained(const dr_lora_site *site)
{
    dr_param *all[DR_ADAPTER_PARAMS];
    return dr_adapter_params(&site->adapter, all) > 0 && all[0]->trainable;
}

/* The square of each site's norm; of those that are not trained 0. */
static dr_status measure(const dr_network *n, dr_context *cx, float *squares)
{
    const dr_lora_network *l = n->lora;
    const int64_t count = (int64_t)l->n_sites;
    const dr_frame f = dr_frame_begin(cx);
    const dr_tensor all = dr_new(cx, f, 1, &count);
    dr_status st = dr_zero(cx, &all);
    for (size_t i = 0; st == DR_OK && i < l->n_sites; i++) {
        dr_tensor one = dr_tensor_of((char *)all.data + i * dr_dtype_size(all.dtype), all.dtype, 2,
                                     DR_DIMS(1, 1));
        if (is_trained(&l->site[i])) {
            st = dr_adapter_square(cx, &l->site[i].adapter, l->site[i].weight, &one);
        }
    }
    if (st == DR_OK) {
        st = dr_download_floats(cx, &all, squares);
    }
    dr_frame_end(cx, f);
    return st;
}

static dr_status multiply(const dr_param *p, dr_context *cx, double by)
{
    dr_tensor values = p->master;
    dr_context own = *cx;
    own.dtype = values.dtype;
    return dr_add(&own, &(dr_add_args){.alpha = (float)by, .x = &values, .y = &values});
}

static dr_status scale(const dr_lora_site *site, dr_context *cx, double ratio)
{
    const dr_adapter *a = &site->adapter;
    dr_param *all[DR_ADAPTER_PARAMS];
    const int n = dr_adapter_params(a, all);
    const int n_factors = n - (a->scalar != NULL) - (a->magnitude != NULL);
    if (a->scalar != NULL && a->kind != DR_ADAPTER_KRONECKER) {
        return multiply(a->scalar, cx, ratio);
    }
    for (int i = 0; i < n; i++) {
        if (all[i] != a->scalar && all[i] != a->magnitude) {
            DR_TRY(multiply(all[i], cx, pow(ratio, 1.0 / n_factors)));
        }
    }
    return DR_OK;
}

static dr_status limit_all(dr_network *n, dr_context *cx, double limit, const float *squares,
                           dr_lora_norms *out)
{
    double sum = 0.0;
    int64_t count = 0;
    for (size_t i = 0; i < n->lora->n_sites; i++) {
        const dr_lora_site *site = &n->lora->site[i];
        if (!is_trained(site)) {
            continue;
        }
        const double norm = sqrt((double)squares[i]);
        const double ratio = norm > limit ? limit / norm : 1.0;
        if (ratio != 1.0) {
            out->n_scaled++;
            DR_TRY(scale(site, cx, ratio));
        }
        sum += norm * ratio;
        out->largest = fmax(out->largest, norm * ratio);
        count++;
    }
    out->mean = count > 0 ? sum / (double)count : 0.0;
    if (out->n_scaled == 0 && n->o.lora->lycoris.preset != NULL) {
        *out = (dr_lora_norms){0};
    }
    return dr_network_refresh(n, cx, 0, n->n_trained);
}

dr_status dr_lora_limit_norms(dr_network *n, dr_context *cx, double limit, dr_lora_norms *out)
{
    float *squares = dr_xcalloc(n->lora->n_sites + 1, sizeof *squares);
    *out = (dr_lora_norms){0};
    dr_status st = measure(n, cx, squares);
    if (st == DR_OK && !cx->dry) {
        st = limit_all(n, cx, limit, squares, out);
    }
    free(squares);
    return st;
}
