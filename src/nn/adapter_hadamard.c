#include "nn/adapter_hadamard.h"

#include "ops/diffusion_ops.h"
#include "ops/linear.h"
#include "ops/pointwise.h"

/* (first size, all others) */
static dr_tensor flat(const dr_tensor *t)
{
    return dr_reshape(t, 2, DR_DIMS(t->dim[0], dr_numel(t) / t->dim[0]));
}

static dr_tensor line(const dr_tensor *t)
{
    return dr_reshape(t, 1, DR_DIMS(dr_numel(t)));
}

typedef struct built {       /* of the size of the weight, in a frame */
    dr_tensor first, second; /* (O, I*K*K): the two products */
    dr_tensor zeros;         /* (O*I*K*K) */
    dr_tensor delta;         /* D, in the shape of the weight in memory */
} built;

/* out = x * y, element by element: mix takes a factor per sample, here of one element each. */
static dr_status multiply(dr_context *cx, const built *b, const dr_tensor *x, const dr_tensor *y,
                          const dr_tensor *out)
{
    const dr_tensor lx = line(x);
    const dr_tensor ly = line(y);
    dr_tensor lo = line(out);
    return dr_mix(cx, &(dr_mix_args){.x = &lx, .z = &lx, .a = &ly, .b = &b->zeros, .y = &lo});
}

static dr_status scale(dr_context *cx, const dr_adapter *a, const dr_tensor *t)
{
    dr_tensor same = *t;
    return dr_add(cx, &(dr_add_args){.alpha = a->scale, .x = t, .y = &same});
}

/* out (O, I*K*K) = up down */
static dr_status product(dr_context *cx, const dr_param *up, const dr_param *down, dr_tensor *out)
{
    const dr_tensor b = flat(&up->value);
    const dr_tensor a = flat(&down->value);
    return dr_linear_dx(cx, &(dr_linear_dx_args){.dy = &b, .w = &a, .dx = out, .mode = DR_SET});
}

static built built_new(dr_context *cx, dr_frame f, const dr_adapter *a)
{
    const dr_tensor *down = &a->down->value;
    const int64_t out = a->up->value.dim[0];
    const int64_t cols = dr_numel(down) / down->dim[0];
    int64_t dim[DR_MAX_RANK];
    for (int i = 0; i < down->rank; i++) {
        dim[i] = down->dim[i];
    }
    dim[0] = out;
    return (built){.first = dr_new(cx, f, 2, DR_DIMS(out, cols)),
                   .second = dr_new(cx, f, 2, DR_DIMS(out, cols)),
                   .zeros = dr_new(cx, f, 1, DR_DIMS(out * cols)),
                   .delta = dr_new(cx, f, down->rank, dim)};
}

static dr_status build(dr_context *cx, const dr_adapter *a, built *b)
{
    DR_TRY(dr_zero(cx, &b->zeros));
    DR_TRY(product(cx, a->up, a->down, &b->first));
    DR_TRY(product(cx, a->up2, a->down2, &b->second));
    DR_TRY(multiply(cx, b, &b->first, &b->second, &b->delta));
    return scale(cx, a, &b->delta);
}

/* y += the layer with D in the weight's place */
static dr_status apply(dr_context *cx, const dr_conv2d_geom *geom, const built *b,
                       const dr_tensor *x, dr_tensor *y)
{
    if (geom == NULL) {
        const dr_tensor w = flat(&b->delta);
        return dr_linear(cx, &(dr_linear_args){.x = x, .w = &w, .y = y, .mode = DR_ADD});
    }
    const dr_frame f = dr_frame_begin(cx);
    dr_tensor part = dr_new_like(cx, f, y);
    dr_status st =
        dr_conv2d(cx, &(dr_conv2d_args){.geom = *geom, .x = x, .w = &b->delta, .y = &part});
    if (st == DR_OK) {
        st = dr_add(cx, &(dr_add_args){.alpha = 1.0F, .beta = 1.0F, .x = &part, .z = y, .y = y});
    }
    dr_frame_end(cx, f);
    return st;
}

