#include "models/unet/transformer.h"

#include "ops/pointwise.h"

static const float entry_eps = 1e-6f; /* diffusers Transformer2DModel's group norm, not norm_eps */
static const float layer_eps = 1e-5f;

static void init_linear(dr_linear_layer *l, dr_params *set, const char *base, const char *leaf,
                        int64_t in, int64_t out, bool bias)
{
    const char *name = dr_arena_printf(set->arena, "%s.%s", base, leaf);
    dr_linear_init(l, set, name, in, out, bias);
}

static void init_norm(dr_norm_layer *l, dr_params *set, const char *base, const char *leaf,
                      int64_t channels)
{
    const char *name = dr_arena_printf(set->arena, "%s.%s", base, leaf);
    dr_norm_init(l, set, name, channels, 0, layer_eps, false);
}

static void init_mha(dr_mha *m, dr_params *set, const char *base, const char *leaf, int64_t c,
                     int64_t context, int heads)
{
    const char *name = dr_arena_printf(set->arena, "%s.%s", base, leaf);
    m->heads = heads;
    m->causal = false;
    init_linear(&m->q, set, name, "to_q", c, c, false);
    init_linear(&m->k, set, name, "to_k", context, c, false);
    init_linear(&m->v, set, name, "to_v", context, c, false);
    init_linear(&m->out, set, name, "to_out.0", c, c, true);
}

static void init_block(dr_transformer_block *b, dr_params *set, const char *name,
                       const dr_transformer_config *c)
{
    init_norm(&b->norm1, set, name, "norm1", c->channels);
    init_mha(&b->attn1, set, name, "attn1", c->channels, c->channels, c->heads);
    init_norm(&b->norm2, set, name, "norm2", c->channels);
    init_mha(&b->attn2, set, name, "attn2", c->channels, c->context_dim, c->heads);
    init_norm(&b->norm3, set, name, "norm3", c->channels);
    init_linear(&b->ff_in, set, name, "ff.net.0.proj", c->channels, 8 * c->channels, true);
    init_linear(&b->ff_out, set, name, "ff.net.2", 4 * c->channels, c->channels, true);
}

void dr_transformer_init(dr_transformer *t, dr_params *set, const char *name,
                         const dr_transformer_config *c)
{
    DR_CHECK(c->depth >= 1 && c->depth <= DR_MAX_DEPTH, "transformer depth %d", c->depth);
    void (*init_proj)(dr_linear_layer *, dr_params *, const char *, int64_t, int64_t, bool) =
        c->linear_projection ? dr_linear_init : dr_linear_init_1x1;
    const char *part = dr_arena_printf(set->arena, "%s.norm", name);
    dr_norm_init(&t->norm, set, part, c->channels, c->groups, entry_eps, false);
    part = dr_arena_printf(set->arena, "%s.proj_in", name);
    init_proj(&t->proj_in, set, part, c->channels, c->channels, true);
    t->depth = c->depth;
    for (int i = 0; i < c->depth; i++) {
        part = dr_arena_printf(set->arena, "%s.transformer_blocks.%d", name, i);
        init_block(&t->block[i], set, part, c);
    }
    part = dr_arena_printf(set->arena, "%s.proj_out", name);
    init_proj(&t->proj_out, set, part, c->channels, c->channels, true);
}

/* y = x + z */
static dr_status sum(dr_context *cx, const dr_tensor *x, const dr_tensor *z, dr_tensor *y)
{
    return dr_add(cx, &(dr_add_args){.alpha = 1.0f, .beta = 1.0f, .x = x, .z = z, .y = y});
}

typedef struct frames { /* what backward reads, and what it does not */
    dr_frame keep, scratch;
} frames;

static dr_status norm_saved(dr_context *cx, const dr_norm_layer *l, const dr_tensor *x,
                            dr_tensor *y, dr_tensor *stats, const frames *f, bool kept)
{
    *y = dr_new_like(cx, kept ? f->keep : f->scratch, x);
    *stats = dr_norm_stats(cx, f->keep, l, x);
    return dr_norm_forward(cx, l, x, y, stats);
}

static bool reads_input(const dr_linear_layer *l)
{
    return dr_weight_reads_input(l->w);
}

