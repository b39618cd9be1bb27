#include "op_harness.h"

#include "base/arena.h"
#include "base/philox.h"
#include "dr_test.h"
#include "golden_input.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GUARD_BYTES = 64, GUARD = 0xa5, UNSET = 0xff }; /* 0xff...: NaN in every float type */

static uint32_t hash_name(const char *name)
{
    uint32_t h = 2166136261U;
    for (; *name != '\0'; name++) {
        h = (h ^ (unsigned char)*name) * 16777619U;
    }
    return h;
}

/* n numbers of standard deviation scale, exact in f32. */
static void make_numbers(const dr_op_run *r, const char *name, double scale, size_t n, double *out)
{
    if (r->setup.golden != NULL) {
        char key[128];
        (void)snprintf(key, sizeof key, "%s.%s", r->setup.golden, name);
        dr_golden_fill(key, n, scale * DR_GOLDEN_UNIT, out);
        return;
    }
    dr_philox random;
    dr_philox_init(&random, r->setup.seed, DR_RANDOM_NOISE, hash_name(name), 0);
    for (size_t i = 0; i < n; i++) {
        float u;
        dr_philox_normal(&random, &u, 1);
        out[i] = (double)(float)((double)u * scale);
    }
}

static void to_dtype(const dr_tensor *t, const double *numbers, unsigned char *elements)
{
    const size_t n = (size_t)dr_numel(t);
    if (t->dtype == DR_I32) {
        for (size_t i = 0; i < n; i++) {
            ((int32_t *)(void *)elements)[i] = (int32_t)numbers[i];
        }
    } else {
        dr_convert(elements, t->dtype, numbers, DR_F64, n);
    }
}

/* Allocates the tensor between guards, fills it (numbers NULL: unset) and uploads the block. */
static dr_tensor *place(dr_op_run *r, dr_op_role role, const char *name, const dr_tensor *shape,
                        const double *numbers)
{
    DR_CHECK(r->n < DR_OP_MAX_ARRAYS, "too many tensors in one scenario");
    dr_op_array *a = &r->array[r->n++];
    const size_t bytes = dr_nbytes(shape);
    const int64_t block_bytes = (int64_t)bytes + 2 * GUARD_BYTES;
    *a = (dr_op_array){.name = name, .role = role};
    a->block = dr_new_typed(&r->cx, r->frame, DR_U8, 1, &block_bytes);
    a->tensor =
        dr_tensor_of((char *)a->block.data + GUARD_BYTES, shape->dtype, shape->rank, shape->dim);
    a->before = dr_xcalloc((size_t)block_bytes, 1);
    a->after = dr_xcalloc((size_t)block_bytes, 1);
    memset(a->before, GUARD, (size_t)block_bytes);
    memset(a->before + GUARD_BYTES, UNSET, bytes);
    if (numbers != NULL) {
        to_dtype(&a->tensor, numbers, a->before + GUARD_BYTES);
    }
    assert_ok(dr_upload(&r->cx, &a->block, a->before));
    return &a->tensor;
}

/* To the nearest numbers of a narrower dtype. */
static void round_numbers(dr_dtype dtype, double *numbers, size_t n)
{
    void *narrow = dr_xcalloc(n, dr_dtype_size(dtype));
    dr_convert(narrow, dtype, numbers, DR_F64, n);
    dr_convert(numbers, DR_F64, narrow, dtype, n);
    free(narrow);
}

/* activation: of the activation dtype, whatever that is. */
static dr_tensor *make(dr_op_run *r, dr_op_role role, const char *name, double scale,
                       const dr_tensor *shape, bool activation)
{
    if (role == DR_OP_SET || role == DR_OP_SAVED) {
        return place(r, role, name, shape, NULL);
    }
    const size_t n = (size_t)dr_numel(shape);
    double *numbers = dr_xcalloc(n, sizeof *numbers);
    const dr_op_setup *s = &r->setup;
    if (role != DR_OP_ACCUMULATED || (s->golden == NULL && !s->zero_gradients)) {
        make_numbers(r, name, scale, n, numbers);
    }
    if (s->nudged != NULL && strcmp(s->nudged, name) == 0) {
        numbers[s->nudged_index] += s->nudge;
    }
    if (activation && s->rounded) {
        round_numbers(s->rounded_to, numbers, n);
    }
    dr_tensor *t = place(r, role, name, shape, numbers);
    free(numbers);
    return t;
}

dr_tensor *dr_op_tensor(dr_op_run *r, dr_op_role role, const char *name, double scale, int rank,
                        const int64_t *dim)
{
    const dr_tensor shape = dr_tensor_of(NULL, r->cx.dtype, rank, dim);
    return make(r, role, name, scale, &shape, true);
}

dr_tensor *dr_op_stat(dr_op_run *r, dr_op_role role, const char *name, int rank, const int64_t *dim)
{
    return dr_op_typed(r, role, name, r->cx.backend->compute, rank, dim);
}

dr_tensor *dr_op_typed(dr_op_run *r, dr_op_role role, const char *name, dr_dtype dtype, int rank,
                       const int64_t *dim)
{
    const dr_tensor shape = dr_tensor_of(NULL, dtype, rank, dim);
    return make(r, role, name, 1.0, &shape, false);
}

dr_tensor *dr_op_gradient(dr_op_run *r, dr_write mode, const char *name, int rank,
                          const int64_t *dim)
{
    return dr_op_tensor(r, mode == DR_ADD ? DR_OP_ACCUMULATED : DR_OP_SET, name, 1.0, rank, dim);
}

