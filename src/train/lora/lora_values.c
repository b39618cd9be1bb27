/*
 * What the parameters of a LoRA start from: draws, a file, the weights' norms.
 */
#include "base/philox.h"
#include "io/xxh3.h"
#include "train/lora/lora_network.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- draws ----------------------------------------------------------------------------------- */

static void put_draws(const dr_param *p, const float *draws, float *values)
{
    dr_param_from_file_order(p, draws, DR_F32, values + p->offset, DR_F32);
}

static void start_normal(const dr_param *p, float deviation, dr_philox *stream, float *values)
{
    if (p == NULL) {
        return;
    }
    float *draws = dr_xcalloc((size_t)p->n, sizeof *draws);
    dr_philox_normal(stream, draws, (size_t)p->n);
    for (int64_t k = 0; k < p->n; k++) {
        draws[k] *= deviation;
    }
    put_draws(p, draws, values);
    free(draws);
}

/* torch's kaiming_uniform_ with a = sqrt(5): within 1/sqrt(inputs). */
static void start_uniform(const dr_param *p, dr_philox *stream, float *values)
{
    if (p == NULL) {
        return;
    }
    const double bound = 1.0 / sqrt((double)(p->n / p->dim[0]));
    float *draws = dr_xcalloc((size_t)p->n, sizeof *draws);
    for (int64_t k = 0; k < p->n; k++) {
        draws[k] = (float)((2.0 * (double)dr_philox_uniform(stream) - 1.0) * bound);
    }
    put_draws(p, draws, values);
    free(draws);
}

/* What is not drawn stays zero. */
static void start_site(const dr_lora_site *site, dr_philox *stream, float *values)
{
    dr_param *const *p = site->role;
    const bool scalar = site->adapter.scalar != NULL && !site->scalar_is_fixed;
    if (site->scalar_is_fixed) {
        values[site->adapter.scalar->offset] = 1.0F;
    }
    switch (site->adapter.kind) {
    case DR_ADAPTER_FACTORS:
        start_uniform(p[DR_LORA_DOWN], stream, values);
        start_uniform(p[DR_LORA_MID], stream, values);
        start_uniform(scalar ? p[DR_LORA_UP] : NULL, stream, values);
        break;
    case DR_ADAPTER_HADAMARD:
        start_normal(p[DR_LORA_W1_B], 1.0F, stream, values);
        start_normal(p[DR_LORA_W1_A], 0.1F, stream, values);
        start_normal(p[DR_LORA_W2_B], 1.0F, stream, values);
        start_normal(p[DR_LORA_T1], 0.1F, stream, values);
        start_normal(p[DR_LORA_T2], 0.1F, stream, values);
        start_normal(scalar ? p[DR_LORA_W2_A] : NULL, 0.1F, stream, values);
        break;
    case DR_ADAPTER_KRONECKER:
        start_uniform(p[DR_LORA_W1], stream, values);
        start_uniform(p[DR_LORA_W1_A], stream, values);
        start_uniform(p[DR_LORA_W1_B], stream, values);
        start_uniform(p[DR_LORA_T2], stream, values);
        start_uniform(p[DR_LORA_W2_A], stream, values);
        start_uniform(scalar ? p[DR_LORA_W2_B] : NULL, stream, values);
        start_uniform(scalar ? p[DR_LORA_W2] : NULL, stream, values);
        break;
    }
}

void dr_lora_network_start(const dr_lora_network *l, dr_model_part part, uint64_t seed,
                           float *values)
{
    memset(values, 0, (size_t)l->set[part].n_elems * sizeof *values);
    for (size_t i = 0; i < l->n_sites; i++) {
        const dr_lora_site *site = &l->site[i];
        if (site->part == part) {
            dr_philox stream;
            dr_philox_init(&stream, seed, DR_RANDOM_INIT, 0,
                           dr_xxh3_bytes(site->name, strlen(site->name)).low);
            start_site(site, &stream, values);
        }
    }
}

/* ---- norms ----------------------------------------------------------------------------------- */

/* Of w (outputs, window, inputs), per output or per input. */
static void norms_of(const dr_lora_site *site, const float *w, float *out)
{
    const dr_param *m = site->adapter.magnitude;
    const int64_t n = site->weight->n;
    const int64_t inputs = site->weight->dim[1];
    const int64_t per_output = n / site->weight->dim[0];
    double *squares = dr_xcalloc((size_t)m->n, sizeof *squares);
    for (int64_t i = 0; i < n; i++) {
        squares[site->adapter.by_input ? i % inputs : i / per_output] +=
            (double)w[i] * (double)w[i];
    }
    for (int64_t i = 0; i < m->n; i++) {
        out[i] = (float)sqrt(squares[i]);
    }
    free(squares);
}

