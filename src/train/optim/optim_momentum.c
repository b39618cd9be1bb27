/* lion-pytorch's Lion and torch.optim.SGD with Nesterov momentum: one state each. */
#include "ops/optimizer_ops.h"
#include "train/optim/optim_internal.h"

static void describe_lion(const dr_optimizer *o, dr_optim_span *s)
{
    (void)o;
    s->state[0] = (dr_optim_state){.name = "exp_avg", .dtype = DR_F32, .n = s->n};
}

static dr_status update_lion(dr_optimizer *o, dr_context *cx, const dr_optim_span *s)
{
    dr_tensor p = dr_optim_values(s);
    const dr_tensor g = dr_optim_grads(s);
    dr_tensor m = dr_optim_state_of(o, s, 0);
    return dr_lion(cx, &(dr_lion_args){.lr = dr_optim_lr(o, s),
                                       .beta1 = o->s.beta1,
                                       .beta2 = o->s.beta2,
                                       .rate = 1.0 - o->s.beta2,
                                       .weight_decay = o->s.weight_decay,
                                       .grad_scale = o->now.grad_scale,
                                       .p = &p,
                                       .m = &m,
                                       .g = &g});
}

/* lion-pytorch asserts lr > 0. */
static dr_status check_lion(dr_optimizer *o)
{
    for (size_t i = 0; i < o->n_groups; i++) {
        if (o->groups[i].g.n > 0 && !(o->groups[i].g.lr > 0.0)) {
            DR_FAIL(DR_INVALID, "Lion: the learning rate of %s is %g, it must be above 0",
                    o->groups[i].g.name, o->groups[i].g.lr);
        }
    }
    return DR_OK;
}

const dr_optim_family dr_optim_lion = {
    .local = true, .describe = describe_lion, .check = check_lion, .update = update_lion};

static void describe_sgd(const dr_optimizer *o, dr_optim_span *s)
{
    (void)o;
    s->state[0] = (dr_optim_state){.name = "momentum_buffer", .dtype = DR_F32, .n = s->n};
}

static dr_status update_sgd(dr_optimizer *o, dr_context *cx, const dr_optim_span *s)
{
    dr_tensor p = dr_optim_values(s);
    const dr_tensor g = dr_optim_grads(s);
    dr_tensor m = dr_optim_state_of(o, s, 0);
    return dr_momentum(cx, &(dr_momentum_args){.lr = dr_optim_lr(o, s),
                                               .momentum = o->s.momentum,
                                               .dampening = o->s.dampening,
                                               .weight_decay = o->s.weight_decay,
                                               .grad_scale = o->now.grad_scale,
                                               .nesterov = o->s.nesterov != 0.0,
                                               .first = o->groups[s->group].step == 1.0,
                                               .p = &p,
                                               .m = &m,
                                               .g = &g});
}

const dr_optim_family dr_optim_sgd = {
    .local = true, .describe = describe_sgd, .update = update_sgd};