/* h1 = h0 + attn1(ln1(h0)); h2 = h1 + attn2(ln2(h1), context) */
static dr_status attentions_forward(dr_context *cx, const dr_transformer_block *b,
                                    const dr_tensor *context, dr_transformer_block_saved *s,
                                    const frames *f)
{
    const dr_mha *m = &b->attn1;
    /* 1 */
    s->h1 = dr_new_like(cx, f->keep, &s->h0);
    DR_TRY(norm_saved(cx, &b->norm1, &s->h0, &s->n1, &s->stats1, f,
                      reads_input(&m->q) || reads_input(&m->k) || reads_input(&m->v)));
    DR_TRY(dr_mha_forward(cx, m, &s->n1, &s->n1, &s->h1, DR_SET, &s->attn1, f->keep));
    DR_TRY(sum(cx, &s->h1, &s->h0, &s->h1));
    /* 2 */
    s->h2 = dr_new_like(cx, f->keep, &s->h0);
    DR_TRY(norm_saved(cx, &b->norm2, &s->h1, &s->n2, &s->stats2, f, reads_input(&b->attn2.q)));
    DR_TRY(dr_mha_forward(cx, &b->attn2, &s->n2, context, &s->h2, DR_SET, &s->attn2, f->keep));
    return sum(cx, &s->h2, &s->h1, &s->h2);
}

/* y = h2 + ff(ln3(h2)) */
static dr_status ff_forward(dr_context *cx, const dr_transformer_block *b, dr_tensor *y,
                            dr_transformer_block_saved *s, const frames *f)
{
    const dr_tensor *h = &s->h2;
    const dr_frame gated = reads_input(&b->ff_out) ? f->keep : f->scratch;
    DR_TRY(norm_saved(cx, &b->norm3, h, &s->n3, &s->stats3, f, reads_input(&b->ff_in)));
    s->ff = dr_new(cx, f->keep, 3, DR_DIMS(h->dim[0], h->dim[1], b->ff_in.w->dim[0]));
    s->gated = dr_new(cx, gated, 3, DR_DIMS(h->dim[0], h->dim[1], b->ff_out.w->dim[1]));
    DR_TRY(dr_linear_forward(cx, &b->ff_in, &s->n3, &s->ff, DR_SET));
    DR_TRY(dr_geglu(cx, &(dr_geglu_args){.x = &s->ff, .y = &s->gated}));
    DR_TRY(dr_linear_forward(cx, &b->ff_out, &s->gated, y, DR_SET));
    return sum(cx, y, h, y);
}

static dr_status block_forward(dr_context *cx, const dr_transformer_block *b,
                               const dr_tensor *context, dr_tensor *y,
                               dr_transformer_block_saved *s, dr_frame keep)
{
    frames f = {keep, dr_frame_begin(cx)};
    dr_status st = attentions_forward(cx, b, context, s, &f);
    dr_frame_end(cx, f.scratch);
    if (st == DR_OK) {
        f.scratch = dr_frame_begin(cx);
        st = ff_forward(cx, b, y, s, &f);
        dr_frame_end(cx, f.scratch);
    }
    return st;
}

static dr_tensor as_tokens(const dr_tensor *x)
{
    return dr_reshape(x, 3, DR_DIMS(x->dim[0], x->dim[1] * x->dim[2], x->dim[3]));
}

/* h0 of the first block = proj_in(gn(x)) */
static dr_status entry_forward(dr_context *cx, const dr_transformer *t, const dr_tensor *x,
                               dr_transformer_saved *s, dr_frame keep)
{
    const frames f = {keep, dr_frame_begin(cx)};
    dr_status st = norm_saved(cx, &t->norm, x, &s->g, &s->stats, &f, reads_input(&t->proj_in));
    if (st == DR_OK) {
        st = dr_linear_forward(cx, &t->proj_in, &s->g, &s->block[0].h0, DR_SET);
    }
    dr_frame_end(cx, f.scratch);
    return st;
}

dr_status dr_transformer_forward(dr_context *cx, const dr_transformer *t, const dr_tensor *x,
                                 const dr_tensor *context, dr_tensor *y, dr_transformer_saved *s,
                                 dr_frame keep)
{
    const dr_tensor tokens = as_tokens(x);
    dr_tensor out = as_tokens(y);
    /* 1 */
    s->block[0].h0 = dr_new_like(cx, keep, &tokens);
    DR_TRY(entry_forward(cx, t, &tokens, s, keep));
    /* 2 */
    for (int i = 0; i < t->depth; i++) {
        dr_tensor *next = i + 1 < t->depth ? &s->block[i + 1].h0 : &s->h;
        *next = dr_new_like(cx, keep, &tokens);
        DR_TRY(block_forward(cx, &t->block[i], context, next, &s->block[i], keep));
    }
    /* 3 */
    DR_TRY(dr_linear_forward(cx, &t->proj_out, &s->h, &out, DR_SET));
    return sum(cx, &out, &tokens, &out);
}

