#include "nn/mha.h"

#include "ops/attention.h"

/* (N,S,O) for the layer's output over x's tokens. */
static dr_tensor projected(dr_context *cx, dr_frame f, const dr_linear_layer *l, const dr_tensor *x)
{
    return dr_new(cx, f, 3, DR_DIMS(x->dim[0], x->dim[1], l->w->dim[0]));
}

dr_status dr_mha_forward(dr_context *cx, const dr_mha *m, const dr_tensor *x, const dr_tensor *c,
                         dr_tensor *y, dr_write mode, dr_mha_saved *s, dr_frame keep)
{
    /* 1 */
    s->q = projected(cx, keep, &m->q, x);
    s->k = projected(cx, keep, &m->k, c);
    s->v = projected(cx, keep, &m->v, c);
    DR_TRY(dr_linear_forward(cx, &m->q, x, &s->q, DR_SET));
    DR_TRY(dr_linear_forward(cx, &m->k, c, &s->k, DR_SET));
    DR_TRY(dr_linear_forward(cx, &m->v, c, &s->v, DR_SET));
    /* 2 */
    s->o = dr_new_like(cx, keep, &s->q);
    s->lse =
        dr_new_typed(cx, keep, cx->backend->compute, 3, DR_DIMS(x->dim[0], m->heads, x->dim[1]));
    DR_TRY(dr_attention(cx, &(dr_attention_args){.heads = m->heads,
                                                 .causal = m->causal,
                                                 .q = &s->q,
                                                 .k = &s->k,
                                                 .v = &s->v,
                                                 .o = &s->o,
                                                 .lse = &s->lse}));
    /* 3 */
    return dr_linear_forward(cx, &m->out, &s->o, y, mode);
}

static dr_status backward_in_frame(dr_context *cx, const dr_mha *m, const dr_mha_saved *s,
                                   const dr_mha_grad *g, dr_frame f)
{
    dr_tensor dout = dr_new_like(cx, f, &s->o);
    dr_tensor dq = dr_new_like(cx, f, &s->q);
    dr_tensor dk = dr_new_like(cx, f, &s->k);
    dr_tensor dv = dr_new_like(cx, f, &s->v);
    /* 3' */
    DR_TRY(dr_linear_backward(cx, &m->out, &s->o, g->dy, &dout, DR_SET));
    /* 2' */
    DR_TRY(dr_attention_backward(cx, &(dr_attention_backward_args){.heads = m->heads,
                                                                   .causal = m->causal,
                                                                   .dout = &dout,
                                                                   .q = &s->q,
                                                                   .k = &s->k,
                                                                   .v = &s->v,
                                                                   .o = &s->o,
                                                                   .lse = &s->lse,
                                                                   .dq = &dq,
                                                                   .dk = &dk,
                                                                   .dv = &dv}));
    /* 1': q first, because dc may be dx and then adds to it */
    DR_TRY(dr_linear_backward(cx, &m->q, g->x, &dq, g->dx, g->mode_dx));
    DR_TRY(dr_linear_backward(cx, &m->k, g->c, &dk, g->dc, DR_ADD));
    return dr_linear_backward(cx, &m->v, g->c, &dv, g->dc, DR_ADD);
}

dr_status dr_mha_backward(dr_context *cx, const dr_mha *m, const dr_mha_saved *saved,
                          const dr_mha_grad *g)
{
    dr_frame f = dr_frame_begin(cx);
    dr_status st = backward_in_frame(cx, m, saved, g, f);
    dr_frame_end(cx, f);
    return st;
}
