#include "nn/adapter_internal.h"
#include "ops/cast.h"
#include "ops/layout.h"
#include "ops/linear.h"
#include "ops/optimizer_ops.h"
#include "ops/pointwise.h"

#define NORM_EPS 1.1920928955078125e-07 /* LyCORIS: torch.finfo(torch.float32).eps */

bool dr_adapter_forms_delta(const dr_adapter *a)
{
    return a->kind != DR_ADAPTER_FACTORS || a->pair[0].core != NULL || a->scalar != NULL ||
           a->magnitude != NULL || a->dropout.rows > 0.0F;
}

typedef struct delta { /* in a frame; matrices are (outputs, window * inputs) */
    dr_context wide;   /* of the compute dtype */
    dr_frame f;
    const dr_adapter *a;
    int64_t rows, cols, inputs;
    dr_product pair[2];
    dr_operand whole[2], scalar, magnitude, base;
    dr_tensor half[2]; /* the products, or KRONECKER's W1 (a,c) and W2 (b, window * d) */
    dr_tensor plain;   /* D without the scalar */
    dr_tensor scaled;  /* D; plain itself without a scalar */
    dr_tensor sum;     /* W + D */
    dr_tensor squares; /* of the norms */
    dr_tensor ratio;   /* m / (norm + eps) */
    dr_tensor value;   /* in the weight's place; scaled itself without a magnitude */
} delta;

static dr_tensor matrix_new(delta *d)
{
    return dr_new(&d->wide, d->f, 2, DR_DIMS(d->rows, d->cols));
}

static delta delta_begin(dr_context *cx, const dr_adapter *a, int64_t outputs, int64_t window,
                         int64_t inputs)
{
    delta d = {.wide = *cx, .a = a, .rows = outputs, .cols = window * inputs, .inputs = inputs};
    d.wide.dtype = cx->backend->compute;
    d.f = dr_frame_begin(&d.wide);
    return d;
}

static int64_t window_of(const dr_layer_call *l)
{
    return l->geom != NULL ? (int64_t)l->geom->kh * l->geom->kw : 1;
}

static dr_status scale(delta *d, const dr_tensor *t)
{
    dr_tensor same = *t;
    return dr_add(&d->wide, &(dr_add_args){.alpha = d->a->scale, .x = t, .y = &same});
}

/* ---- KRONECKER: (a,c) and (b w,d) give (a, b w, c, d) through (a, c, b w, d) ------------------
 */

typedef struct kron_sizes {
    int64_t a, c, bw, d;
} kron_sizes;

static kron_sizes sizes_of(const delta *d)
{
    const int64_t a = d->half[0].dim[0];
    const int64_t c = d->half[0].dim[1];
    const int64_t n = dr_numel(&d->half[1]);
    return (kron_sizes){a, c, n / (d->inputs / c), d->inputs / c};
}

static dr_status kron(delta *d)
{
    const kron_sizes s = sizes_of(d);
    const dr_tensor first = dr_reshape(&d->half[0], 2, DR_DIMS(s.a * s.c, 1));
    const dr_tensor second = dr_reshape(&d->half[1], 2, DR_DIMS(s.bw * s.d, 1));
    dr_tensor outer = dr_new(&d->wide, d->f, 2, DR_DIMS(s.a * s.c, s.bw * s.d));
    DR_TRY(dr_linear(&d->wide,
                     &(dr_linear_args){.x = &first, .w = &second, .y = &outer, .mode = DR_SET}));
    const dr_tensor from = dr_reshape(&outer, 4, DR_DIMS(s.a, s.c, s.bw, s.d));
    dr_tensor to = dr_reshape(&d->plain, 4, DR_DIMS(s.a, s.bw, s.c, s.d));
    return dr_swap(&d->wide, &(dr_swap_args){.x = &from, .y = &to});
}