/* Backward of ff(ln3(h2)): dh gets the branch's gradient added. */
static dr_status ff_backward(dr_context *cx, const dr_transformer_block *b,
                             const dr_transformer_block_saved *s, dr_tensor *dh)
{
    dr_frame f = dr_frame_begin(cx);
    dr_tensor dgated = dr_new_like(cx, f, &s->gated);
    dr_tensor dff = dr_new_like(cx, f, &s->ff);
    dr_tensor dn = dr_new_like(cx, f, &s->n3);
    dr_status st = DR_OK;
    DR_TRY_GOTO(dr_linear_backward(cx, &b->ff_out, &s->gated, dh, &dgated, DR_SET), st, done);
    DR_TRY_GOTO(
        dr_geglu_backward(cx, &(dr_geglu_backward_args){.dy = &dgated, .x = &s->ff, .dx = &dff}),
        st, done);
    DR_TRY_GOTO(dr_linear_backward(cx, &b->ff_in, &s->n3, &dff, &dn, DR_SET), st, done);
    DR_TRY_GOTO(dr_norm_backward(cx, &b->norm3, &s->h2, &s->stats3, &dn, dh, DR_ADD), st, done);
done:
    dr_frame_end(cx, f);
    return st;
}

/* dh holds the gradient of the block's output and becomes that of its input. */
static dr_status block_backward(dr_context *cx, const dr_transformer_block *b,
                                const dr_transformer_block_saved *s, const dr_tensor *context,
                                dr_tensor *dcontext, dr_tensor *dh)
{
    /* 3' */
    DR_TRY(ff_backward(cx, b, s, dh));
    dr_frame f = dr_frame_begin(cx);
    dr_tensor dn = dr_new_like(cx, f, &s->n1);
    dr_status st = DR_OK;
    /* 2' */
    DR_TRY_GOTO(
        dr_mha_backward(
            cx, &b->attn2, &s->attn2,
            &(dr_mha_grad){
                .dy = dh, .x = &s->n2, .c = context, .dx = &dn, .mode_dx = DR_SET, .dc = dcontext}),
        st, done);
    DR_TRY_GOTO(dr_norm_backward(cx, &b->norm2, &s->h1, &s->stats2, &dn, dh, DR_ADD), st, done);
    /* 1' */
    DR_TRY_GOTO(
        dr_mha_backward(
            cx, &b->attn1, &s->attn1,
            &(dr_mha_grad){
                .dy = dh, .x = &s->n1, .c = &s->n1, .dx = &dn, .mode_dx = DR_SET, .dc = &dn}),
        st, done);
    DR_TRY_GOTO(dr_norm_backward(cx, &b->norm1, &s->h0, &s->stats1, &dn, dh, DR_ADD), st, done);
done:
    dr_frame_end(cx, f);
    return st;
}

static dr_status backward_in_frame(dr_context *cx, const dr_transformer *t,
                                   const dr_transformer_saved *s, const dr_transformer_grad *g,
                                   dr_frame f)
{
    const dr_tensor tokens = as_tokens(g->x);
    const dr_tensor dout = as_tokens(g->dy);
    dr_tensor dh = dr_new_like(cx, f, &tokens);
    dr_tensor dg = dr_new_like(cx, f, &tokens);
    /* 3' */
    DR_TRY(dr_linear_backward(cx, &t->proj_out, &s->h, &dout, &dh, DR_SET));
    /* 2' */
    for (int i = t->depth - 1; i >= 0; i--) {
        DR_TRY(block_backward(cx, &t->block[i], &s->block[i], g->context, g->dcontext, &dh));
    }
    /* 1' */
    const bool last = g->dx == NULL && !dr_param_is_trained(t->norm.w);
    DR_TRY(dr_linear_backward(cx, &t->proj_in, &s->g, &dh, last ? NULL : &dg, DR_SET));
    dr_tensor dx = {0};
    if (g->dx != NULL) { /* the residual, before the norm adds its part */
        dx = as_tokens(g->dx);
        DR_TRY(dr_add(cx, &(dr_add_args){.alpha = 1.0f,
                                         .beta = 1.0f,
                                         .x = &dout,
                                         .z = g->mode_dx == DR_ADD ? &dx : NULL,
                                         .y = &dx}));
    }
    return dr_norm_backward(cx, &t->norm, &tokens, &s->stats, &dg, g->dx != NULL ? &dx : NULL,
                            DR_ADD);
}

dr_status dr_transformer_backward(dr_context *cx, const dr_transformer *t,
                                  const dr_transformer_saved *saved, const dr_transformer_grad *g)
{
    dr_frame f = dr_frame_begin(cx);
    dr_status st = backward_in_frame(cx, t, saved, g, f);
    dr_frame_end(cx, f);
    return st;
}