dr_status dr_hadamard_forward(dr_context *cx, const dr_adapter *a, const dr_conv2d_geom *geom,
                              const dr_tensor *x, dr_tensor *y)
{
    const dr_frame f = dr_frame_begin(cx);
    built b = built_new(cx, f, a);
    dr_status st = build(cx, a, &b);
    if (st == DR_OK) {
        st = apply(cx, geom, &b, x, y);
    }
    dr_frame_end(cx, f);
    return st;
}

/* dD = dy' x */
static dr_status delta_gradient(dr_context *cx, const dr_adapter *a, const dr_conv2d_geom *geom,
                                const dr_tensor *x, const dr_tensor *dy, dr_tensor *dd)
{
    DR_TRY(dr_zero(cx, dd));
    if (geom != NULL) {
        DR_TRY(dr_conv2d_dw(cx, &(dr_conv2d_dw_args){.geom = *geom, .dy = dy, .x = x, .dw = dd}));
    } else {
        dr_tensor w = flat(dd);
        DR_TRY(dr_linear_dw(cx, &(dr_linear_dw_args){.dy = dy, .x = x, .dw = &w}));
    }
    return scale(cx, a, dd);
}

/* Of one pair, dp = dD * other product: dB += dp A', dA += B' dp. */
static dr_status pair_gradients(dr_context *cx, const dr_param *up, const dr_param *down,
                                const dr_tensor *dp)
{
    if (up->grad.data == NULL || down->grad.data == NULL) {
        return DR_OK;
    }
    const dr_tensor b = flat(&up->value);
    const dr_tensor a = flat(&down->value);
    dr_tensor db = flat(&up->grad);
    dr_tensor da = flat(&down->grad);
    DR_TRY(dr_linear(cx, &(dr_linear_args){.x = dp, .w = &a, .y = &db, .mode = DR_ADD}));
    return dr_linear_dw(cx, &(dr_linear_dw_args){.dy = &b, .x = dp, .dw = &da});
}

static dr_status factor_gradients(dr_context *cx, const dr_adapter *a, const built *b,
                                  const dr_tensor *dd)
{
    const dr_frame f = dr_frame_begin(cx);
    dr_tensor dp = dr_new_like(cx, f, &b->first);
    dr_status st = multiply(cx, b, dd, &b->second, &dp);
    if (st == DR_OK) {
        st = pair_gradients(cx, a->up, a->down, &dp);
    }
    if (st == DR_OK) {
        st = multiply(cx, b, dd, &b->first, &dp);
    }
    if (st == DR_OK) {
        st = pair_gradients(cx, a->up2, a->down2, &dp);
    }
    dr_frame_end(cx, f);
    return st;
}

static dr_status input_gradient(dr_context *cx, const dr_conv2d_geom *geom, const built *b,
                                const dr_tensor *dy, dr_tensor *dx)
{
    if (dx == NULL) {
        return DR_OK;
    }
    if (geom != NULL) {
        return dr_conv2d_dx(cx,
                            &(dr_conv2d_dx_args){
                                .geom = *geom, .dy = dy, .w = &b->delta, .dx = dx, .mode = DR_ADD});
    }
    const dr_tensor w = flat(&b->delta);
    return dr_linear_dx(cx, &(dr_linear_dx_args){.dy = dy, .w = &w, .dx = dx, .mode = DR_ADD});
}

dr_status dr_hadamard_backward(dr_context *cx, const dr_adapter *a, const dr_conv2d_geom *geom,
                               const dr_tensor *x, const dr_tensor *dy, dr_tensor *dx)
{
    const dr_frame f = dr_frame_begin(cx);
    built b = built_new(cx, f, a);
    dr_tensor dd = dr_new_like(cx, f, &b.delta);
    dr_status st = build(cx, a, &b);
    if (st == DR_OK) {
        st = input_gradient(cx, geom, &b, dy, dx);
    }
    if (st == DR_OK && a->up->grad.data != NULL) {
        st = delta_gradient(cx, a, geom, x, dy, &dd);
        st = st == DR_OK ? factor_gradients(cx, a, &b, &dd) : st;
    }
    dr_frame_end(cx, f);
    return st;
}
