#include "nn/adapter.h"

#include "nn/adapter_internal.h"
#include "ops/linear.h"
#include "ops/pointwise.h"

int dr_adapter_params(const dr_adapter *a, dr_param *out[DR_ADAPTER_PARAMS])
{
    dr_param *const all[] = {a->pair[0].down, a->pair[0].up,   a->pair[0].core, a->pair[1].down,
                             a->pair[1].up,   a->pair[1].core, a->whole[0],     a->whole[1],
                             a->scalar,       a->magnitude};
    int n = 0;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (all[i] != NULL) {
            DR_CHECK(n < DR_ADAPTER_PARAMS, "too many parameters for one adapter");
            out[n++] = all[i];
        }
    }
    return n;
}

bool dr_adapter_is_trained(const dr_adapter *a)
{
    dr_param *all[DR_ADAPTER_PARAMS];
    const int n = dr_adapter_params(a, all);
    for (int i = 0; i < n; i++) {
        if (all[i]->grad.data != NULL) {
            return true;
        }
    }
    return false;
}

bool dr_param_is_trained(const dr_param *p)
{
    const dr_adapter *a = p->adapter;
    return p->grad.data != NULL || (a != NULL && dr_adapter_is_trained(a));
}

bool dr_weight_reads_input(const dr_param *w)
{
    return dr_param_is_trained(w);
}

/* ---- dropout --------------------------------------------------------------------------------- */

bool dr_adapter_drops(const dr_context *cx, const dr_adapter *a, float chance)
{
    return chance > 0.0F && (cx->dry || a->dropout.active);
}

dr_status dr_adapter_drop(dr_context *cx, const dr_adapter *a, dr_adapter_mask mask, dr_tensor *x)
{
    const dr_adapter_dropout *d = &a->dropout;
    return dr_dropout(cx, &(dr_dropout_args){.x = x,
                                             .y = x,
                                             .outer = mask.outer,
                                             .inner = mask.inner,
                                             .chance = mask.chance,
                                             .scale = mask.scale,
                                             .seed = d->seed,
                                             .purpose = mask.purpose,
                                             .time = d->time,
                                             .item = d->item});
}

/* Of down(x), or of its gradient. */
static dr_status drop_inner(dr_context *cx, const dr_adapter *a, dr_tensor *inner)
{
    const dr_adapter_dropout *d = &a->dropout;
    if (dr_adapter_drops(cx, a, d->elements)) {
        const dr_adapter_mask mask = {DR_RANDOM_ADAPTER_ELEMENTS, d->elements,
                                      1.0F / (1.0F - d->elements), 1, dr_numel(inner)};
        DR_TRY(dr_adapter_drop(cx, a, mask, inner));
    }
    if (!dr_adapter_drops(cx, a, d->ranks)) {
        return DR_OK;
    }
    const dr_adapter_mask mask = {DR_RANDOM_ADAPTER_RANKS, d->ranks,
                                  d->by_sample ? 1.0F / (1.0F - d->ranks) : 1.0F,
                                  d->by_sample ? inner->dim[0] : 1, dr_cols(inner)};
    return dr_adapter_drop(cx, a, mask, inner);
}

/* Of what is added, or of its gradient. */
static dr_status drop_output(dr_context *cx, const dr_adapter *a, dr_tensor *part)
{
    const float chance = a->dropout.output;
    const dr_adapter_mask mask = {DR_RANDOM_ADAPTER_OUTPUT, chance, 1.0F / (1.0F - chance), 1,
                                  dr_numel(part)};
    return dr_adapter_drop(cx, a, mask, part);
}

/* ---- plain factors --------------------------------------------------------------------------- */

static dr_tensor as_matrix(const dr_tensor *w)
{
    return dr_reshape(w, 2, DR_DIMS(w->dim[0], w->dim[w->rank - 1]));
}

/* (..., R) over the leading sizes of y (..., O). */
static dr_tensor inner_tensor(dr_context *cx, dr_frame f, const dr_adapter *a, const dr_tensor *y)
{
    int64_t dim[DR_MAX_RANK];
    for (int i = 0; i < y->rank; i++) {
        dim[i] = y->dim[i];
    }
    dim[y->rank - 1] = a->pair[0].down->dim[0];
    return dr_new(cx, f, y->rank, dim);
}

