#include "nn/adapter_internal.h"
#include "ops/cast.h"
#include "ops/linear.h"
#include "ops/pointwise.h"

dr_tensor dr_flat(const dr_tensor *t)
{
    return dr_reshape(t, 2, DR_DIMS(t->dim[0], dr_numel(t) / t->dim[0]));
}

dr_status dr_times(dr_context *wide, const dr_tensor *x, const dr_tensor *t, dr_tensor *y)
{
    const dr_tensor flat = dr_flat(x);
    const dr_tensor rows = dr_reshape(x, 3, DR_DIMS(flat.dim[0], 1, flat.dim[1]));
    const dr_tensor by = dr_reshape(t, 2, flat.dim);
    dr_tensor out = dr_reshape(y, 3, rows.dim);
    return dr_multiply(wide, &(dr_multiply_args){.x = &rows, .t = &by, .y = &out});
}

/* ---- parameters in the compute dtype --------------------------------------------------------- */

dr_status dr_operand_open(dr_context *wide, dr_frame f, const dr_param *p, bool grad,
                          dr_operand *out)
{
    *out = (dr_operand){.p = p};
    if (p == NULL) {
        return DR_OK;
    }
    out->value = p->master;
    if (p->master.dtype != wide->dtype) {
        out->value = dr_new(wide, f, p->master.rank, p->master.dim);
        DR_TRY(dr_cast(wide, &(dr_cast_args){.x = &p->master, .y = &out->value}));
    }
    if (!grad || p->grad.data == NULL) {
        return DR_OK;
    }
    out->grad = p->grad;
    if (p->grad.dtype != wide->dtype) {
        out->grad = dr_new(wide, f, p->grad.rank, p->grad.dim);
        return dr_zero(wide, &out->grad);
    }
    return DR_OK;
}

dr_status dr_operand_close(dr_context *wide, const dr_operand *o)
{
    if (o->p == NULL || o->grad.data == NULL || o->p->grad.dtype == wide->dtype) {
        return DR_OK;
    }
    const dr_frame f = dr_frame_begin(wide);
    dr_tensor sum = dr_new(wide, f, o->grad.rank, o->grad.dim);
    dr_tensor narrow = o->p->grad;
    dr_status st = dr_cast(wide, &(dr_cast_args){.x = &narrow, .y = &sum});
    if (st == DR_OK) {
        st = dr_add(
            wide, &(dr_add_args){.alpha = 1.0F, .beta = 1.0F, .x = &o->grad, .z = &sum, .y = &sum});
    }
    if (st == DR_OK) {
        st = dr_cast(wide, &(dr_cast_args){.x = &sum, .y = &narrow});
    }
    dr_frame_end(wide, f);
    return st;
}

/* ---- products -------------------------------------------------------------------------------- */

static bool drops_ranks(const dr_context *wide, const dr_adapter *a)
{
    return a->kind == DR_ADAPTER_FACTORS && dr_adapter_drops(wide, a, a->dropout.ranks);
}

/* Ranks are the rows of inner. */
static dr_status drop_ranks(dr_context *wide, const dr_adapter *a, dr_tensor *inner)
{
    const dr_adapter_mask mask = {DR_RANDOM_ADAPTER_RANKS, a->dropout.ranks, 1.0F, inner->dim[0],
                                  1};
    return drops_ranks(wide, a) ? dr_adapter_drop(wide, a, mask, inner) : DR_OK;
}

/* C as (R window, R'). */
static dr_tensor core_matrix(const dr_tensor *core)
{
    const int64_t last = core->dim[core->rank - 1];
    return dr_reshape(core, 2, DR_DIMS(dr_numel(core) / last, last));
}

/* inner = C A, or a copy of A: as (R window, inputs). */
static dr_status build_inner(dr_context *wide, dr_frame f, const dr_adapter *a, dr_product *p)
{
    const dr_tensor down = dr_flat(&p->down.value);
    p->inner_is_down = p->core.p == NULL && !drops_ranks(wide, a);
    if (p->inner_is_down) {
        p->inner = down;
        return DR_OK;
    }
    if (p->core.p == NULL) {
        p->inner = dr_new(wide, f, 2, down.dim);
        DR_TRY(dr_add(wide, &(dr_add_args){.alpha = 1.0F, .x = &down, .y = &p->inner}));
        return drop_ranks(wide, a, &p->inner);
    }
    const dr_tensor core = core_matrix(&p->core.value);
    const int64_t rank = p->core.value.dim[0];
    p->inner = dr_new(wide, f, 2, DR_DIMS(rank, core.dim[0] / rank * down.dim[1]));
    dr_tensor rows = dr_reshape(&p->inner, 2, DR_DIMS(core.dim[0], down.dim[1]));
    DR_TRY(dr_linear_dx(
        wide, &(dr_linear_dx_args){.dy = &core, .w = &down, .dx = &rows, .mode = DR_SET}));
    return drop_ranks(wide, a, &p->inner);
}

