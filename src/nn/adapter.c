#include "nn/adapter.h"

#include "nn/adapter_hadamard.h"
#include "ops/linear.h"
#include "ops/pointwise.h"

/* All factors of an adapter are trained, or none. */
static bool adapter_is_trained(const dr_adapter *a)
{
    return a->down->grad.data != NULL || a->up->grad.data != NULL;
}

bool dr_param_is_trained(const dr_param *p)
{
    const dr_adapter *a = p->adapter;
    return p->grad.data != NULL || (a != NULL && adapter_is_trained(a));
}

bool dr_weight_reads_input(const dr_param *w)
{
    return dr_param_is_trained(w);
}

static dr_tensor as_matrix(const dr_tensor *w)
{
    return dr_reshape(w, 2, DR_DIMS(w->dim[0], w->dim[w->rank - 1]));
}

static int64_t rank_of(const dr_adapter *a)
{
    return a->down->dim[0];
}

/* (..., R) over the leading sizes of y (..., O). */
static dr_tensor inner_tensor(dr_context *cx, dr_frame f, const dr_adapter *a, const dr_tensor *y)
{
    int64_t dim[DR_MAX_RANK];
    for (int i = 0; i < y->rank; i++) {
        dim[i] = y->dim[i];
    }
    dim[y->rank - 1] = rank_of(a);
    return dr_new(cx, f, y->rank, dim);
}

/* geom NULL: a linear layer. */
static dr_status apply_down(dr_context *cx, const dr_adapter *a, const dr_conv2d_geom *geom,
                            const dr_tensor *x, dr_tensor *inner)
{
    if (geom != NULL) {
        return dr_conv2d(
            cx, &(dr_conv2d_args){.geom = *geom, .x = x, .w = &a->down->value, .y = inner});
    }
    const dr_tensor w = as_matrix(&a->down->value);
    return dr_linear(cx, &(dr_linear_args){.x = x, .w = &w, .y = inner, .mode = DR_SET});
}

/* inner = s inner */
static dr_status scale(dr_context *cx, const dr_adapter *a, dr_tensor *inner)
{
    return dr_add(cx, &(dr_add_args){.alpha = a->scale, .x = inner, .y = inner});
}

static dr_status forward(dr_context *cx, const dr_adapter *a, const dr_conv2d_geom *geom,
                         const dr_tensor *x, dr_tensor *y)
{
    if (a->dropped) {
        return DR_OK;
    }
    const dr_frame f = dr_frame_begin(cx);
    dr_tensor inner = inner_tensor(cx, f, a, y);
    const dr_tensor up = as_matrix(&a->up->value);
    dr_status st = apply_down(cx, a, geom, x, &inner);
    if (st == DR_OK) {
        st = scale(cx, a, &inner);
    }
    if (st == DR_OK) {
        st = dr_linear(cx, &(dr_linear_args){.x = &inner, .w = &up, .y = y, .mode = DR_ADD});
    }
    dr_frame_end(cx, f);
    return st;
}

/* dB += dy' (s x A') */
static dr_status up_gradient(dr_context *cx, const dr_adapter *a, const dr_conv2d_geom *geom,
                             const dr_tensor *x, const dr_tensor *dy)
{
    if (a->up->grad.data == NULL) {
        return DR_OK;
    }
    const dr_frame f = dr_frame_begin(cx);
    dr_tensor inner = inner_tensor(cx, f, a, dy);
    dr_tensor dw = as_matrix(&a->up->grad);
    dr_status st = apply_down(cx, a, geom, x, &inner);
    if (st == DR_OK) {
        st = scale(cx, a, &inner);
    }
    if (st == DR_OK) {
        st = dr_linear_dw(cx, &(dr_linear_dw_args){.dy = dy, .x = &inner, .dw = &dw});
    }
    dr_frame_end(cx, f);
    return st;
}

/* dA += dinner' x; dx += dinner A */
static dr_status down_gradients(dr_context *cx, const dr_adapter *a, const dr_conv2d_geom *geom,
                                const dr_tensor *x, const dr_tensor *dinner, dr_tensor *dx)
{
    const bool trained = a->down->grad.data != NULL;
    if (geom != NULL) {
        if (trained) {
            DR_TRY(dr_conv2d_dw(
                cx,
                &(dr_conv2d_dw_args){.geom = *geom, .dy = dinner, .x = x, .dw = &a->down->grad}));
        }
        return dx == NULL ? DR_OK
                          : dr_conv2d_dx(cx, &(dr_conv2d_dx_args){.geom = *geom,
                                                                  .dy = dinner,
                                                                  .w = &a->down->value,
                                                                  .dx = dx,
                                                                  .mode = DR_ADD});
    }
    const dr_tensor w = as_matrix(&a->down->value);
    if (trained) {
        dr_tensor dw = as_matrix(&a->down->grad);
        DR_TRY(dr_linear_dw(cx, &(dr_linear_dw_args){.dy = dinner, .x = x, .dw = &dw}));
    }
    return dx == NULL ? DR_OK
                      : dr_linear_dx(cx, &(dr_linear_dx_args){
                                             .dy = dinner, .w = &w, .dx = dx, .mode = DR_ADD});
}

static dr_status backward(dr_context *cx, const dr_adapter *a, const dr_conv2d_geom *geom,
                          const dr_tensor *x, const dr_tensor *dy, dr_tensor *dx)
{
    if (a->dropped) {
        return DR_OK;
    }
    DR_TRY(up_gradient(cx, a, geom, x, dy));
    const dr_frame f = dr_frame_begin(cx);
    dr_tensor dinner = inner_tensor(cx, f, a, dy);
    const dr_tensor up = as_matrix(&a->up->value);
    dr_status st =
        dr_linear_dx(cx, &(dr_linear_dx_args){.dy = dy, .w = &up, .dx = &dinner, .mode = DR_SET});
    if (st == DR_OK) {
        st = scale(cx, a, &dinner);
    }
    if (st == DR_OK) {
        st = down_gradients(cx, a, geom, x, &dinner, dx);
    }
    dr_frame_end(cx, f);
    return st;
}

dr_status dr_adapter_linear(dr_context *cx, const dr_adapter *a, const dr_tensor *x, dr_tensor *y)
{
    return a->down2 != NULL ? dr_hadamard_forward(cx, a, NULL, x, y) : forward(cx, a, NULL, x, y);
}

dr_status dr_adapter_linear_backward(dr_context *cx, const dr_adapter *a, const dr_tensor *x,
                                     const dr_tensor *dy, dr_tensor *dx)
{
    return a->down2 != NULL ? dr_hadamard_backward(cx, a, NULL, x, dy, dx)
                            : backward(cx, a, NULL, x, dy, dx);
}

dr_status dr_adapter_conv(dr_context *cx, const dr_adapter *a, const dr_conv2d_geom *geom,
                          const dr_tensor *x, dr_tensor *y)
{
    return a->down2 != NULL ? dr_hadamard_forward(cx, a, geom, x, y) : forward(cx, a, geom, x, y);
}

dr_status dr_adapter_conv_backward(dr_context *cx, const dr_adapter *a, const dr_conv2d_geom *geom,
                                   const dr_tensor *x, const dr_tensor *dy, dr_tensor *dx)
{
    return a->down2 != NULL ? dr_hadamard_backward(cx, a, geom, x, dy, dx)
                            : backward(cx, a, geom, x, dy, dx);
}
