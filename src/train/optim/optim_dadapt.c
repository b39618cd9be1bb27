/*
 * prodigyopt's Prodigy and dadaptation's DAdaptAdam, DAdaptAdamPreprint, DAdaptLion: the rate d is
 * estimated from sums over all parameters, so a step first passes over all of them.
 */
#include "ops/optimizer_ops.h"
#include "ops/pointwise.h"
#include "train/optim/optim_internal.h"

#include <math.h>

enum { S, EXP_AVG, EXP_AVG_SQ, P0 };
enum { SCALAR_D, SCALAR_NUMERATOR, SCALAR_D_MAX, SCALAR_K };
enum { DOT, L1, SQUARES, N_SUMS };

static bool is_preprint(const dr_optimizer *o)
{
    return o->s.kind == DR_OPTIM_DADAPTATION || o->s.kind == DR_OPTIM_DADAPT_ADAM_PREPRINT;
}

static void describe(const dr_optimizer *o, dr_optim_span *s)
{
    const bool lion = o->s.kind == DR_OPTIM_DADAPT_LION;
    const bool prodigy = o->s.kind == DR_OPTIM_PRODIGY;
    s->state[S] = (dr_optim_state){.name = "s", .dtype = DR_F32, .n = s->n};
    s->state[EXP_AVG] = (dr_optim_state){.name = "exp_avg", .dtype = DR_F32, .n = s->n};
    s->state[EXP_AVG_SQ] =
        (dr_optim_state){.name = "exp_avg_sq", .dtype = DR_F32, .n = lion ? 0 : s->n};
    s->state[P0] = (dr_optim_state){.name = "p0", .dtype = DR_F32, .n = prodigy ? s->n : 0};
}

/* The packages refuse groups with different rates, unless one is 0. */
static dr_status check(dr_optimizer *o)
{
    double lr = 0.0;
    for (size_t i = 0; i < o->n_groups; i++) {
        const dr_optim_group *g = &o->groups[i].g;
        if (g->n > 0 && g->lr > 0.0 && lr > 0.0 && g->lr != lr) {
            DR_FAIL(DR_INVALID,
                    "%s estimates one rate for all parameters: the learning rates %g and %g must "
                    "be equal, or one of them 0",
                    dr_optim_kind_name(o->s.kind), lr, g->lr);
        }
        lr = g->n > 0 && g->lr > lr ? g->lr : lr;
    }
    if (!(lr > 0.0)) {
        DR_FAIL(DR_INVALID, "%s: --learning_rate must be above 0, found 0",
                dr_optim_kind_name(o->s.kind));
    }
    dr_optim_add_scalar(o, "d", o->s.d0);
    dr_optim_add_scalar(o, "numerator", 0.0);
    dr_optim_add_scalar(o, "d_max", o->s.d0);
    dr_optim_add_scalar(o, "k", 0.0);
    return DR_OK;
}

static dr_status begin(dr_optimizer *o, dr_context *cx, const dr_optim_span *s)
{
    if (s->state[P0].n == 0) {
        return DR_OK;
    }
    const dr_tensor p = dr_optim_values(s);
    dr_tensor p0 = dr_optim_state_of(o, s, P0);
    return dr_add(cx, &(dr_add_args){.alpha = 1.0f, .x = &p, .y = &p0});
}

/* ---- a step -----------------------------------------------------------------------------------
 */

/* The one rate of all groups in this step. */
static double common_lr(const dr_optimizer *o)
{
    double lr = 0.0;
    for (size_t i = 0; i < o->n_groups; i++) {
        lr = fmax(lr, o->groups[i].g.n > 0 ? o->groups[i].g.lr : 0.0);
    }
    return lr * o->now.lr_factor;
}

static double step_rate(const dr_optimizer *o)
{
    const double k = o->scalar[SCALAR_K] + 1.0;
    double correction = 1.0;
    if (o->s.use_bias_correction != 0.0) {
        correction = sqrt(1.0 - pow(o->s.beta2, k)) / (1.0 - pow(o->s.beta1, k));
    }
    return o->scalar[SCALAR_D] * common_lr(o) * correction;
}

