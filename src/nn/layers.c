#include "nn/layers.h"

#include "ops/linear.h"
#include "ops/norm.h"

static dr_tensor *gradient(dr_param *p)
{
    return p != NULL && p->grad.data != NULL ? &p->grad : NULL;
}

/* True once after dr_params_begin_grads. */
static bool take_fresh(dr_param *p)
{
    const bool fresh = p->fresh;
    p->fresh = false;
    return fresh;
}

void dr_linear_init(dr_linear_layer *l, dr_params *set, const char *name, int64_t in, int64_t out,
                    bool bias)
{
    l->w = dr_params_add(set, DR_PARAM_MATRIX, 2, DR_DIMS(out, in), "%s.weight", name);
    l->w->one_writer = true;
    l->b = bias ? dr_params_add(set, DR_PARAM_VECTOR, 1, DR_DIMS(out), "%s.bias", name) : NULL;
}

void dr_linear_init_1x1(dr_linear_layer *l, dr_params *set, const char *name, int64_t in,
                        int64_t out, bool bias)
{
    l->w = dr_params_add(set, DR_PARAM_CONV, 4, DR_DIMS(out, in, 1, 1), "%s.weight", name);
    l->w->one_writer = true;
    l->b = bias ? dr_params_add(set, DR_PARAM_VECTOR, 1, DR_DIMS(out), "%s.bias", name) : NULL;
}

void dr_conv_init(dr_conv_layer *l, dr_params *set, const char *name, int64_t in, int64_t out,
                  int kernel, int stride, int pad)
{
    l->w =
        dr_params_add(set, DR_PARAM_CONV, 4, DR_DIMS(out, in, kernel, kernel), "%s.weight", name);
    l->w->one_writer = true;
    l->b = dr_params_add(set, DR_PARAM_VECTOR, 1, DR_DIMS(out), "%s.bias", name);
    l->geom = (dr_conv2d_geom){.kh = kernel,
                               .kw = kernel,
                               .stride = stride,
                               .top = pad,
                               .left = pad,
                               .bottom = pad,
                               .right = pad};
}

void dr_norm_init(dr_norm_layer *l, dr_params *set, const char *name, int64_t channels, int groups,
                  float eps, bool silu)
{
    l->w = dr_params_add(set, DR_PARAM_VECTOR, 1, DR_DIMS(channels), "%s.weight", name);
    l->b = dr_params_add(set, DR_PARAM_VECTOR, 1, DR_DIMS(channels), "%s.bias", name);
    l->groups = groups;
    l->eps = eps;
    l->silu = silu;
}

/* A 1x1 convolution's (O,1,1,I) seen as (O,I). */
static dr_tensor as_matrix(const dr_tensor *w)
{
    return dr_reshape(w, 2, DR_DIMS(w->dim[0], w->dim[w->rank - 1]));
}

dr_status dr_linear_forward(dr_context *cx, const dr_linear_layer *l, const dr_tensor *x,
                            dr_tensor *y, dr_write mode)
{
    const dr_tensor w = as_matrix(&l->w->value);
    DR_TRY(dr_linear(
        cx, &(dr_linear_args){
                .x = x, .w = &w, .b = l->b != NULL ? &l->b->value : NULL, .y = y, .mode = mode}));
    return l->w->adapter == NULL ? DR_OK : dr_adapter_linear(cx, l->w->adapter, x, y);
}

dr_status dr_linear_backward(dr_context *cx, const dr_linear_layer *l, const dr_tensor *x,
                             const dr_tensor *dy, dr_tensor *dx, dr_write mode)
{
    dr_tensor *dw = gradient(l->w);
    dr_tensor *db = gradient(l->b);
    if (dw != NULL || db != NULL) {
        dr_tensor dw_matrix = dw != NULL ? as_matrix(dw) : (dr_tensor){0};
        DR_TRY(dr_linear_dw(cx, &(dr_linear_dw_args){.dy = dy,
                                                     .x = x,
                                                     .dw = dw != NULL ? &dw_matrix : NULL,
                                                     .db = db,
                                                     .fresh = take_fresh(l->w)}));
    }
    if (dx != NULL) {
        const dr_tensor w = as_matrix(&l->w->value);
        DR_TRY(dr_linear_dx(cx, &(dr_linear_dx_args){.dy = dy, .w = &w, .dx = dx, .mode = mode}));
    }
    return l->w->adapter == NULL ? DR_OK : dr_adapter_linear_backward(cx, l->w->adapter, x, dy, dx);
}