static dr_tensor *param_gradient(dr_op_run *r, dr_op_role role, const char *name, int rank,
                                 const int64_t *dim)
{
    const bool wide = r->setup.wide_gradients;
    const dr_dtype dtype = wide ? r->cx.backend->compute : r->cx.dtype;
    const dr_tensor shape = dr_tensor_of(NULL, dtype, rank, dim);
    return make(r, role, name, 1.0, &shape, !wide);
}

dr_tensor *dr_op_param_gradient(dr_op_run *r, const char *name, int rank, const int64_t *dim)
{
    return param_gradient(r, DR_OP_ACCUMULATED, name, rank, dim);
}

dr_tensor *dr_op_weight_gradient(dr_op_run *r, bool fresh, const char *name, int rank,
                                 const int64_t *dim)
{
    return param_gradient(r, fresh ? DR_OP_SET : DR_OP_ACCUMULATED, name, rank, dim);
}

dr_tensor *dr_op_ids(dr_op_run *r, const char *name, int64_t limit, int rank, const int64_t *dim)
{
    const dr_tensor shape = dr_tensor_of(NULL, DR_I32, rank, dim);
    const int64_t n = dr_numel(&shape);
    double *ids = dr_xcalloc((size_t)n, sizeof *ids);
    for (int64_t i = 0; i < n; i++) {
        ids[i] = (double)((5 * i * i + 3 * i) % limit);
    }
    dr_tensor *t = place(r, DR_OP_INPUT, name, &shape, ids);
    free(ids);
    return t;
}

dr_tensor *dr_op_timesteps(dr_op_run *r, const char *name, int64_t n)
{
    const dr_tensor shape = dr_tensor_of(NULL, DR_F32, 1, &n);
    double *t = dr_xcalloc((size_t)n, sizeof *t);
    for (int64_t i = 0; i < n; i++) {
        t[i] = (double)(333 * i % 1000);
    }
    dr_tensor *placed = place(r, DR_OP_INPUT, name, &shape, t);
    free(t);
    return placed;
}

/* Walks the body over the pool; real runs leave arrays, dry ones only the pool's peak. */
static void walk(dr_op_run *r, const dr_op_setup *setup, const dr_op_scenario *s, dr_pool *pool)
{
    *r = (dr_op_run){.setup = *setup};
    dr_context_init(&r->cx, setup->backend, pool, setup->threads);
    r->cx.dtype = setup->narrow ? setup->dtype : r->cx.dtype;
    r->frame = dr_frame_begin(&r->cx);
    s->body(r, s->params);
    for (size_t i = 0; i < r->n; i++) {
        assert_ok(dr_download(&r->cx, &r->array[i].block, r->array[i].after));
    }
    dr_frame_end(&r->cx, r->frame);
}

static void check_untouched(const dr_op_scenario *s, const dr_op_array *a)
{
    const size_t bytes = dr_nbytes(&a->tensor);
    const bool front = memcmp(a->before, a->after, GUARD_BYTES) == 0;
    const bool back =
        memcmp(a->before + GUARD_BYTES + bytes, a->after + GUARD_BYTES + bytes, GUARD_BYTES) == 0;
    const bool kept = a->role != DR_OP_INPUT ||
                      memcmp(a->before + GUARD_BYTES, a->after + GUARD_BYTES, bytes) == 0;
    if (!front || !back || !kept) {
        fail_msg("%s %s: %s %s", dr_op_name(s->op), s->name, a->name,
                 !kept ? "is an input and was changed"
                       : (front ? "was written past its end" : "was written before its start"));
    }
}

void dr_op_run_execute(dr_op_run *r, const dr_op_setup *setup, const dr_op_scenario *s)
{
    dr_pool *dry = dr_pool_create_dry();
    walk(r, setup, s, dry);
    dr_op_run_free(r);
    dr_pool *pool = NULL;
    assert_ok(dr_pool_create(setup->backend->device, dr_pool_peak_bytes(dry), &pool));
    dr_pool_destroy(dry);
    walk(r, setup, s, pool);
    dr_pool_destroy(pool);
    for (size_t i = 0; i < r->n; i++) {
        check_untouched(s, &r->array[i]);
    }
}

void dr_op_run_free(dr_op_run *r)
{
    for (size_t i = 0; i < r->n; i++) {
        free(r->array[i].before);
        free(r->array[i].after);
    }
    r->n = 0;
}

const dr_op_array *dr_op_find(const dr_op_run *r, const char *name)
{
    for (size_t i = 0; i < r->n; i++) {
        if (strcmp(r->array[i].name, name) == 0) {
            return &r->array[i];
        }
    }
    return NULL;
}

static double *values_of(const dr_op_array *a, const unsigned char *block)
{
    const size_t n = (size_t)dr_numel(&a->tensor);
    double *values = dr_xcalloc(n, sizeof *values);
    dr_convert(values, DR_F64, block + GUARD_BYTES, a->tensor.dtype, n);
    return values;
}

double *dr_op_values_before(const dr_op_array *a)
{
    return values_of(a, a->before);
}

double *dr_op_values_after(const dr_op_array *a)
{
    return values_of(a, a->after);
}

bool dr_op_is_output(const dr_op_array *a)
{
    return a->role == DR_OP_CHANGED || a->role == DR_OP_SET || a->role == DR_OP_ACCUMULATED;
}
