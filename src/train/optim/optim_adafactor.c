/*
 * transformers' Adafactor. It factors the last two axes of a file's shape: a matrix [O,I] over O
 * and I, a convolution [O,I,KH,KW] over KH and KW.
 */
#include "ops/optimizer_ops.h"
#include "train/optim/optim_internal.h"

#include <math.h>

enum { ROW, COL, WHOLE, EXP_AVG };

static dr_factored shape_of(const dr_optim_span *s)
{
    const dr_param *p = s->params[0];
    if (p->rank == 2) {
        return (dr_factored){.outer = 1, .a = p->dim[0], .b = p->dim[1], .inner = 1};
    }
    if (p->rank == 4) { /* in memory (O,KH,KW,I) */
        return (dr_factored){
            .outer = p->dim[0], .a = p->dim[2], .b = p->dim[3], .inner = p->dim[1]};
    }
    DR_CHECK(p->rank < 2, "%s has %d axes", p->name, p->rank);
    return (dr_factored){0};
}

static void describe(const dr_optimizer *o, dr_optim_span *s)
{
    const dr_factored f = shape_of(s);
    const int64_t rows = f.outer * f.a * f.inner;
    const int64_t cols = f.outer * f.b * f.inner;
    const bool momentum = o->s.beta1 != DR_OPTIM_NONE;
    s->state[ROW] = (dr_optim_state){.name = "exp_avg_sq_row", .dtype = DR_F32, .n = rows};
    s->state[COL] = (dr_optim_state){.name = "exp_avg_sq_col", .dtype = DR_F32, .n = cols};
    s->state[WHOLE] =
        (dr_optim_state){.name = "exp_avg_sq", .dtype = DR_F32, .n = rows > 0 ? 0 : s->n};
    s->state[EXP_AVG] =
        (dr_optim_state){.name = "exp_avg", .dtype = DR_F32, .n = momentum ? s->n : 0};
}

/* Before scale_parameter. */
static double rate_of(const dr_optimizer *o, const dr_optim_span *s)
{
    const double step = o->groups[s->group].step;
    if (o->s.relative_step == 0.0) {
        return dr_optim_lr(o, s);
    }
    return fmin(o->s.warmup_init != 0.0 ? 1e-6 * step : 1e-2, 1.0 / sqrt(step));
}

static dr_status run(dr_optimizer *o, dr_context *cx, const dr_optim_span *s, dr_tensor *sums)
{
    dr_tensor p = dr_optim_values(s);
    const dr_tensor g = dr_optim_grads(s);
    dr_tensor row = dr_optim_state_of(o, s, ROW);
    dr_tensor col = dr_optim_state_of(o, s, COL);
    dr_tensor whole = dr_optim_state_of(o, s, WHOLE);
    dr_tensor m = dr_optim_state_of(o, s, EXP_AVG);
    dr_factored f = shape_of(s);
    if (f.outer > 0) {
        f.row = &row;
        f.col = &col;
    } else {
        f.v = &whole;
    }
    DR_TRY(dr_adafactor_moments(
        cx,
        &(dr_adafactor_moments_args){.grad_scale = o->now.grad_scale,
                                     .keep = 1.0 - pow(o->groups[s->group].step, o->s.decay_rate),
                                     .eps = o->s.eps,
                                     .g = &g,
                                     .f = f}));
    DR_TRY(dr_adafactor_sums(
        cx, &(dr_adafactor_sums_args){
                .grad_scale = o->now.grad_scale, .g = &g, .p = &p, .f = f, .sums = sums}));
    return dr_adafactor_apply(
        cx, &(dr_adafactor_apply_args){.grad_scale = o->now.grad_scale,
                                       .lr = rate_of(o, s),
                                       .least_scale = o->s.eps2,
                                       .clip = o->s.clip_threshold,
                                       .beta1 = o->s.beta1,
                                       .weight_decay = o->s.weight_decay,
                                       .scale_parameter = o->s.scale_parameter != 0.0,
                                       .g = &g,
                                       .p = &p,
                                       .m = s->state[EXP_AVG].n > 0 ? &m : NULL,
                                       .f = f,
                                       .sums = sums});
}

/* The rate of a group's first tensor is the one shown, as in sd-scripts' logs. */
static dr_status update(dr_optimizer *o, dr_context *cx, const dr_optim_span *s)
{
    double numbers[3] = {0.0};
    const dr_frame frame = dr_frame_begin(cx);
    dr_tensor sums = dr_new_typed(cx, frame, DR_F64, 1, DR_DIMS(3));
    dr_status st = run(o, cx, s, &sums);
    if (st == DR_OK && s->params == o->groups[s->group].g.at && !cx->dry) {
        st = dr_download(cx, &sums, numbers);
        o->groups[s->group].last_lr = numbers[2];
    }
    dr_frame_end(cx, frame);
    return st;
}

const dr_optim_family dr_optim_adafactor = {
    .per_tensor = true, .local = true, .describe = describe, .update = update};