/* dW1 += G W2 and dW2 += W1' G, with G as (a c, b w d). */
static dr_status kron_backward(delta *d, const dr_tensor *dplain, dr_tensor *d1, dr_tensor *d2)
{
    const kron_sizes s = sizes_of(d);
    dr_tensor g = dr_new(&d->wide, d->f, 2, DR_DIMS(s.a * s.c, s.bw * s.d));
    const dr_tensor from = dr_reshape(dplain, 4, DR_DIMS(s.a, s.bw, s.c, s.d));
    dr_tensor to = dr_reshape(&g, 4, DR_DIMS(s.a, s.c, s.bw, s.d));
    DR_TRY(dr_swap(&d->wide, &(dr_swap_args){.x = &from, .y = &to}));
    if (d1->data != NULL) {
        const dr_tensor w2 = dr_reshape(&d->half[1], 2, DR_DIMS(1, s.bw * s.d));
        dr_tensor out = dr_reshape(d1, 2, DR_DIMS(s.a * s.c, 1));
        DR_TRY(
            dr_linear(&d->wide, &(dr_linear_args){.x = &g, .w = &w2, .y = &out, .mode = DR_ADD}));
    }
    if (d2->data == NULL) {
        return DR_OK;
    }
    const dr_tensor w1 = dr_reshape(&d->half[0], 2, DR_DIMS(s.a * s.c, 1));
    dr_tensor out = dr_reshape(d2, 2, DR_DIMS(1, s.bw * s.d));
    return dr_linear_dw(&d->wide, &(dr_linear_dw_args){.dy = &w1, .x = &g, .dw = &out});
}

/* ---- building D ------------------------------------------------------------------------------ */

static dr_status build_half(delta *d, int i, bool grad)
{
    const dr_adapter *a = d->a;
    if (a->pair[i].up != NULL) {
        DR_TRY(dr_product_build(&d->wide, d->f, a, &a->pair[i], grad, &d->pair[i]));
        d->half[i] = d->pair[i].value;
    } else if (a->whole[i] != NULL) {
        DR_TRY(dr_operand_open(&d->wide, d->f, a->whole[i], grad, &d->whole[i]));
        d->half[i] = dr_flat(&d->whole[i].value);
    }
    return DR_OK;
}

static dr_status drop_rows(delta *d, dr_tensor *matrix)
{
    const float chance = d->a->dropout.rows;
    const dr_adapter_mask mask = {DR_RANDOM_ADAPTER_ROWS, chance, 1.0F, d->rows, 1};
    return dr_adapter_drops(&d->wide, d->a, chance) ? dr_adapter_drop(&d->wide, d->a, mask, matrix)
                                                    : DR_OK;
}

static dr_status build_plain(delta *d, bool grad)
{
    DR_TRY(build_half(d, 0, grad));
    DR_TRY(build_half(d, 1, grad));
    d->plain = matrix_new(d);
    switch (d->a->kind) {
    case DR_ADAPTER_FACTORS:
        DR_TRY(dr_add(&d->wide, &(dr_add_args){.alpha = 1.0F, .x = &d->half[0], .y = &d->plain}));
        break;
    case DR_ADAPTER_HADAMARD:
        DR_TRY(dr_times(&d->wide, &d->half[0], &d->half[1], &d->plain));
        break;
    case DR_ADAPTER_KRONECKER:
        DR_TRY(kron(d));
        break;
    }
    DR_TRY(scale(d, &d->plain));
    return drop_rows(d, &d->plain);
}

/* y = x times the one number of the scalar */
static dr_status times_scalar(delta *d, const dr_tensor *x, dr_tensor *y)
{
    const int64_t n = d->rows * d->cols;
    const dr_tensor from = dr_reshape(x, 3, DR_DIMS(1, n, 1));
    const dr_tensor by = dr_reshape(&d->scalar.value, 2, DR_DIMS(1, 1));
    dr_tensor to = dr_reshape(y, 3, DR_DIMS(1, n, 1));
    return dr_multiply(&d->wide, &(dr_multiply_args){.x = &from, .t = &by, .y = &to});
}

/* ---- the magnitude --------------------------------------------------------------------------- */