dr_tensor dr_conv_output(dr_context *cx, dr_frame f, const dr_conv_layer *l, const dr_tensor *x)
{
    const dr_conv2d_geom *g = &l->geom;
    return dr_new(cx, f, 4,
                  DR_DIMS(x->dim[0], dr_conv2d_out(x->dim[1], g->kh, g->stride, g->top, g->bottom),
                          dr_conv2d_out(x->dim[2], g->kw, g->stride, g->left, g->right),
                          l->w->dim[0]));
}

dr_status dr_conv_forward(dr_context *cx, const dr_conv_layer *l, const dr_tensor *x, dr_tensor *y)
{
    DR_TRY(dr_conv2d(cx, &(dr_conv2d_args){.geom = l->geom,
                                           .x = x,
                                           .w = &l->w->value,
                                           .b = l->b != NULL ? &l->b->value : NULL,
                                           .y = y}));
    return l->w->adapter == NULL ? DR_OK : dr_adapter_conv(cx, l->w->adapter, &l->geom, x, y);
}

dr_status dr_conv_backward(dr_context *cx, const dr_conv_layer *l, const dr_tensor *x,
                           const dr_tensor *dy, dr_tensor *dx, dr_write mode)
{
    dr_tensor *dw = gradient(l->w);
    dr_tensor *db = gradient(l->b);
    if (dw != NULL || db != NULL) {
        DR_TRY(dr_conv2d_dw(
            cx,
            &(dr_conv2d_dw_args){
                .geom = l->geom, .dy = dy, .x = x, .dw = dw, .db = db, .fresh = take_fresh(l->w)}));
    }
    if (dx != NULL) {
        DR_TRY(dr_conv2d_dx(
            cx, &(dr_conv2d_dx_args){
                    .geom = l->geom, .dy = dy, .w = &l->w->value, .dx = dx, .mode = mode}));
    }
    return l->w->adapter == NULL ? DR_OK
                                 : dr_adapter_conv_backward(cx, l->w->adapter, &l->geom, x, dy, dx);
}

dr_tensor dr_norm_stats(dr_context *cx, dr_frame f, const dr_norm_layer *l, const dr_tensor *x)
{
    if (l->groups == 0) {
        return dr_new_typed(cx, f, cx->backend->compute, 2, DR_DIMS(dr_rows(x), 2));
    }
    return dr_new_typed(cx, f, cx->backend->compute, 3, DR_DIMS(x->dim[0], l->groups, 2));
}

dr_status dr_norm_forward(dr_context *cx, const dr_norm_layer *l, const dr_tensor *x, dr_tensor *y,
                          dr_tensor *stats)
{
    const dr_tensor *gamma = &l->w->value;
    const dr_tensor *beta = &l->b->value;
    if (l->groups == 0) {
        return dr_layernorm(
            cx, &(dr_layernorm_args){
                    .eps = l->eps, .x = x, .gamma = gamma, .beta = beta, .y = y, .stats = stats});
    }
    return dr_groupnorm(cx, &(dr_groupnorm_args){.groups = l->groups,
                                                 .eps = l->eps,
                                                 .silu = l->silu,
                                                 .x = x,
                                                 .gamma = gamma,
                                                 .beta = beta,
                                                 .y = y,
                                                 .stats = stats});
}

dr_status dr_norm_backward(dr_context *cx, const dr_norm_layer *l, const dr_tensor *x,
                           const dr_tensor *stats, const dr_tensor *dy, dr_tensor *dx,
                           dr_write mode)
{
    if (dx == NULL && gradient(l->w) == NULL) {
        return DR_OK;
    }
    if (l->groups == 0) {
        return dr_layernorm_backward(cx, &(dr_layernorm_backward_args){.dy = dy,
                                                                       .x = x,
                                                                       .gamma = &l->w->value,
                                                                       .stats = stats,
                                                                       .dx = dx,
                                                                       .mode = mode,
                                                                       .dgamma = gradient(l->w),
                                                                       .dbeta = gradient(l->b)});
    }
    return dr_groupnorm_backward(cx, &(dr_groupnorm_backward_args){.groups = l->groups,
                                                                   .silu = l->silu,
                                                                   .dy = dy,
                                                                   .x = x,
                                                                   .gamma = &l->w->value,
                                                                   .beta = &l->b->value,
                                                                   .stats = stats,
                                                                   .dx = dx,
                                                                   .mode = mode,
                                                                   .dgamma = gradient(l->w),
                                                                   .dbeta = gradient(l->b)});
}
