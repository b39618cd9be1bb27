#include "grad_case.h"

#include "backend/ref/backend_ref.h"
#include "base/str.h"
#include "dr_test.h"
#include "golden_input.h"
#include "nn/adapter.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* h balances h^2/6 times the third derivative against 1e-16/h. With 1e-5 the former is 3.3e-7 of a
 * U-Net with adapters (a norm's bias; 2.9e-8 with 3e-6), with 3e-6 the latter is 7e-8. */
static const double step = 4e-6;
/* L2 error of what is checked, relative to its norm or, where that is small, to 1e-2. Measured with
 * DR_OP_MEASURE=1: 5.3e-8 at most (that same bias), times 4. */
static const double limit = 2.1e-7;
static const double floor_norm = 1e-2;

typedef enum trainable { ALL, NONE, VECTORS, ADAPTERS } trainable;

static const char adapter_name[] = "lora_";

/* A parameter of the adapter of w. */
static dr_param *factor(dr_grad_case *g, const dr_param *w, const char *role, dr_param_kind kind,
                        const int64_t dim[4])
{
    return dr_params_add(&g->model.params, kind, kind == DR_PARAM_CONV ? 4 : 2, dim, "%s%s.%s",
                         adapter_name, role, w->name);
}

/* The pair of a product of rows times cols, with the window of w. */
static dr_adapter_pair pair_of(dr_grad_case *g, const dr_param *w, const char *role, int64_t rows,
                               int64_t cols, bool cores, bool transposed)
{
    enum { RANK = 2 };
    char name[3][16];
    const int64_t *d = w->dim;
    const bool cored = cores && w->rank == 4 && d[2] > 1;
    const char *const parts[] = {"up", "down", "core"};
    for (int i = 0; i < 3; i++) {
        (void)snprintf(name[i], sizeof name[i], "%s%s", parts[i], role);
    }
    dr_adapter_pair pair = {.up_is_transposed = cored && transposed};
    pair.up = factor(g, w, name[0], DR_PARAM_MATRIX,
                     pair.up_is_transposed ? DR_DIMS(RANK, rows) : DR_DIMS(rows, RANK));
    pair.down = cored ? factor(g, w, name[1], DR_PARAM_MATRIX, DR_DIMS(RANK, cols))
                      : factor(g, w, name[1], w->kind, DR_DIMS(RANK, cols, d[2], d[3]));
    pair.core =
        cored ? factor(g, w, name[2], DR_PARAM_CONV, DR_DIMS(RANK, RANK, d[2], d[3])) : NULL;
    return pair;
}

static void add_products(dr_grad_case *g, const dr_grad_adapter *how, const dr_param *w,
                         dr_adapter *a)
{
    enum { PARTS = 2 }; /* of outputs and inputs, in LoKr's first matrix */
    const int64_t *d = w->dim;
    const bool transposed = a->kind != DR_ADAPTER_FACTORS;
    if (a->kind != DR_ADAPTER_KRONECKER) {
        a->pair[0] = pair_of(g, w, "1", d[0], d[1], how->cores, transposed);
        if (a->kind == DR_ADAPTER_HADAMARD) {
            a->pair[1] = pair_of(g, w, "2", d[0], d[1], how->cores, transposed);
        }
        return;
    }
    if (how->whole[0]) {
        a->whole[0] = factor(g, w, "w1", DR_PARAM_MATRIX, DR_DIMS(PARTS, PARTS));
    } else { /* without a window */
        a->pair[0].up = factor(g, w, "up1", DR_PARAM_MATRIX, DR_DIMS(PARTS, 1));
        a->pair[0].down = factor(g, w, "down1", DR_PARAM_MATRIX, DR_DIMS(1, PARTS));
    }
    if (how->whole[1]) {
        a->whole[1] = factor(g, w, "w2", w->kind, DR_DIMS(d[0] / PARTS, d[1] / PARTS, d[2], d[3]));
    } else {
        a->pair[1] = pair_of(g, w, "2", d[0] / PARTS, d[1] / PARTS, how->cores, transposed);
    }
}

/* A frozen weight in w's place: gradients do not go through the magnitude's. */
static const dr_param *base_of(dr_grad_case *g, const dr_param *w)
{
    dr_param *base = dr_arena_alloc(&g->model.arena, sizeof *base);
    double *values = dr_arena_array(&g->model.arena, (size_t)w->n, sizeof *values);
    const int64_t *d = w->dim;
    *base = *w;
    dr_golden_fill(w->name, (size_t)w->n, 0.3, values);
    base->value =
        dr_tensor_of(values, DR_F64, w->rank, w->rank == 4 ? DR_DIMS(d[0], d[2], d[3], d[1]) : d);
    base->master = base->value;
    return base;
}

void dr_grad_add_adapters(dr_grad_case *g, const char *text, const dr_grad_adapter *how)
{
    dr_params *set = &g->model.params;
    const size_t n = set->n;
    for (size_t i = 0; i < n; i++) {
        dr_param *w = set->at[i];
        if (w->kind == DR_PARAM_VECTOR || strstr(w->name, text) == NULL) {
            continue;
        }
        dr_adapter *a = dr_arena_alloc(&g->model.arena, sizeof *a);
        *a = (dr_adapter){.kind = how->kind, .scale = 0.75F, .dropout = how->dropout};
        a->dropout.active = true;
        a->dropout.item = i;
        add_products(g, how, w, a);
        if (how->scalar) {
            a->scalar = dr_params_add(set, DR_PARAM_VECTOR, 1, DR_DIMS(1), "%sscalar.%s",
                                      adapter_name, w->name);
        }
        if (how->magnitude) {
            a->by_input = how->by_input;
            a->magnitude =
                factor(g, w, "magnitude", w->kind,
                       how->by_input ? DR_DIMS(1, w->dim[1], 1, 1) : DR_DIMS(w->dim[0], 1, 1, 1));
            a->base = base_of(g, w);
        }
        w->adapter = a;
    }
}

static bool is_trained(const dr_param *p, trainable which)
{
    switch (which) {
    case ALL:
        return true;
    case NONE:
        return false;
    case VECTORS:
        return p->kind == DR_PARAM_VECTOR;
    case ADAPTERS:
        return dr_str_starts(p->name, adapter_name);
    }
    return false;
}

static void begin(dr_grad_case *g, const dr_grad_block *spec, trainable which)
{
    char key[32];
    *g = (dr_grad_case){.spec = spec};
    dr_model_case_begin(&g->model, &dr_backend_ref_f64);
    spec->init(g);
    for (size_t i = 0; i < g->model.params.n; i++) {
        g->model.params.at[i]->trainable = is_trained(g->model.params.at[i], which);
    }
    dr_model_case_bind(&g->model, true);
    for (int i = 0; i < spec->n_inputs; i++) {
        (void)snprintf(key, sizeof key, "grad.input%d", i);
        g->x[i] = dr_model_case_input(&g->model, key, DR_GOLDEN_UNIT, spec->input_rank[i],
                                      spec->input_dim[i]);
        g->dx_set[i] = dr_model_case_tensor(&g->model, spec->input_rank[i], spec->input_dim[i]);
        (void)snprintf(key, sizeof key, "grad.before%d", i);
        g->dx_other[i] = dr_model_case_input(&g->model, key, DR_GOLDEN_UNIT, spec->input_rank[i],
                                             spec->input_dim[i]);
    }
    g->dy = dr_model_case_input(&g->model, "grad.dy", DR_GOLDEN_UNIT, spec->output_rank,
                                spec->output_dim);
}

static void end(dr_grad_case *g)
{
    if (g->spec->end != NULL) {
        g->spec->end(g);
    }
    dr_pool_destroy(g->forward);
    dr_pool_destroy(g->training);
    dr_model_case_end(&g->model);
}

static dr_status walk(dr_context *cx, void *user)
{
    dr_grad_case *g = user;
    const dr_frame f = dr_frame_begin(cx);
    dr_tensor y = dr_new_like(cx, f, &g->dy);
    const dr_status st = g->spec->step(cx, g, &y, f);
    g->loss = 0.0;
    for (int64_t i = 0; !cx->dry && i < dr_numel(&y); i++) {
        g->loss += ((const double *)y.data)[i] * ((const double *)g->dy.data)[i];
    }
    dr_frame_end(cx, f);
    return st;
}

static void walk_on(dr_grad_case *g, dr_pool *pool)
{
    dr_context cx;
    dr_context_init(&cx, g->model.backend, pool, 1);
    assert_ok(walk(&cx, g));
    assert_int_equal(dr_pool_used_bytes(pool), 0);
}

/* Plans the first run of a kind; later ones use its memory again. */
static void run(dr_grad_case *g)
{
    dr_pool **pool = g->backward ? &g->training : &g->forward;
    if (*pool == NULL) {
        dr_pool *dry = dr_pool_create_dry();
        walk_on(g, dry);
        assert_ok(dr_pool_create(g->model.backend->device, dr_pool_peak_bytes(dry), pool));
        dr_pool_destroy(dry);
    }
    walk_on(g, *pool);
    assert_int_equal(dr_pool_peak_bytes(*pool), dr_pool_capacity_bytes(*pool));
}

static double loss(dr_grad_case *g)
{
    g->backward = false;
    run(g);
    return g->loss;
}

/* Gradients into dx (one tensor per input); NULL: none. */
static void gradients(dr_grad_case *g, dr_tensor *dx, dr_write mode)
{
    for (int i = 0; i < g->spec->n_inputs; i++) {
        g->dx[i] = dx != NULL ? &dx[i] : NULL;
        if (dx != NULL && mode == DR_SET) { /* what is to be set starts as anything but zero */
            memset(dx[i].data, g->spec->only_adds[i] ? 0 : 0x40, dr_nbytes(&dx[i]));
        }
    }
    g->mode = mode;
    g->backward = true;
    run(g);
}

static void judge(const dr_grad_case *g, const char *what, double diff, double norm)
{
    const double error = diff / (norm > floor_norm ? norm : floor_norm);
    if (getenv("DR_OP_MEASURE") != NULL) {
        print_message("%.2g %s %s (norm %.2g)\n", error, g->spec->name, what, norm);
    }
    if (!(error <= limit)) {
        fail_msg("%s %s: relative error %.3g (norm %.3g), allowed %.3g", g->spec->name, what, error,
                 norm, limit);
    }
}

/* Some elements of got, the gradient of the n values at v. */
static void check_elements(dr_grad_case *g, const char *what, double *v, const double *got,
                           int64_t n)
{
    const int64_t checked = g->spec->checked;
    const int64_t stride = n <= checked ? 1 : n / checked;
    double diff = 0.0;
    double norm = 0.0;
    for (int64_t i = 0; i < n; i += stride) {
        const double before = v[i];
        v[i] = before + step;
        double want = loss(g);
        v[i] = before - step;
        want = (want - loss(g)) / (2.0 * step);
        v[i] = before;
        diff += (got[i] - want) * (got[i] - want);
        norm += want * want;
    }
    judge(g, what, sqrt(diff), sqrt(norm));
}

/* All elements at once: the derivative along a direction of unit length. */
static void check_direction(dr_grad_case *g, const char *what, double *v, const double *got,
                            int64_t n)
{
    double *direction = dr_xcalloc(2 * (size_t)n, sizeof *direction);
    double *before = direction + n;
    memcpy(before, v, (size_t)n * sizeof *v);
    dr_golden_fill(what, (size_t)n, 1.0, direction);
    const double length = dr_model_case_l2(direction, (size_t)n);
    double sum = 0.0;
    double want = 0.0;
    for (int64_t i = 0; i < n; i++) {
        direction[i] /= length;
        sum += got[i] * direction[i];
    }
    for (int side = 1; side >= -1; side -= 2) {
        for (int64_t i = 0; i < n; i++) {
            v[i] = before[i] + side * step * direction[i];
        }
        want += side * loss(g) / (2.0 * step);
    }
    memcpy(v, before, (size_t)n * sizeof *v);
    free(direction);
    judge(g, what, fabs(sum - want), dr_model_case_l2(got, (size_t)n) / sqrt((double)n));
}

static void check_differences(dr_grad_case *g, const char *what, double *v, const double *got,
                              int64_t n)
{
    if (g->spec->checked > 0) {
        check_elements(g, what, v, got, n);
    } else {
        check_direction(g, what, v, got, n);
    }
}

static void check_all_differences(dr_grad_case *g)
{
    char what[32];
    for (int i = 0; i < g->spec->n_inputs; i++) {
        (void)snprintf(what, sizeof what, "input %d", i);
        check_differences(g, what, g->x[i].data, g->dx_set[i].data, dr_numel(&g->x[i]));
    }
    for (size_t i = 0; i < g->model.params.n; i++) {
        const dr_param *p = g->model.params.at[i];
        check_differences(g, p->name, p->value.data, p->grad.data, p->n);
    }
}

/* Added to what is there, the gradients are those that set gives, up to the last sum's rounding. */
static void check_adding(dr_grad_case *g)
{
    double *before[DR_GRAD_MAX_INPUTS];
    for (int i = 0; i < g->spec->n_inputs; i++) {
        before[i] = dr_xcalloc(1, dr_nbytes(&g->x[i]));
        memcpy(before[i], g->dx_other[i].data, dr_nbytes(&g->x[i]));
    }
    gradients(g, g->dx_other, DR_ADD);
    for (int i = 0; i < g->spec->n_inputs; i++) {
        const double *set = g->dx_set[i].data;
        const double *added = g->dx_other[i].data;
        for (int64_t k = 0; k < dr_numel(&g->x[i]); k++) {
            const double want = before[i][k] + set[k];
            const double size = fabs(before[i][k]) + fabs(set[k]) + 1.0;
            if (!(fabs(added[k] - want) <= 1e-13 * size)) {
                fail_msg("%s: input %d [%lld] += gave %.17g, expected %.17g", g->spec->name, i,
                         (long long)k, added[k], want);
            }
        }
        free(before[i]);
    }
}

/* Parameter gradients of other equal those of g where other has any. */
static void check_same_parameters(const dr_grad_case *g, const dr_grad_case *other)
{
    for (size_t i = 0; i < g->model.params.n; i++) {
        const dr_param *p = g->model.params.at[i];
        const dr_param *q = other->model.params.at[i];
        assert_int_equal(q->grad.data != NULL, q->trainable);
        if (q->grad.data != NULL && memcmp(p->grad.data, q->grad.data, dr_nbytes(&p->grad)) != 0) {
            fail_msg("%s %s: another gradient", g->spec->name, p->name);
        }
    }
}

static void check_frozen(const dr_grad_case *g, trainable which)
{
    dr_grad_case other;
    begin(&other, g->spec, which);
    gradients(&other, other.dx_set, DR_SET);
    for (int i = 0; i < g->spec->n_inputs; i++) {
        assert_memory_equal(other.dx_set[i].data, g->dx_set[i].data, dr_nbytes(&g->x[i]));
    }
    check_same_parameters(g, &other);
    end(&other);
}

static void check_without_input_gradients(const dr_grad_case *g)
{
    dr_grad_case other;
    static const trainable kinds[] = {ALL, ADAPTERS, NONE}; /* at last nothing at all is wanted */
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        begin(&other, g->spec, kinds[i]);
        gradients(&other, NULL, DR_SET);
        check_same_parameters(g, &other);
        end(&other);
    }
}

void dr_grad_check_block(void **state)
{
    dr_grad_case g;
    begin(&g, *state, ALL);
    gradients(&g, g.dx_set, DR_SET);
    check_without_input_gradients(&g);
    check_frozen(&g, NONE);
    check_frozen(&g, VECTORS);
    check_frozen(&g, ADAPTERS);
    check_all_differences(&g);
    check_adding(&g);
    end(&g);
}

int dr_grad_run(const char *group, const dr_grad_block *blocks, size_t n)
{
    struct CMUnitTest *tests = dr_xcalloc(n, sizeof *tests);
    for (size_t i = 0; i < n; i++) {
        tests[i] = (struct CMUnitTest){.name = blocks[i].name,
                                       .test_func = dr_grad_check_block,
                                       .initial_state = (void *)(uintptr_t)&blocks[i]};
    }
    const int code = dr_test_run(group, tests, n);
    free(tests);
    return code;
}
