#include "model_case.h"

#include "dr_test.h"
#include "golden_input.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 64, THREADS = 2 };

void dr_model_case_begin(dr_model_case *c, const dr_backend *backend)
{
    *c = (dr_model_case){.backend = backend};
    dr_arena_init(&c->arena);
    dr_params_init(&c->params, &c->arena);
}

void dr_model_case_bind(dr_model_case *c, bool gradients)
{
    const size_t bytes = (size_t)c->params.n_elems * dr_dtype_size(c->backend->compute);
    assert_ok(c->backend->device->alloc(bytes, &c->values));
    if (gradients) {
        assert_ok(c->backend->device->alloc(bytes, &c->grads));
    }
    dr_params_bind(&c->params, c->backend->compute, c->values, c->grads);
    for (size_t i = 0; i < c->params.n; i++) {
        const dr_param *p = c->params.at[i];
        double *v = dr_xcalloc((size_t)p->n, sizeof *v);
        dr_golden_param(p->name, p->rank, p->dim, v);
        dr_param_from_file_order(p, v, DR_F64, p->value.data, p->value.dtype);
        free(v);
    }
}

void dr_model_case_end(dr_model_case *c)
{
    c->backend->device->free(c->values);
    c->backend->device->free(c->grads);
    dr_params_deinit(&c->params);
    dr_arena_deinit(&c->arena);
}

static void walk_once(dr_model_case *c, dr_pool *pool, dr_model_walk walk, void *user)
{
    dr_context cx;
    dr_context_init(&cx, c->backend, pool, THREADS);
    assert_ok(walk(&cx, user));
    assert_int_equal(dr_pool_used_bytes(pool), 0);
}

void dr_model_case_run(dr_model_case *c, dr_model_walk walk, void *user)
{
    dr_pool *dry = dr_pool_create_dry();
    walk_once(c, dry, walk, user);
    c->plan_bytes = dr_pool_peak_bytes(dry);
    dr_pool_destroy(dry);
    dr_pool *real = NULL;
    assert_ok(dr_pool_create(c->backend->device, c->plan_bytes, &real));
    walk_once(c, real, walk, user);
    assert_int_equal(dr_pool_peak_bytes(real), c->plan_bytes);
    dr_pool_destroy(real);
}

dr_tensor dr_model_case_tensor(dr_model_case *c, int rank, const int64_t *dim)
{
    dr_tensor t = dr_tensor_of(NULL, c->backend->compute, rank, dim);
    char *raw = dr_arena_alloc(&c->arena, dr_nbytes(&t) + ALIGN);
    t.data = raw + (ALIGN - (uintptr_t)raw % ALIGN) % ALIGN;
    return t;
}

/* Channels and pixels of one sample, as rows and columns of the order of files. */
static void layout_of(const dr_tensor *t, size_t *samples, size_t *channels, size_t *pixels)
{
    const bool image = t->rank == 4;
    *samples = image ? (size_t)t->dim[0] : 1;
    *channels = image ? (size_t)t->dim[3] : 1;
    *pixels = (size_t)dr_numel(t) / *samples / *channels;
}

dr_tensor dr_model_case_input(dr_model_case *c, const char *key, double scale, int rank,
                              const int64_t *dim)
{
    size_t samples;
    size_t channels;
    size_t pixels;
    dr_tensor t = dr_model_case_tensor(c, rank, dim);
    layout_of(&t, &samples, &channels, &pixels);
    const size_t n = (size_t)dr_numel(&t);
    double *file = dr_xcalloc(2 * n, sizeof *file);
    double *memory = file + n;
    dr_golden_fill(key, n, scale, file);
    for (size_t i = 0; i < n; i++) {
        const size_t sample = i / (channels * pixels);
        const size_t channel = i / pixels % channels;
        const size_t pixel = i % pixels;
        memory[(sample * pixels + pixel) * channels + channel] = file[i];
    }
    dr_convert(t.data, t.dtype, memory, DR_F64, n);
    free(file);
    return t;
}

double *dr_model_case_logical(const dr_tensor *t)
{
    size_t samples;
    size_t channels;
    size_t pixels;
    layout_of(t, &samples, &channels, &pixels);
    const size_t n = (size_t)dr_numel(t);
    double *memory = dr_xcalloc(n, sizeof *memory);
    double *file = dr_xcalloc(n, sizeof *file);
    dr_convert(memory, DR_F64, t->data, t->dtype, n);
    for (size_t i = 0; i < n; i++) {
        const size_t sample = i / (channels * pixels);
        const size_t channel = i / pixels % channels;
        const size_t pixel = i % pixels;
        file[i] = memory[(sample * pixels + pixel) * channels + channel];
    }
    free(memory);
    return file;
}

double *dr_model_case_gradient(const dr_param *p)
{
    double *v = dr_xcalloc((size_t)p->n, sizeof *v);
    dr_param_to_file_order(p, p->grad.data, p->grad.dtype, v, DR_F64);
    return v;
}

double dr_model_case_l2(const double *v, size_t n)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        sum += v[i] * v[i];
    }
    return sqrt(sum);
}
