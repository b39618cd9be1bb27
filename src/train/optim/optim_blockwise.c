/*
 * bitsandbytes' optimizers: 8-bit states by blocks, or plain ones (PagedAdamW, small tensors).
 * Blocks run along memory order; bitsandbytes' along its own, which for convolutions is another.
 */
#include "ops/optimizer_ops.h"
#include "train/optim/optim_internal.h"

enum { STATE1, STATE2, ABSMAX1, ABSMAX2 };
enum { LEAST_CODED = 4096 }; /* elements; smaller tensors keep plain states (min_8bit_size) */

static dr_blockwise_kind kind_of(const dr_optimizer *o)
{
    switch (o->s.kind) {
    case DR_OPTIM_LION8BIT:
    case DR_OPTIM_PAGED_LION8BIT:
        return DR_BLOCKWISE_LION;
    case DR_OPTIM_SGD_NESTEROV8BIT:
        return DR_BLOCKWISE_MOMENTUM;
    default:
        return DR_BLOCKWISE_ADAM;
    }
}

static bool is_coded(const dr_optimizer *o, const dr_optim_span *s)
{
    return s->n >= LEAST_CODED && o->s.kind != DR_OPTIM_PAGED_ADAMW &&
           o->s.kind != DR_OPTIM_PAGED_ADAMW32BIT;
}

static void describe(const dr_optimizer *o, dr_optim_span *s)
{
    const bool two = kind_of(o) == DR_BLOCKWISE_ADAM;
    const bool coded = is_coded(o, s);
    const dr_dtype type = coded ? DR_U8 : DR_F32;
    const int64_t blocks = coded ? (s->n + DR_BLOCKWISE_BLOCK - 1) / DR_BLOCKWISE_BLOCK : 0;
    s->state[STATE1] = (dr_optim_state){.name = "state1", .dtype = type, .n = s->n};
    s->state[STATE2] = (dr_optim_state){.name = "state2", .dtype = type, .n = two ? s->n : 0};
    s->state[ABSMAX1] = (dr_optim_state){.name = "absmax1", .dtype = DR_F32, .n = blocks};
    s->state[ABSMAX2] = (dr_optim_state){.name = "absmax2", .dtype = DR_F32, .n = two ? blocks : 0};
}

/* A span's operands. */
typedef struct operands {
    dr_tensor p, g, state1, state2, absmax1, absmax2;
} operands;

static dr_blockwise_args args_of(const dr_optimizer *o, const dr_optim_span *s, operands *t)
{
    const dr_blockwise_kind kind = kind_of(o);
    const bool two = kind == DR_BLOCKWISE_ADAM;
    const bool coded = is_coded(o, s);
    *t = (operands){.p = dr_optim_values(s),
                    .g = dr_optim_grads(s),
                    .state1 = dr_optim_state_of(o, s, STATE1),
                    .state2 = dr_optim_state_of(o, s, STATE2),
                    .absmax1 = dr_optim_state_of(o, s, ABSMAX1),
                    .absmax2 = dr_optim_state_of(o, s, ABSMAX2)};
    return (dr_blockwise_args){.kind = kind,
                               .lr = dr_optim_lr(o, s),
                               .beta1 = kind == DR_BLOCKWISE_MOMENTUM ? o->s.momentum : o->s.beta1,
                               .beta2 = o->s.beta2,
                               .eps = o->s.eps,
                               .weight_decay = o->s.weight_decay,
                               .grad_scale = o->now.grad_scale,
                               .step = (int64_t)o->groups[s->group].step,
                               .p = &t->p,
                               .g = &t->g,
                               .state1 = &t->state1,
                               .state2 = two ? &t->state2 : NULL,
                               .absmax1 = coded ? &t->absmax1 : NULL,
                               .absmax2 = coded && two ? &t->absmax2 : NULL};
}

static dr_status update(dr_optimizer *o, dr_context *cx, const dr_optim_span *s)
{
    operands t;
    const dr_blockwise_args a = args_of(o, s, &t);
    return dr_blockwise(cx, &a);
}

static dr_status update_many(dr_optimizer *o, dr_context *cx, const dr_optim_span *s, size_t n)
{
    enum { BATCH = 64 };
    operands t[BATCH];
    dr_blockwise_args a[BATCH];
    for (size_t i = 0; i < n; i += BATCH) {
        const size_t some = n - i < BATCH ? n - i : BATCH;
        for (size_t k = 0; k < some; k++) {
            a[k] = args_of(o, &s[i + k], &t[k]);
        }
        DR_TRY(dr_blockwise_all(cx, a, some));
    }
    return DR_OK;
}

const dr_optim_family dr_optim_blockwise = {.per_tensor = true,
                                            .local = true,
                                            .describe = describe,
                                            .update = update,
                                            .update_many = update_many};
