/* torch.optim.AdamW. */
#include "ops/optimizer_ops.h"
#include "train/optim/optim_internal.h"

enum { EXP_AVG, EXP_AVG_SQ };

static void describe(const dr_optimizer *o, dr_optim_span *s)
{
    (void)o;
    s->state[EXP_AVG] = (dr_optim_state){.name = "exp_avg", .dtype = DR_F32, .n = s->n};
    s->state[EXP_AVG_SQ] = (dr_optim_state){.name = "exp_avg_sq", .dtype = DR_F32, .n = s->n};
}

static dr_status update(dr_optimizer *o, dr_context *cx, const dr_optim_span *s)
{
    dr_tensor p = dr_optim_values(s);
    const dr_tensor g = dr_optim_grads(s);
    dr_tensor m = dr_optim_state_of(o, s, EXP_AVG);
    dr_tensor v = dr_optim_state_of(o, s, EXP_AVG_SQ);
    return dr_adamw(cx, &(dr_adamw_args){.lr = dr_optim_lr(o, s),
                                         .beta1 = o->s.beta1,
                                         .beta2 = o->s.beta2,
                                         .eps = o->s.eps,
                                         .weight_decay = o->s.weight_decay,
                                         .grad_scale = o->now.grad_scale,
                                         .step = (int64_t)o->groups[s->group].step,
                                         .p = &p,
                                         .m = &m,
                                         .v = &v,
                                         .g = &g});
}

const dr_optim_family dr_optim_adamw = {.local = true, .describe = describe, .update = update};