dr_status dr_product_build(dr_context *wide, dr_frame f, const dr_adapter *a,
                           const dr_adapter_pair *pair, bool grad, dr_product *p)
{
    *p = (dr_product){.up_is_transposed = pair->up_is_transposed};
    DR_TRY(dr_operand_open(wide, f, pair->up, grad, &p->up));
    DR_TRY(dr_operand_open(wide, f, pair->down, grad, &p->down));
    DR_TRY(dr_operand_open(wide, f, pair->core, grad, &p->core));
    DR_TRY(build_inner(wide, f, a, p));
    const dr_tensor up = dr_flat(&p->up.value);
    const int64_t rows = up.dim[p->up_is_transposed ? 1 : 0];
    p->value = dr_new(wide, f, 2, DR_DIMS(rows, p->inner.dim[1]));
    if (!p->up_is_transposed) {
        return dr_linear_dx(
            wide, &(dr_linear_dx_args){.dy = &up, .w = &p->inner, .dx = &p->value, .mode = DR_SET});
    }
    DR_TRY(dr_zero(wide, &p->value));
    return dr_linear_dw(wide, &(dr_linear_dw_args){.dy = &up, .x = &p->inner, .dw = &p->value});
}

static dr_status up_gradient(dr_context *wide, const dr_product *p, const dr_tensor *dvalue)
{
    if (p->up.grad.data == NULL) {
        return DR_OK;
    }
    dr_tensor dup = dr_flat(&p->up.grad);
    const dr_tensor *x = p->up_is_transposed ? &p->inner : dvalue;
    const dr_tensor *w = p->up_is_transposed ? dvalue : &p->inner;
    return dr_linear(wide, &(dr_linear_args){.x = x, .w = w, .y = &dup, .mode = DR_ADD});
}

/* dinner = or += B' dvalue */
static dr_status inner_gradient(dr_context *wide, const dr_product *p, const dr_tensor *dvalue,
                                dr_tensor *dinner)
{
    const dr_tensor up = dr_flat(&p->up.value);
    if (p->up_is_transposed) {
        return dr_linear_dx(
            wide, &(dr_linear_dx_args){.dy = &up, .w = dvalue, .dx = dinner, .mode = DR_ADD});
    }
    return dr_linear_dw(wide, &(dr_linear_dw_args){.dy = &up, .x = dvalue, .dw = dinner});
}

/* dC += dinner A', dA += C' dinner; without a core dA += dinner. */
static dr_status core_gradients(dr_context *wide, const dr_product *p, dr_tensor *dinner)
{
    const dr_tensor down = dr_flat(&p->down.value);
    dr_tensor ddown = p->down.grad.data != NULL ? dr_flat(&p->down.grad) : (dr_tensor){0};
    if (p->core.p == NULL) {
        return ddown.data == NULL
                   ? DR_OK
                   : dr_add(
                         wide,
                         &(dr_add_args){
                             .alpha = 1.0F, .beta = 1.0F, .x = dinner, .z = &ddown, .y = &ddown});
    }
    const dr_tensor core = core_matrix(&p->core.value);
    const dr_tensor rows = dr_reshape(dinner, 2, DR_DIMS(core.dim[0], down.dim[1]));
    if (p->core.grad.data != NULL) {
        dr_tensor dcore = core_matrix(&p->core.grad);
        DR_TRY(dr_linear(wide,
                         &(dr_linear_args){.x = &rows, .w = &down, .y = &dcore, .mode = DR_ADD}));
    }
    return ddown.data == NULL
               ? DR_OK
               : dr_linear_dw(wide, &(dr_linear_dw_args){.dy = &core, .x = &rows, .dw = &ddown});
}

dr_status dr_product_backward(dr_context *wide, const dr_adapter *a, const dr_product *p,
                              const dr_tensor *dvalue)
{
    DR_TRY(up_gradient(wide, p, dvalue));
    if (p->inner_is_down) {
        dr_tensor ddown = p->down.grad.data != NULL ? dr_flat(&p->down.grad) : (dr_tensor){0};
        return ddown.data != NULL ? inner_gradient(wide, p, dvalue, &ddown) : DR_OK;
    }
    const dr_frame f = dr_frame_begin(wide);
    dr_tensor dinner = dr_new_like(wide, f, &p->inner);
    dr_status st = dr_zero(wide, &dinner);
    if (st == DR_OK) {
        st = inner_gradient(wide, p, dvalue, &dinner);
    }
    if (st == DR_OK) {
        st = drop_ranks(wide, a, &dinner);
    }
    if (st == DR_OK) {
        st = core_gradients(wide, p, &dinner);
    }
    dr_frame_end(wide, f);
    return st;
}

dr_status dr_product_close(dr_context *wide, const dr_product *p)
{
    DR_TRY(dr_operand_close(wide, &p->up));
    DR_TRY(dr_operand_close(wide, &p->down));
    return dr_operand_close(wide, &p->core);
}