/* inner = s down(x), with dropout. */
static dr_status apply_down(dr_context *cx, const dr_layer_call *l, dr_tensor *inner)
{
    const dr_tensor *down = &l->a->pair[0].down->value;
    if (l->geom != NULL) {
        DR_TRY(
            dr_conv2d(cx, &(dr_conv2d_args){.geom = *l->geom, .x = l->x, .w = down, .y = inner}));
    } else {
        const dr_tensor w = as_matrix(down);
        DR_TRY(dr_linear(cx, &(dr_linear_args){.x = l->x, .w = &w, .y = inner, .mode = DR_SET}));
    }
    DR_TRY(drop_inner(cx, l->a, inner));
    return dr_add(cx, &(dr_add_args){.alpha = l->a->scale, .x = inner, .y = inner});
}

static dr_status factors_forward(dr_context *cx, const dr_layer_call *l, dr_tensor *y)
{
    const dr_frame f = dr_frame_begin(cx);
    dr_tensor inner = inner_tensor(cx, f, l->a, y);
    const dr_tensor up = as_matrix(&l->a->pair[0].up->value);
    dr_status st = apply_down(cx, l, &inner);
    if (st == DR_OK) {
        st = dr_linear(cx, &(dr_linear_args){.x = &inner, .w = &up, .y = y, .mode = DR_ADD});
    }
    dr_frame_end(cx, f);
    return st;
}

/* dB += dy' (s x A') */
static dr_status up_gradient(dr_context *cx, const dr_layer_call *l, const dr_tensor *dy)
{
    const dr_param *up = l->a->pair[0].up;
    if (up->grad.data == NULL) {
        return DR_OK;
    }
    const dr_frame f = dr_frame_begin(cx);
    dr_tensor inner = inner_tensor(cx, f, l->a, dy);
    dr_tensor dw = as_matrix(&up->grad);
    dr_status st = apply_down(cx, l, &inner);
    if (st == DR_OK) {
        st = dr_linear_dw(cx, &(dr_linear_dw_args){.dy = dy, .x = &inner, .dw = &dw});
    }
    dr_frame_end(cx, f);
    return st;
}

/* dA += dinner' x; dx += dinner A */
static dr_status down_gradients(dr_context *cx, const dr_layer_call *l, const dr_tensor *dinner,
                                dr_tensor *dx)
{
    dr_param *down = l->a->pair[0].down;
    const bool trained = down->grad.data != NULL;
    if (l->geom != NULL) {
        if (trained) {
            DR_TRY(dr_conv2d_dw(cx,
                                &(dr_conv2d_dw_args){
                                    .geom = *l->geom, .dy = dinner, .x = l->x, .dw = &down->grad}));
        }
        return dx == NULL ? DR_OK
                          : dr_conv2d_dx(cx, &(dr_conv2d_dx_args){.geom = *l->geom,
                                                                  .dy = dinner,
                                                                  .w = &down->value,
                                                                  .dx = dx,
                                                                  .mode = DR_ADD});
    }
    const dr_tensor w = as_matrix(&down->value);
    if (trained) {
        dr_tensor dw = as_matrix(&down->grad);
        DR_TRY(dr_linear_dw(cx, &(dr_linear_dw_args){.dy = dinner, .x = l->x, .dw = &dw}));
    }
    return dx == NULL ? DR_OK
                      : dr_linear_dx(cx, &(dr_linear_dx_args){
                                             .dy = dinner, .w = &w, .dx = dx, .mode = DR_ADD});
}