static dr_status measure(const dr_lora_site *site, const dr_device *device, float *values)
{
    const dr_tensor *w = &site->weight->value;
    const size_t n = (size_t)site->weight->n;
    void *memory = NULL;
    DR_TRY(dr_try_calloc(n, dr_dtype_size(w->dtype) + sizeof(float), &memory));
    float *numbers = memory;
    void *raw = numbers + n;
    const dr_status st = device->download(raw, w->data, dr_nbytes(w));
    if (st == DR_OK) {
        dr_convert(numbers, DR_F32, raw, w->dtype, n);
        norms_of(site, numbers, values + site->adapter.magnitude->offset);
    }
    free(memory);
    return st;
}

dr_status dr_lora_network_magnitudes(const dr_lora_network *l, dr_model_part part,
                                     const dr_device *device, float *values)
{
    for (size_t i = 0; i < l->n_sites; i++) {
        const dr_lora_site *site = &l->site[i];
        if (site->part == part && site->adapter.magnitude != NULL) {
            DR_TRY(measure(site, device, values));
        }
    }
    return DR_OK;
}

/* ---- a file ---------------------------------------------------------------------------------- */

static dr_status read_part(const dr_lora_file *file, const dr_file_tensor *part, const dr_param *p,
                           float *values)
{
    float *numbers = dr_xcalloc((size_t)p->n, sizeof *numbers);
    const dr_status st = dr_lora_part_read(file, part, numbers);
    if (st == DR_OK) {
        dr_param_from_file_order(p, numbers, DR_F32, values + p->offset, DR_F32);
    }
    free(numbers);
    return st;
}

/* Whether the module has the site's parts and no others, each of its size. */
static dr_status check_parts(const char *path, const dr_lora_module *m, const dr_lora_site *site)
{
    for (int r = DR_LORA_ALPHA + 1; r < DR_LORA_ROLES; r++) {
        const dr_file_tensor *t = m->part[r];
        const dr_param *p = site->role[r];
        if ((t != NULL) != (p != NULL)) {
            DR_FAIL(DR_UNSUPPORTED,
                    "%s: %s is of another kind than this run's: %s is in the %s only", path,
                    m->name, t != NULL ? t->name : p->name, t != NULL ? "file" : "run");
        }
        if (t != NULL && (t->n_elems != p->n || t->shape[0] != p->dim[0])) {
            DR_FAIL(DR_FORMAT,
                    "%s: %s has %lld numbers in %lld rows, this run %lld in %lld: give the factor "
                    "and the kind of norm that the file was trained with",
                    path, t->name, (long long)t->n_elems, (long long)t->shape[0], (long long)p->n,
                    (long long)p->dim[0]);
        }
    }
    return DR_OK;
}

static dr_status check_module(const dr_lora_file *file, const dr_lora_module *m,
                              const dr_lora_site *site)
{
    const char *path = dr_tensor_file_path(dr_lora_file_tensors(file));
    if (!dr_lora_fits(m, site->weight->rank, site->weight->dim)) {
        DR_FAIL(DR_FORMAT,
                "%s: %s changes a weight of %lld x %lld (kernel %lld), the model has "
                "another size: the LoRA is for another model",
                path, m->name, (long long)m->out, (long long)m->in, (long long)m->kernel[0]);
    }
    if (m->rank != site->rank && m->rank != 0) {
        DR_FAIL(DR_FORMAT,
                "%s: %s has rank %lld, this run %lld: give --network_dim %lld, or "
                "--dim_from_weights",
                path, m->name, (long long)m->rank, (long long)site->rank, (long long)m->rank);
    }
    return check_parts(path, m, site);
}

static dr_status read_site(const dr_lora_file *file, const dr_lora_module *m,
                           const dr_lora_site *site, float *values)
{
    DR_TRY(check_module(file, m, site));
    for (int r = DR_LORA_ALPHA + 1; r < DR_LORA_ROLES; r++) {
        if (site->role[r] != NULL) {
            DR_TRY(read_part(file, m->part[r], site->role[r], values));
        }
    }
    if (site->adapter.scalar != NULL) {
        values[site->adapter.scalar->offset] = 1.0F;
    }
    return DR_OK;
}

dr_status dr_lora_network_read(const dr_lora_network *l, dr_model_part part,
                               const dr_lora_file *file, float *values, size_t *n_missing)
{
    for (size_t i = 0; i < l->n_sites; i++) {
        const dr_lora_site *site = &l->site[i];
        const dr_lora_module *m = dr_lora_file_find(file, site->name);
        if (site->part != part) {
            continue;
        }
        if (m == NULL) {
            (*n_missing)++;
            continue;
        }
        DR_TRY(read_site(file, m, site, values));
    }
    return DR_OK;
}