/* The view of a matrix in which all elements of one norm stand along the middle. */
static dr_tensor by_norm(const delta *d, const dr_tensor *matrix)
{
    const int64_t n = d->rows * d->cols;
    return d->a->by_input ? dr_reshape(matrix, 3, DR_DIMS(1, n / d->inputs, d->inputs))
                          : dr_reshape(matrix, 3, DR_DIMS(d->rows, d->cols, 1));
}

static dr_tensor norms_new(delta *d)
{
    return dr_new(&d->wide, d->f, 2, d->a->by_input ? DR_DIMS(1, d->inputs) : DR_DIMS(d->rows, 1));
}

static dr_status sum_of_norm(delta *d, const dr_tensor *matrix, dr_tensor *sums)
{
    const dr_tensor x = by_norm(d, matrix);
    return dr_sum_rows(&d->wide, &(dr_sum_rows_args){.dy = &x, .dt = sums, .mode = DR_SET});
}

/* matrix *= one number per norm */
static dr_status scale_by_norm(delta *d, const dr_tensor *matrix, const dr_tensor *by,
                               dr_tensor *out)
{
    const dr_tensor x = by_norm(d, matrix);
    dr_tensor y = by_norm(d, out);
    return dr_multiply(&d->wide, &(dr_multiply_args){.x = &x, .t = by, .y = &y});
}

/* out = x / (norm + eps), with the function that Adam divides with. */
static dr_status divide_by_norm(delta *d, const dr_tensor *x, double eps, dr_tensor *out)
{
    const int64_t n = dr_numel(out);
    dr_tensor p = dr_reshape(out, 1, &n);
    const dr_tensor m = dr_reshape(x, 1, &n);
    const dr_tensor v = dr_reshape(&d->squares, 1, &n);
    DR_TRY(dr_zero(&d->wide, out));
    return dr_adam_apply(
        &d->wide, &(dr_adam_apply_args){.rate = -1.0, .eps = eps, .p = &p, .m = &m, .v = &v});
}

static dr_status decompose(delta *d)
{
    d->sum = matrix_new(d);
    d->value = matrix_new(d);
    d->squares = norms_new(d);
    d->ratio = norms_new(d);
    const dr_tensor base = dr_reshape(&d->base.value, 2, d->sum.dim);
    DR_TRY(dr_add(
        &d->wide,
        &(dr_add_args){.alpha = 1.0F, .beta = 1.0F, .x = &base, .z = &d->scaled, .y = &d->sum}));
    DR_TRY(dr_times(&d->wide, &d->sum, &d->sum, &d->value));
    DR_TRY(sum_of_norm(d, &d->value, &d->squares));
    DR_TRY(divide_by_norm(d, &d->magnitude.value, NORM_EPS, &d->ratio));
    DR_TRY(scale_by_norm(d, &d->sum, &d->ratio, &d->value));
    return dr_add(
        &d->wide,
        &(dr_add_args){.alpha = 1.0F, .beta = -1.0F, .x = &d->value, .z = &base, .y = &d->value});
}

/*
 * With S = W + D, n its norm and E the gradient of m S / (n + eps), in place: dm += (sum E S) /
 * (n + eps), dS = ratio E - ratio (sum E S) / (n + eps) / n S.
 */
static dr_status decompose_backward(delta *d, dr_tensor *e)
{
    const double no_norm = 1e-30; /* of rows of zeros, which have no gradient through their norm */
    dr_tensor work = matrix_new(d);
    dr_tensor dots = norms_new(d);
    dr_tensor part = norms_new(d);
    DR_TRY(dr_times(&d->wide, e, &d->sum, &work));
    DR_TRY(sum_of_norm(d, &work, &dots));
    DR_TRY(divide_by_norm(d, &dots, NORM_EPS, &part));
    if (d->magnitude.grad.data != NULL) {
        dr_tensor dm = dr_reshape(&d->magnitude.grad, 2, part.dim);
        DR_TRY(dr_add(&d->wide,
                      &(dr_add_args){.alpha = 1.0F, .beta = 1.0F, .x = &part, .z = &dm, .y = &dm}));
    }
    DR_TRY(dr_times(&d->wide, &part, &d->ratio, &dots));
    DR_TRY(divide_by_norm(d, &dots, no_norm, &part));
    DR_TRY(scale_by_norm(d, &d->sum, &part, &work));
    DR_TRY(scale_by_norm(d, e, &d->ratio, e));
    return dr_add(&d->wide,
                  &(dr_add_args){.alpha = 1.0F, .beta = -1.0F, .x = e, .z = &work, .y = e});
}