static dr_status factors_backward(dr_context *cx, const dr_layer_call *l, const dr_tensor *dy,
                                  dr_tensor *dx)
{
    DR_TRY(up_gradient(cx, l, dy));
    const dr_frame f = dr_frame_begin(cx);
    dr_tensor dinner = inner_tensor(cx, f, l->a, dy);
    const dr_tensor up = as_matrix(&l->a->pair[0].up->value);
    dr_status st =
        dr_linear_dx(cx, &(dr_linear_dx_args){.dy = dy, .w = &up, .dx = &dinner, .mode = DR_SET});
    if (st == DR_OK) {
        st = drop_inner(cx, l->a, &dinner);
    }
    if (st == DR_OK) {
        st = dr_add(cx, &(dr_add_args){.alpha = l->a->scale, .x = &dinner, .y = &dinner});
    }
    if (st == DR_OK) {
        st = down_gradients(cx, l, &dinner, dx);
    }
    dr_frame_end(cx, f);
    return st;
}

/* ---- all kinds ------------------------------------------------------------------------------- */

static dr_status add_to(dr_context *cx, const dr_layer_call *l, dr_tensor *y)
{
    return dr_adapter_forms_delta(l->a) ? dr_delta_forward(cx, l, y) : factors_forward(cx, l, y);
}

static dr_status forward(dr_context *cx, const dr_layer_call *l, dr_tensor *y)
{
    if (l->a->dropped) {
        return DR_OK;
    }
    if (!dr_adapter_drops(cx, l->a, l->a->dropout.output)) {
        return add_to(cx, l, y);
    }
    const dr_frame f = dr_frame_begin(cx);
    dr_tensor part = dr_new_like(cx, f, y);
    dr_status st = dr_zero(cx, &part);
    if (st == DR_OK) {
        st = add_to(cx, l, &part);
    }
    if (st == DR_OK) {
        st = drop_output(cx, l->a, &part);
    }
    if (st == DR_OK) {
        st = dr_add(cx, &(dr_add_args){.alpha = 1.0F, .beta = 1.0F, .x = &part, .z = y, .y = y});
    }
    dr_frame_end(cx, f);
    return st;
}

static dr_status gradients(dr_context *cx, const dr_layer_call *l, const dr_tensor *dy,
                           dr_tensor *dx)
{
    return dr_adapter_forms_delta(l->a) ? dr_delta_backward(cx, l, dy, dx)
                                        : factors_backward(cx, l, dy, dx);
}

static dr_status backward(dr_context *cx, const dr_layer_call *l, const dr_tensor *dy,
                          dr_tensor *dx)
{
    if (l->a->dropped) {
        return DR_OK;
    }
    if (!dr_adapter_drops(cx, l->a, l->a->dropout.output)) {
        return gradients(cx, l, dy, dx);
    }
    const dr_frame f = dr_frame_begin(cx);
    dr_tensor part = dr_new_like(cx, f, dy);
    dr_status st = dr_add(cx, &(dr_add_args){.alpha = 1.0F, .x = dy, .y = &part});
    if (st == DR_OK) {
        st = drop_output(cx, l->a, &part);
    }
    if (st == DR_OK) {
        st = gradients(cx, l, &part, dx);
    }
    dr_frame_end(cx, f);
    return st;
}

dr_status dr_adapter_linear(dr_context *cx, const dr_adapter *a, const dr_tensor *x, dr_tensor *y)
{
    return forward(cx, &(dr_layer_call){.a = a, .x = x}, y);
}

dr_status dr_adapter_linear_backward(dr_context *cx, const dr_adapter *a, const dr_tensor *x,
                                     const dr_tensor *dy, dr_tensor *dx)
{
    return backward(cx, &(dr_layer_call){.a = a, .x = x}, dy, dx);
}

dr_status dr_adapter_conv(dr_context *cx, const dr_adapter *a, const dr_conv2d_geom *geom,
                          const dr_tensor *x, dr_tensor *y)
{
    return forward(cx, &(dr_layer_call){.a = a, .geom = geom, .x = x}, y);
}

dr_status dr_adapter_conv_backward(dr_context *cx, const dr_adapter *a, const dr_conv2d_geom *geom,
                                   const dr_tensor *x, const dr_tensor *dy, dr_tensor *dx)
{
    return backward(cx, &(dr_layer_call){.a = a, .geom = geom, .x = x}, dy, dx);
}