/* Coefficients of the moments; m_rate and so on as the packages have them. */
static dr_dadapt_args moments_of(const dr_optimizer *o, double dlr)
{
    const double d = o->scalar[SCALAR_D];
    const double b1 = o->s.beta1;
    const double b2 = o->s.beta2;
    dr_dadapt_args a = {.grad_scale = o->now.grad_scale,
                        .l2 = o->s.decouple != 0.0 ? 0.0 : o->s.weight_decay,
                        .eps = o->s.eps,
                        .m_keep = b1,
                        .m_rate = dlr * (1.0 - b1),
                        .v_keep = b2,
                        .v_rate = 1.0 - b2};
    if (o->s.kind == DR_OPTIM_PRODIGY) {
        a.kind = DR_DADAPT_PRODIGY;
        a.m_rate = d * (1.0 - b1);
        a.v_rate = d * d * (1.0 - b2);
        a.s_keep = o->s.beta3 == DR_OPTIM_NONE ? sqrt(b2) : o->s.beta3;
        a.s_rate = d / o->s.d0 * (o->s.safeguard_warmup != 0.0 ? d : dlr);
    } else if (is_preprint(o)) {
        a.kind = DR_DADAPT_PREPRINT;
        a.s_keep = b2;
        a.s_rate = dlr * (1.0 - b2);
    } else {
        a.kind = DR_DADAPT_ADAM;
        a.s_keep = sqrt(b2);
        a.s_rate = dlr * (1.0 - sqrt(b2));
    }
    return a;
}

typedef struct moments_job {
    double dlr;
    dr_tensor *sums;
} moments_job;

static dr_status add_moments(dr_optimizer *o, dr_context *cx, const dr_optim_span *s, void *user)
{
    const moments_job *job = user;
    const double dlr = job->dlr;
    dr_tensor *sums = job->sums;
    dr_tensor p = dr_optim_values(s);
    const dr_tensor g = dr_optim_grads(s);
    dr_tensor m = dr_optim_state_of(o, s, EXP_AVG);
    dr_tensor v = dr_optim_state_of(o, s, EXP_AVG_SQ);
    dr_tensor acc = dr_optim_state_of(o, s, S);
    dr_tensor p0 = dr_optim_state_of(o, s, P0);
    const double root = sqrt(o->s.beta2);
    if (o->s.kind == DR_OPTIM_DADAPT_LION) {
        return dr_lion(cx, &(dr_lion_args){.lr = dlr,
                                           .beta1 = o->s.beta1,
                                           .beta2 = o->s.beta2,
                                           .rate = (1.0 - o->s.beta2) * dlr,
                                           .weight_decay = o->s.weight_decay,
                                           .grad_scale = o->now.grad_scale,
                                           .s_keep = root,
                                           .s_rate = (1.0 - root) * dlr,
                                           .p = &p,
                                           .m = &m,
                                           .g = &g,
                                           .s = &acc,
                                           .sums = sums});
    }
    dr_dadapt_args a = moments_of(o, dlr);
    a.p = &p;
    a.g = &g;
    a.m = &m;
    a.v = &v;
    a.s = &acc;
    a.p0 = a.kind == DR_DADAPT_PRODIGY ? &p0 : NULL;
    a.sums = sums;
    return dr_dadapt(cx, &a);
}

/* All spans whose group learns. */
static dr_status all_moments(dr_optimizer *o, dr_context *cx, double dlr, double out[N_SUMS])
{
    const dr_frame frame = dr_frame_begin(cx);
    dr_tensor sums = dr_new_typed(cx, frame, DR_F64, 1, DR_DIMS(N_SUMS));
    dr_status st = dr_zero(cx, &sums);
    moments_job job = {dlr, &sums};
    const bool moves = o->s.kind == DR_OPTIM_DADAPT_LION;
    for (size_t i = 0; st == DR_OK && i < o->n_spans; i++) {
        const dr_optim_span *s = &o->spans[i];
        if (dr_optim_active(o, s) && dr_optim_lr(o, s) > 0.0) {
            st = dr_optim_on_floats(o, cx, s, moves ? DR_OPTIM_UPDATE : DR_OPTIM_KEEP, add_moments,
                                    &job);
        }
    }
    if (st == DR_OK) {
        st = dr_download(cx, &sums, out);
    }
    dr_frame_end(cx, frame);
    return st;
}