/* ---- the whole ------------------------------------------------------------------------------- */

static dr_status build(delta *d, bool grad)
{
    const dr_adapter *a = d->a;
    DR_TRY(build_plain(d, grad));
    DR_TRY(dr_operand_open(&d->wide, d->f, a->scalar, grad, &d->scalar));
    DR_TRY(dr_operand_open(&d->wide, d->f, a->magnitude, grad, &d->magnitude));
    d->scaled = d->plain;
    if (a->scalar != NULL) {
        d->scaled = matrix_new(d);
        DR_TRY(times_scalar(d, &d->plain, &d->scaled));
    }
    d->value = d->scaled;
    if (a->magnitude == NULL) {
        return DR_OK;
    }
    DR_TRY(dr_operand_open(&d->wide, d->f, a->base, false, &d->base));
    return decompose(d);
}

/* D in the type of the layer and the shape of its weight. */
static dr_status as_weight(dr_context *cx, delta *d, const dr_conv2d_geom *geom, dr_tensor *out)
{
    dr_tensor w = d->value;
    if (cx->dtype != d->wide.dtype) {
        w = dr_new_typed(cx, d->f, cx->dtype, 2, d->value.dim);
        DR_TRY(dr_cast(cx, &(dr_cast_args){.x = &d->value, .y = &w}));
    }
    *out = geom == NULL ? w : dr_reshape(&w, 4, DR_DIMS(d->rows, geom->kh, geom->kw, d->inputs));
    return DR_OK;
}

static dr_status apply(dr_context *cx, const dr_layer_call *l, const dr_tensor *w, dr_tensor *y)
{
    if (l->geom == NULL) {
        return dr_linear(cx, &(dr_linear_args){.x = l->x, .w = w, .y = y, .mode = DR_ADD});
    }
    const dr_frame f = dr_frame_begin(cx);
    dr_tensor part = dr_new_like(cx, f, y);
    dr_status st =
        dr_conv2d(cx, &(dr_conv2d_args){.geom = *l->geom, .x = l->x, .w = w, .y = &part});
    if (st == DR_OK) {
        st = dr_add(cx, &(dr_add_args){.alpha = 1.0F, .beta = 1.0F, .x = &part, .z = y, .y = y});
    }
    dr_frame_end(cx, f);
    return st;
}

dr_status dr_delta_forward(dr_context *cx, const dr_layer_call *l, dr_tensor *y)
{
    delta d = delta_begin(cx, l->a, dr_cols(y), window_of(l), dr_cols(l->x));
    dr_tensor w;
    dr_status st = build(&d, false);
    if (st == DR_OK) {
        st = as_weight(cx, &d, l->geom, &w);
    }
    if (st == DR_OK) {
        st = apply(cx, l, &w, y);
    }
    dr_frame_end(cx, d.f);
    return st;
}

static dr_status input_gradient(dr_context *cx, const dr_layer_call *l, const dr_tensor *w,
                                const dr_tensor *dy, dr_tensor *dx)
{
    if (dx == NULL) {
        return DR_OK;
    }
    return l->geom == NULL
               ? dr_linear_dx(cx, &(dr_linear_dx_args){.dy = dy, .w = w, .dx = dx, .mode = DR_ADD})
               : dr_conv2d_dx(cx,
                              &(dr_conv2d_dx_args){
                                  .geom = *l->geom, .dy = dy, .w = w, .dx = dx, .mode = DR_ADD});
}

