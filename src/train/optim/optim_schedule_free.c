/*
 * schedulefree's AdamW, RAdam and SGD. The parameters hold y, on which gradients are taken; z is
 * state; what is saved and sampled is x = lerp(y, z, 1 - 1/beta1).
 */
#include "ops/optimizer_ops.h"
#include "ops/pointwise.h"
#include "train/optim/optim_internal.h"

#include <math.h>

enum { Z, EXP_AVG_SQ };

/* Two scalars per group: its largest rate and the sum of its weights. */
enum { LR_MAX, WEIGHT_SUM, PER_GROUP };

static void describe(const dr_optimizer *o, dr_optim_span *s)
{
    const bool sgd = o->s.kind == DR_OPTIM_SGD_SCHEDULE_FREE;
    s->state[Z] = (dr_optim_state){.name = "z", .dtype = DR_F32, .n = s->n};
    s->state[EXP_AVG_SQ] =
        (dr_optim_state){.name = "exp_avg_sq", .dtype = DR_F32, .n = sgd ? 0 : s->n};
}

static dr_status check(dr_optimizer *o)
{
    for (size_t i = 0; i < o->n_groups; i++) {
        const char *name = o->groups[i].g.name;
        dr_optim_add_scalar(o, dr_arena_printf(&o->arena, "%s.lr_max", name), -1.0);
        dr_optim_add_scalar(o, dr_arena_printf(&o->arena, "%s.weight_sum", name), 0.0);
    }
    return DR_OK;
}

static dr_status begin(dr_optimizer *o, dr_context *cx, const dr_optim_span *s)
{
    const dr_tensor p = dr_optim_values(s);
    dr_tensor z = dr_optim_state_of(o, s, Z);
    return dr_add(cx, &(dr_add_args){.alpha = 1.0f, .x = &p, .y = &z});
}

static double first_beta(const dr_optimizer *o)
{
    return o->s.kind == DR_OPTIM_SGD_SCHEDULE_FREE ? o->s.momentum : o->s.beta1;
}

/* Length of the approximated simple moving average (RAdam's rho). */
static double rho_of(const dr_optimizer *o, double step, double *most)
{
    const double power = pow(o->s.beta2, step);
    *most = 2.0 / (1.0 - o->s.beta2) - 1.0;
    return *most - 2.0 * step * power / (1.0 - power);
}

static double warmed(const dr_optimizer *o, double step)
{
    if (o->s.kind != DR_OPTIM_RADAM_SCHEDULE_FREE) {
        return step <= o->s.warmup_steps ? step / o->s.warmup_steps : 1.0;
    }
    double most;
    const double rho = rho_of(o, step, &most);
    if (rho <= 4.0) {
        return o->s.silent_sgd_phase != 0.0 ? 0.0 : 1.0;
    }
    return sqrt((rho - 4.0) * (rho - 2.0) * most / ((most - 4.0) * (most - 2.0) * rho));
}

/* The group's rate and weight in this step; the schedule of the run is not used. */
static void prepare(dr_optimizer *o)
{
    for (size_t i = 0; i < o->n_groups; i++) {
        dr_optim_group_state *g = &o->groups[i];
        double *own = &o->scalar[i * PER_GROUP];
        if (g->frozen) {
            continue;
        }
        g->last_lr = g->g.lr * warmed(o, g->step);
        own[LR_MAX] = fmax(own[LR_MAX], g->last_lr);
        own[WEIGHT_SUM] += pow(g->step, o->s.r) * pow(own[LR_MAX], o->s.weight_lr_power);
    }
}

static dr_status update(dr_optimizer *o, dr_context *cx, const dr_optim_span *s)
{
    const dr_optim_group_state *g = &o->groups[s->group];
    const double *own = &o->scalar[s->group * PER_GROUP];
    const double weight = pow(g->step, o->s.r) * pow(own[LR_MAX], o->s.weight_lr_power);
    const double average = own[WEIGHT_SUM] > 0.0 ? weight / own[WEIGHT_SUM] : 0.0;
    double most;
    const bool radam = o->s.kind == DR_OPTIM_RADAM_SCHEDULE_FREE;
    const bool sgd = o->s.kind == DR_OPTIM_SGD_SCHEDULE_FREE;
    dr_tensor y = dr_optim_values(s);
    const dr_tensor grad = dr_optim_grads(s);
    dr_tensor z = dr_optim_state_of(o, s, Z);
    dr_tensor v = dr_optim_state_of(o, s, EXP_AVG_SQ);
    return dr_schedule_free(
        cx,
        &(dr_schedule_free_args){.lr = g->last_lr,
                                 .beta2 = o->s.beta2,
                                 .eps = o->s.eps,
                                 .correction = 1.0 - pow(o->s.beta2, g->step),
                                 .weight_decay = o->s.weight_decay,
                                 .average = average,
                                 .y_rate = g->last_lr * (first_beta(o) * (1.0 - average) - 1.0),
                                 .grad_scale = o->now.grad_scale,
                                 .normalized = !sgd && (!radam || rho_of(o, g->step, &most) > 4.0),
                                 .y = &y,
                                 .z = &z,
                                 .v = sgd ? NULL : &v,
                                 .g = &grad});
}

static dr_status eval(dr_optimizer *o, dr_context *cx, const dr_optim_span *s)
{
    dr_tensor p = dr_optim_values(s);
    const dr_tensor z = dr_optim_state_of(o, s, Z);
    return dr_lerp(cx, &(dr_lerp_args){.weight = 1.0 - 1.0 / first_beta(o), .x = &z, .y = &p});
}

const dr_optim_family dr_optim_schedule_free = {.local = true,
                                                .describe = describe,
                                                .check = check,
                                                .begin = begin,
                                                .prepare = prepare,
                                                .update = update,
                                                .eval = eval};