static void estimate_prodigy(dr_optimizer *o, double dlr, const double sums[N_SUMS])
{
    const double beta3 = o->s.beta3 == DR_OPTIM_NONE ? sqrt(o->s.beta2) : o->s.beta3;
    double d = o->scalar[SCALAR_D];
    const double numerator = beta3 * o->scalar[SCALAR_NUMERATOR] + d / o->s.d0 * dlr * sums[DOT];
    if (common_lr(o) > 0.0) {
        const double estimate = o->s.d_coef * numerator / sums[L1];
        if (d == o->s.d0) {
            d = fmax(d, estimate);
        }
        o->scalar[SCALAR_D_MAX] = fmax(o->scalar[SCALAR_D_MAX], estimate);
        d = fmin(o->scalar[SCALAR_D_MAX], d * o->s.growth_rate);
    }
    o->scalar[SCALAR_NUMERATOR] = numerator;
    o->scalar[SCALAR_D] = d;
}

static void estimate_dadapt(dr_optimizer *o, double dlr, const double sums[N_SUMS])
{
    const double b2 = o->s.beta2;
    const double root = sqrt(b2);
    const double d = o->scalar[SCALAR_D];
    double estimate;
    double numerator;
    if (is_preprint(o)) {
        numerator = b2 * o->scalar[SCALAR_NUMERATOR] + sums[DOT] * dlr * dlr * (1.0 - b2);
        estimate = (sums[SQUARES] / (1.0 - b2) - numerator) / sums[L1];
    } else {
        numerator = root * o->scalar[SCALAR_NUMERATOR] + (1.0 - root) * dlr * sums[DOT];
        estimate = numerator / ((1.0 - root) * sums[L1]);
    }
    o->scalar[SCALAR_NUMERATOR] = numerator;
    if (common_lr(o) > 0.0) {
        o->scalar[SCALAR_D] = fmax(d, fmin(estimate, d * o->s.growth_rate));
    }
}

/* Decay with the rate of before; eps of Prodigy grows with the new d. */
static dr_status move_span(dr_optimizer *o, dr_context *cx, const dr_optim_span *s, void *user)
{
    const double dlr = *(const double *)user;
    const bool prodigy = o->s.kind == DR_OPTIM_PRODIGY;
    dr_tensor p = dr_optim_values(s);
    const dr_tensor m = dr_optim_state_of(o, s, EXP_AVG);
    const dr_tensor v = dr_optim_state_of(o, s, EXP_AVG_SQ);
    return dr_adam_apply(
        cx, &(dr_adam_apply_args){.decay = o->s.decouple != 0.0 ? o->s.weight_decay * dlr : 0.0,
                                  .rate = prodigy ? dlr : 1.0,
                                  .eps = prodigy ? o->scalar[SCALAR_D] * o->s.eps : o->s.eps,
                                  .p = &p,
                                  .m = &m,
                                  .v = &v});
}

static dr_status move(dr_optimizer *o, dr_context *cx, double dlr)
{
    for (size_t i = 0; i < o->n_spans; i++) {
        const dr_optim_span *s = &o->spans[i];
        if (!dr_optim_active(o, s) || (is_preprint(o) && !(dr_optim_lr(o, s) > 0.0))) {
            continue;
        }
        DR_TRY(dr_optim_on_floats(o, cx, s, DR_OPTIM_UPDATE, move_span, &dlr));
    }
    return DR_OK;
}

static dr_status step(dr_optimizer *o, dr_context *cx)
{
    const double dlr = step_rate(o);
    double sums[N_SUMS] = {0.0};
    DR_TRY(all_moments(o, cx, dlr, sums));
    for (size_t i = 0; i < o->n_groups; i++) {
        o->groups[i].last_lr = o->groups[i].g.lr > 0.0 ? dlr : 0.0;
    }
    if (!cx->dry && sums[L1] == 0.0) {
        return DR_OK; /* no gradient at all: the packages return here, too */
    }
    if (!cx->dry && o->s.kind == DR_OPTIM_PRODIGY) {
        estimate_prodigy(o, dlr, sums);
    } else if (!cx->dry) {
        estimate_dadapt(o, dlr, sums);
    }
    o->scalar[SCALAR_K] += cx->dry ? 0.0 : 1.0;
    return o->s.kind == DR_OPTIM_DADAPT_LION ? DR_OK : move(o, cx, dlr);
}

const dr_optim_family dr_optim_dadapt = {
    .describe = describe, .check = check, .begin = begin, .step = step};