/* dD = dy' x */
static dr_status delta_gradient(dr_context *cx, const dr_layer_call *l, const dr_tensor *dy,
                                delta *d, dr_tensor *dd)
{
    DR_TRY(dr_zero(cx, dd));
    if (l->geom == NULL) {
        return dr_linear_dw(cx, &(dr_linear_dw_args){.dy = dy, .x = l->x, .dw = dd});
    }
    dr_tensor w = dr_reshape(dd, 4, DR_DIMS(d->rows, l->geom->kh, l->geom->kw, d->inputs));
    return dr_conv2d_dw(cx, &(dr_conv2d_dw_args){.geom = *l->geom, .dy = dy, .x = l->x, .dw = &w});
}

/* Through the magnitude and the scalar, in place: dD becomes the gradient of the plain product. */
static dr_status plain_gradient(delta *d, dr_tensor *dd)
{
    if (d->a->magnitude != NULL) {
        DR_TRY(decompose_backward(d, dd));
    }
    if (d->scalar.grad.data != NULL) {
        const int64_t n = d->rows * d->cols;
        const dr_tensor x = dr_reshape(dd, 2, DR_DIMS(1, n));
        const dr_tensor w = dr_reshape(&d->plain, 2, DR_DIMS(1, n));
        dr_tensor ds = dr_reshape(&d->scalar.grad, 2, DR_DIMS(1, 1));
        DR_TRY(dr_linear(&d->wide, &(dr_linear_args){.x = &x, .w = &w, .y = &ds, .mode = DR_ADD}));
    }
    if (d->a->scalar != NULL) {
        DR_TRY(times_scalar(d, dd, dd));
    }
    DR_TRY(drop_rows(d, dd));
    return scale(d, dd);
}

/* The gradient of a half: the parameter's own, or a matrix of zeros for a pair. */
static dr_status half_gradient(delta *d, int i, dr_tensor *out)
{
    if (d->a->pair[i].up == NULL) {
        *out = d->whole[i].grad;
        return DR_OK;
    }
    *out = dr_new_like(&d->wide, d->f, &d->half[i]);
    return dr_zero(&d->wide, out);
}

static dr_status hadamard_backward(delta *d, const dr_tensor *dplain)
{
    dr_tensor dp = matrix_new(d);
    DR_TRY(dr_times(&d->wide, dplain, &d->half[1], &dp));
    DR_TRY(dr_product_backward(&d->wide, d->a, &d->pair[0], &dp));
    DR_TRY(dr_times(&d->wide, dplain, &d->half[0], &dp));
    return dr_product_backward(&d->wide, d->a, &d->pair[1], &dp);
}

static dr_status kronecker_backward(delta *d, const dr_tensor *dplain)
{
    dr_tensor dhalf[2];
    DR_TRY(half_gradient(d, 0, &dhalf[0]));
    DR_TRY(half_gradient(d, 1, &dhalf[1]));
    DR_TRY(kron_backward(d, dplain, &dhalf[0], &dhalf[1]));
    for (int i = 0; i < 2; i++) {
        if (d->a->pair[i].up != NULL) {
            DR_TRY(dr_product_backward(&d->wide, d->a, &d->pair[i], &dhalf[i]));
        }
    }
    return DR_OK;
}

static dr_status parameter_gradients(delta *d, dr_tensor *dd)
{
    DR_TRY(plain_gradient(d, dd));
    switch (d->a->kind) {
    case DR_ADAPTER_FACTORS:
        DR_TRY(dr_product_backward(&d->wide, d->a, &d->pair[0], dd));
        break;
    case DR_ADAPTER_HADAMARD:
        DR_TRY(hadamard_backward(d, dd));
        break;
    case DR_ADAPTER_KRONECKER:
        DR_TRY(kronecker_backward(d, dd));
        break;
    }
    for (int i = 0; i < 2; i++) {
        DR_TRY(dr_product_close(&d->wide, &d->pair[i]));
        DR_TRY(dr_operand_close(&d->wide, &d->whole[i]));
    }
    DR_TRY(dr_operand_close(&d->wide, &d->scalar));
    return dr_operand_close(&d->wide, &d->magnitude);
}

