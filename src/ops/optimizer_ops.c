#include "ops/optimizer_ops.h"

#include "ops/ops_internal.h"

static void check_sums(const char *op, const dr_tensor *sums)
{
    dr_ops_check_shape(op, "sums", sums, DR_F64, 1, DR_DIMS(3));
}

dr_status dr_sumsq(dr_context *cx, const dr_sumsq_args *a)
{
    DR_CHECK(a->x != NULL && a->x->data != NULL, "sumsq: x is missing");
    dr_ops_check_shape("sumsq", "out", a->out, DR_F64, 1, DR_DIMS(1));
    DR_DISPATCH(cx, sumsq, a);
}

dr_status dr_checksum(dr_context *cx, const dr_checksum_args *a)
{
    DR_CHECK(a->x != NULL && a->x->data != NULL, "checksum: x is missing");
    DR_CHECK(dr_dtype_size(a->x->dtype) == 4 || dr_dtype_size(a->x->dtype) == 2,
             "checksum: x is of %s", dr_dtype_name(a->x->dtype));
    dr_ops_check_shape("checksum", "out", a->out, DR_F64, 1, DR_DIMS(DR_CHECKSUM_PARTS));
    DR_DISPATCH(cx, checksum, a);
}

dr_status dr_adamw(dr_context *cx, const dr_adamw_args *a)
{
    dr_ops_check_activation(cx, "adamw", "p", a->p);
    dr_ops_check_same("adamw", "g", a->g, a->p);
    dr_ops_check_same("adamw", "m", a->m, a->p);
    dr_ops_check_same("adamw", "v", a->v, a->p);
    DR_CHECK(a->step >= 1, "adamw: step %lld", (long long)a->step);
    DR_DISPATCH(cx, adamw, a);
}

dr_status dr_lerp(dr_context *cx, const dr_lerp_args *a)
{
    dr_ops_check_activation(cx, "lerp", "y", a->y);
    dr_ops_check_same("lerp", "x", a->x, a->y);
    DR_DISPATCH(cx, lerp, a);
}

dr_status dr_lion(dr_context *cx, const dr_lion_args *a)
{
    dr_ops_check_activation(cx, "lion", "p", a->p);
    dr_ops_check_same("lion", "g", a->g, a->p);
    dr_ops_check_same("lion", "m", a->m, a->p);
    DR_CHECK((a->s == NULL) == (a->sums == NULL), "lion: s and sums belong together");
    if (a->s != NULL) {
        dr_ops_check_same("lion", "s", a->s, a->p);
        check_sums("lion", a->sums);
    }
    DR_DISPATCH(cx, lion, a);
}

dr_status dr_momentum(dr_context *cx, const dr_momentum_args *a)
{
    dr_ops_check_activation(cx, "momentum", "p", a->p);
    dr_ops_check_same("momentum", "g", a->g, a->p);
    dr_ops_check_same("momentum", "m", a->m, a->p);
    DR_DISPATCH(cx, momentum, a);
}

dr_status dr_dadapt(dr_context *cx, const dr_dadapt_args *a)
{
    dr_ops_check_activation(cx, "dadapt", "p", a->p);
    dr_ops_check_same("dadapt", "g", a->g, a->p);
    dr_ops_check_same("dadapt", "m", a->m, a->p);
    dr_ops_check_same("dadapt", "v", a->v, a->p);
    dr_ops_check_same("dadapt", "s", a->s, a->p);
    DR_CHECK((a->p0 != NULL) == (a->kind == DR_DADAPT_PRODIGY), "dadapt: p0 is Prodigy's");
    if (a->p0 != NULL) {
        dr_ops_check_same("dadapt", "p0", a->p0, a->p);
    }
    check_sums("dadapt", a->sums);
    DR_DISPATCH(cx, dadapt, a);
}

dr_status dr_adam_apply(dr_context *cx, const dr_adam_apply_args *a)
{
    dr_ops_check_activation(cx, "adam_apply", "p", a->p);
    dr_ops_check_same("adam_apply", "m", a->m, a->p);
    dr_ops_check_same("adam_apply", "v", a->v, a->p);
    DR_DISPATCH(cx, adam_apply, a);
}

dr_status dr_schedule_free(dr_context *cx, const dr_schedule_free_args *a)
{
    dr_ops_check_activation(cx, "schedule_free", "y", a->y);
    dr_ops_check_same("schedule_free", "z", a->z, a->y);
    dr_ops_check_same("schedule_free", "g", a->g, a->y);
    if (a->v != NULL) {
        dr_ops_check_same("schedule_free", "v", a->v, a->y);
    }
    DR_CHECK(a->v != NULL || !a->normalized, "schedule_free: normalizing needs v");
    DR_DISPATCH(cx, schedule_free, a);
}

