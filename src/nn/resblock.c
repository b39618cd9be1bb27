#include "nn/resblock.h"

#include "ops/pointwise.h"

#include <stdio.h>

void dr_resblock_init(dr_resblock *b, dr_params *set, const char *name, int64_t in, int64_t out,
                      int64_t temb_channels, int groups, float eps)
{
    char part[240];
    *b = (dr_resblock){0};
    (void)snprintf(part, sizeof part, "%s.norm1", name);
    dr_norm_init(&b->norm1, set, part, in, groups, eps, true);
    (void)snprintf(part, sizeof part, "%s.conv1", name);
    dr_conv_init(&b->conv1, set, part, in, out, 3, 1, 1);
    if (temb_channels > 0) {
        (void)snprintf(part, sizeof part, "%s.time_emb_proj", name);
        dr_linear_init(&b->emb, set, part, temb_channels, out, true);
    }
    (void)snprintf(part, sizeof part, "%s.norm2", name);
    dr_norm_init(&b->norm2, set, part, out, groups, eps, true);
    (void)snprintf(part, sizeof part, "%s.conv2", name);
    dr_conv_init(&b->conv2, set, part, out, out, 3, 1, 1);
    if (in != out) {
        (void)snprintf(part, sizeof part, "%s.conv_shortcut", name);
        dr_linear_init_1x1(&b->shortcut, set, part, in, out, true);
    }
}

static dr_status add_embedding(dr_context *cx, const dr_resblock *b, const dr_tensor *temb_silu,
                               dr_tensor *h)
{
    dr_frame f = dr_frame_begin(cx);
    dr_tensor emb = dr_new(cx, f, 2, DR_DIMS(h->dim[0], h->dim[3]));
    dr_status st = dr_linear_forward(cx, &b->emb, temb_silu, &emb, DR_SET);
    if (st == DR_OK) {
        st = dr_add_rows(cx, &(dr_add_rows_args){.x = h, .t = &emb});
    }
    dr_frame_end(cx, f);
    return st;
}

/* y = conv(silu(norm(x))); the normalised x is kept only where backward reads it. */
static dr_status norm_conv(dr_context *cx, const dr_norm_layer *norm, const dr_conv_layer *conv,
                           const dr_tensor *x, dr_tensor *y, dr_tensor *n, dr_tensor *stats,
                           dr_frame keep)
{
    const dr_frame scratch = dr_frame_begin(cx);
    *n = dr_new_like(cx, dr_weight_reads_input(conv->w) ? keep : scratch, x);
    *stats = dr_norm_stats(cx, keep, norm, x);
    dr_status st = dr_norm_forward(cx, norm, x, n, stats);
    if (st == DR_OK) {
        st = dr_conv_forward(cx, conv, n, y);
    }
    dr_frame_end(cx, scratch);
    return st;
}

dr_status dr_resblock_forward(dr_context *cx, const dr_resblock *b, const dr_tensor *x,
                              const dr_tensor *temb_silu, dr_tensor *y, dr_resblock_saved *s,
                              dr_frame keep)
{
    /* 1, 2 */
    s->h = dr_new_like(cx, keep, y);
    DR_TRY(norm_conv(cx, &b->norm1, &b->conv1, x, &s->h, &s->n1, &s->stats1, keep));
    if (b->emb.w != NULL) {
        DR_TRY(add_embedding(cx, b, temb_silu, &s->h));
    }
    /* 3, 4 */
    DR_TRY(norm_conv(cx, &b->norm2, &b->conv2, &s->h, y, &s->n2, &s->stats2, keep));
    /* 5 */
    if (b->shortcut.w != NULL) {
        return dr_linear_forward(cx, &b->shortcut, x, y, DR_ADD);
    }
    return dr_add(cx, &(dr_add_args){.alpha = 1.0f, .beta = 1.0f, .x = y, .z = x, .y = y});
}

static dr_status embedding_backward(dr_context *cx, const dr_resblock *b, const dr_resblock_grad *g,
                                    const dr_tensor *dh)
{
    if (g->dtemb_silu == NULL && !dr_param_is_trained(b->emb.w) && b->emb.b->grad.data == NULL) {
        return DR_OK;
    }
    dr_frame f = dr_frame_begin(cx);
    dr_tensor demb = dr_new(cx, f, 2, DR_DIMS(dh->dim[0], dh->dim[3]));
    dr_status st = dr_sum_rows(cx, &(dr_sum_rows_args){.dy = dh, .dt = &demb, .mode = DR_SET});
    if (st == DR_OK) {
        st = dr_linear_backward(cx, &b->emb, g->temb_silu, &demb, g->dtemb_silu, DR_ADD);
    }
    dr_frame_end(cx, f);
    return st;
}

static dr_status backward_in_frame(dr_context *cx, const dr_resblock *b, const dr_resblock_saved *s,
                                   const dr_resblock_grad *g, dr_frame f)
{
    dr_tensor dn = dr_new_like(cx, f, &s->n2);
    dr_tensor dh = dr_new_like(cx, f, &s->h);
    dr_tensor dn1 = dr_new_like(cx, f, &s->n1);
    /* 5' */
    if (b->shortcut.w != NULL) {
        DR_TRY(dr_linear_backward(cx, &b->shortcut, g->x, g->dy, g->dx, g->mode_dx));
    } else if (g->dx != NULL) {
        DR_TRY(dr_add(cx, &(dr_add_args){.alpha = 1.0f,
                                         .beta = 1.0f,
                                         .x = g->dy,
                                         .z = g->mode_dx == DR_ADD ? g->dx : NULL,
                                         .y = g->dx}));
    }
    /* 4' */
    DR_TRY(dr_conv_backward(cx, &b->conv2, &s->n2, g->dy, &dn, DR_SET));
    /* 3' */
    DR_TRY(dr_norm_backward(cx, &b->norm2, &s->h, &s->stats2, &dn, &dh, DR_SET));
    /* 2' */
    if (b->emb.w != NULL) {
        DR_TRY(embedding_backward(cx, b, g, &dh));
    }
    const bool last = g->dx == NULL && !dr_param_is_trained(b->norm1.w);
    DR_TRY(dr_conv_backward(cx, &b->conv1, &s->n1, &dh, last ? NULL : &dn1, DR_SET));
    /* 1': the shortcut has written dx */
    return dr_norm_backward(cx, &b->norm1, g->x, &s->stats1, &dn1, g->dx, DR_ADD);
}

dr_status dr_resblock_backward(dr_context *cx, const dr_resblock *b, const dr_resblock_saved *saved,
                               const dr_resblock_grad *g)
{
    dr_frame f = dr_frame_begin(cx);
    dr_status st = backward_in_frame(cx, b, saved, g, f);
    dr_frame_end(cx, f);
    return st;
}