static dr_status backward_in_frame(dr_context *cx, const dr_layer_call *l, const dr_tensor *dy,
                                   dr_tensor *dx, delta *d)
{
    const bool trained = dr_adapter_is_trained(d->a);
    dr_tensor weight;
    DR_TRY(build(d, trained));
    DR_TRY(as_weight(cx, d, l->geom, &weight));
    DR_TRY(input_gradient(cx, l, &weight, dy, dx));
    if (!trained) {
        return DR_OK;
    }
    dr_tensor dd = matrix_new(d);
    DR_TRY(delta_gradient(cx, l, dy, d, &dd));
    return parameter_gradients(d, &dd);
}

dr_status dr_delta_backward(dr_context *cx, const dr_layer_call *l, const dr_tensor *dy,
                            dr_tensor *dx)
{
    delta d = delta_begin(cx, l->a, dr_cols(dy), window_of(l), dr_cols(l->x));
    const dr_status st = backward_in_frame(cx, l, dy, dx, &d);
    dr_frame_end(cx, d.f);
    return st;
}

/* ---- the size of D --------------------------------------------------------------------------- */

/* out (1,1) = sum of x * y */
static dr_status dot(dr_context *wide, const dr_tensor *x, const dr_tensor *y, dr_tensor *out)
{
    const int64_t n = dr_numel(x);
    const dr_tensor a = dr_reshape(x, 2, DR_DIMS(1, n));
    const dr_tensor b = dr_reshape(y, 2, DR_DIMS(1, n));
    return dr_linear(wide, &(dr_linear_args){.x = &a, .w = &b, .y = out, .mode = DR_SET});
}

/* |B A|^2 = sum of (B' B) * (A A'), which are small. */
static dr_status square_of_factors(delta *d, dr_tensor *out)
{
    const dr_adapter_pair *pair = &d->a->pair[0];
    const int64_t rank = pair->down->dim[0];
    dr_operand up;
    dr_operand down;
    dr_tensor of_up = dr_new(&d->wide, d->f, 2, DR_DIMS(rank, rank));
    dr_tensor of_down = dr_new_like(&d->wide, d->f, &of_up);
    DR_TRY(dr_operand_open(&d->wide, d->f, pair->up, false, &up));
    DR_TRY(dr_operand_open(&d->wide, d->f, pair->down, false, &down));
    const dr_tensor b = dr_flat(&up.value);
    const dr_tensor a = dr_flat(&down.value);
    DR_TRY(dr_zero(&d->wide, &of_up));
    DR_TRY(dr_linear_dw(&d->wide, &(dr_linear_dw_args){.dy = &b, .x = &b, .dw = &of_up}));
    DR_TRY(dr_linear(&d->wide, &(dr_linear_args){.x = &a, .w = &a, .y = &of_down, .mode = DR_SET}));
    DR_TRY(dot(&d->wide, &of_up, &of_down, out));
    return dr_add(&d->wide, &(dr_add_args){.alpha = d->a->scale * d->a->scale, .x = out, .y = out});
}

static dr_status square_of_delta(delta *d, dr_tensor *out)
{
    DR_TRY(build_plain(d, false));
    d->scaled = d->plain;
    if (d->a->scalar != NULL && d->a->kind != DR_ADAPTER_KRONECKER) {
        DR_TRY(dr_operand_open(&d->wide, d->f, d->a->scalar, false, &d->scalar));
        d->scaled = matrix_new(d);
        DR_TRY(times_scalar(d, &d->plain, &d->scaled));
    }
    return dot(&d->wide, &d->scaled, &d->scaled, out);
}

dr_status dr_adapter_square(dr_context *cx, const dr_adapter *a, const dr_param *w, dr_tensor *out)
{
    const int64_t window = w->rank == 4 ? w->dim[2] * w->dim[3] : 1;
    delta d = delta_begin(cx, a, w->dim[0], window, w->dim[1]);
    const bool factors =
        a->kind == DR_ADAPTER_FACTORS && a->pair[0].core == NULL && a->scalar == NULL;
    const dr_status st = factors ? square_of_factors(&d, out) : square_of_delta(&d, out);
    dr_frame_end(cx, d.f);
    return st;
}