static void check_factored(const dr_context *cx, const char *op, const dr_factored *f,
                           const dr_tensor *g)
{
    dr_ops_check_activation(cx, op, "g", g);
    if (f->v != NULL) {
        dr_ops_check_same(op, "v", f->v, g);
        return;
    }
    DR_CHECK(f->outer * f->a * f->b * f->inner == dr_numel(g), "%s: factors of another size", op);
    dr_ops_check_vector(cx, op, "row", f->row, f->outer * f->a * f->inner);
    dr_ops_check_vector(cx, op, "col", f->col, f->outer * f->b * f->inner);
}

dr_status dr_adafactor_moments(dr_context *cx, const dr_adafactor_moments_args *a)
{
    check_factored(cx, "adafactor_moments", &a->f, a->g);
    DR_DISPATCH(cx, adafactor_moments, a);
}

dr_status dr_adafactor_sums(dr_context *cx, const dr_adafactor_sums_args *a)
{
    check_factored(cx, "adafactor_sums", &a->f, a->g);
    dr_ops_check_same("adafactor_sums", "p", a->p, a->g);
    check_sums("adafactor_sums", a->sums);
    DR_DISPATCH(cx, adafactor_sums, a);
}

dr_status dr_adafactor_apply(dr_context *cx, const dr_adafactor_apply_args *a)
{
    check_factored(cx, "adafactor_apply", &a->f, a->g);
    dr_ops_check_same("adafactor_apply", "p", a->p, a->g);
    if (a->m != NULL) {
        dr_ops_check_same("adafactor_apply", "m", a->m, a->g);
    }
    check_sums("adafactor_apply", a->sums);
    DR_DISPATCH(cx, adafactor_apply, a);
}

/* A state and its scales: U8 with one F32 per block, or plain. */
static void check_block_state(const dr_context *cx, const char *name, const dr_tensor *state,
                              const dr_tensor *absmax, int64_t n)
{
    const bool coded = absmax != NULL;
    const int64_t blocks = (n + DR_BLOCKWISE_BLOCK - 1) / DR_BLOCKWISE_BLOCK;
    dr_ops_check_shape("blockwise", name, state, coded ? DR_U8 : cx->backend->compute, 1, &n);
    if (coded) {
        dr_ops_check_shape("blockwise", "absmax", absmax, DR_F32, 1, &blocks);
    }
}

static void check_blockwise(const dr_context *cx, const dr_blockwise_args *a)
{
    dr_ops_check_activation(cx, "blockwise", "p", a->p);
    dr_ops_check_same("blockwise", "g", a->g, a->p);
    check_block_state(cx, "state1", a->state1, a->absmax1, dr_numel(a->p));
    DR_CHECK((a->state2 != NULL) == (a->kind == DR_BLOCKWISE_ADAM), "blockwise: states of Adam");
    if (a->state2 != NULL) {
        check_block_state(cx, "state2", a->state2, a->absmax2, dr_numel(a->p));
    }
    DR_CHECK(a->step >= 1, "blockwise: step %lld", (long long)a->step);
}

dr_status dr_blockwise(dr_context *cx, const dr_blockwise_args *a)
{
    check_blockwise(cx, a);
    DR_DISPATCH(cx, blockwise, a);
}

static bool same_settings(const dr_blockwise_args *a, const dr_blockwise_args *b)
{
    return a->kind == b->kind && a->lr == b->lr && a->beta1 == b->beta1 && a->beta2 == b->beta2 &&
           a->eps == b->eps && a->weight_decay == b->weight_decay &&
           a->grad_scale == b->grad_scale && a->step == b->step;
}

dr_status dr_blockwise_all(dr_context *cx, const dr_blockwise_args *a, size_t n)
{
    const bool at_once = cx->backend->blockwise_all != NULL && !cx->dry;
    for (size_t i = 0; i < n; i++) {
        DR_CHECK(same_settings(&a[i], a), "blockwise: tensor %zu has other settings", i);
        if (at_once) {
            check_blockwise(cx, &a[i]);
        } else {
            DR_TRY(dr_blockwise(cx, &a[i]));
        }
    }
    return at_once ? cx->backend->blockwise_all(cx, a, n) : DR_OK;
}
