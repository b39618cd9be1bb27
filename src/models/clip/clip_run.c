/*
 * Forward and backward of the text encoder. Value 0 is the embedding, value i the output of layer
 * i-1. Backward carries one buffer d down the layers: it enters a layer as the gradient of the
 * output and leaves it as the gradient of the input.
 */
#include "models/clip/clip.h"

#include "ops/embedding.h"

#include <stdlib.h>

typedef struct layer_saved {
    dr_frame keep; /* 0: nothing kept */
    dr_tensor n1, stats1;
    dr_mha_saved attn;
    dr_tensor h; /* after attention */
    dr_tensor n2, stats2;
    dr_tensor f, a; /* before and after the activation */
} layer_saved;

typedef struct value {
    dr_tensor t;
    dr_frame frame; /* 0: not alive */
} value;

struct dr_clip_run {
    const dr_clip *m;
    dr_clip_options options;
    int n_layers; /* that run: without the skipped ones */
    const dr_tensor *ids;
    value *values;      /* n_layers + 1 */
    layer_saved *saved; /* n_layers */
    dr_frame final_frame;
    dr_tensor final_stats;
};

dr_clip_run *dr_clip_run_create(const dr_clip *m, dr_clip_options options)
{
    DR_CHECK(options.clip_skip >= 1 && options.clip_skip <= m->config.layers + 1,
             "clip_skip %d of %d layers", options.clip_skip, m->config.layers);
    dr_clip_run *r = dr_xcalloc(1, sizeof *r);
    r->m = m;
    r->options = options;
    r->n_layers = m->config.layers - (options.clip_skip - 1);
    r->values = dr_xcalloc((size_t)r->n_layers + 1, sizeof *r->values);
    r->saved = dr_xcalloc((size_t)r->n_layers + 1, sizeof *r->saved);
    return r;
}

void dr_clip_run_destroy(dr_clip_run *r)
{
    if (r != NULL) {
        free(r->values);
        free(r->saved);
        free(r);
    }
}

static void end_frame(dr_context *cx, dr_frame *f)
{
    if (*f != 0) {
        dr_frame_end(cx, *f);
        *f = 0;
    }
}

static dr_status copy(dr_context *cx, const dr_tensor *x, dr_tensor *y)
{
    return dr_add(cx, &(dr_add_args){.alpha = 1.0f, .x = x, .y = y});
}

/* ---- one layer ----------------------------------------------------------------------------- */

/* h = x + attn(ln1(x)); y = h + fc2(act(fc1(ln2(h)))) */
static dr_status layer_forward(dr_context *cx, const dr_clip_run *r, int i, dr_tensor *y,
                               dr_frame keep)
{
    const dr_clip_layer *l = &r->m->layer[i];
    const dr_tensor *x = &r->values[i].t;
    layer_saved *s = &r->saved[i];
    /* 1 */
    s->n1 = dr_new_like(cx, keep, x);
    s->stats1 = dr_norm_stats(cx, keep, &l->norm1, x);
    DR_TRY(dr_norm_forward(cx, &l->norm1, x, &s->n1, &s->stats1));
    /* 2 */
    s->h = dr_new_like(cx, keep, x);
    DR_TRY(copy(cx, x, &s->h));
    DR_TRY(dr_mha_forward(cx, &l->attn, &s->n1, &s->n1, &s->h, DR_ADD, &s->attn, keep));
    /* 3 */
    s->n2 = dr_new_like(cx, keep, x);
    s->stats2 = dr_norm_stats(cx, keep, &l->norm2, x);
    DR_TRY(dr_norm_forward(cx, &l->norm2, &s->h, &s->n2, &s->stats2));
    /* 4 */
    s->f = dr_new(cx, keep, 3, DR_DIMS(x->dim[0], x->dim[1], r->m->config.mlp_width));
    s->a = dr_new_like(cx, keep, &s->f);
    DR_TRY(dr_linear_forward(cx, &l->fc1, &s->n2, &s->f, DR_SET));
    DR_TRY(
        dr_activation(cx, &(dr_activation_args){.kind = r->m->config.act, .x = &s->f, .y = &s->a}));
    /* 5 */
    DR_TRY(copy(cx, &s->h, y));
    return dr_linear_forward(cx, &l->fc2, &s->a, y, DR_ADD);
}

static dr_status mlp_backward(dr_context *cx, const dr_clip_run *r, int i, dr_tensor *d, dr_frame f)
{
    const dr_clip_layer *l = &r->m->layer[i];
    const layer_saved *s = &r->saved[i];
    dr_tensor df = dr_new_like(cx, f, &s->f);
    dr_tensor dn2 = dr_new_like(cx, f, d);
    /* 5' */
    DR_TRY(dr_linear_backward(cx, &l->fc2, &s->a, d, &df, DR_SET));
    /* 4' */
    DR_TRY(dr_activation_backward(
        cx, &(dr_activation_backward_args){
                .kind = r->m->config.act, .dy = &df, .x = &s->f, .dx = &df, .mode = DR_SET}));
    DR_TRY(dr_linear_backward(cx, &l->fc1, &s->n2, &df, &dn2, DR_SET));
    /* 3' */
    return dr_norm_backward(cx, &l->norm2, &s->h, &s->stats2, &dn2, d, DR_ADD);
}

static dr_status attention_backward(dr_context *cx, const dr_clip_run *r, int i, dr_tensor *d,
                                    dr_frame f)
{
    const dr_clip_layer *l = &r->m->layer[i];
    const layer_saved *s = &r->saved[i];
    dr_tensor dn1 = dr_new_like(cx, f, d);
    /* 2' */
    DR_TRY(dr_mha_backward(
        cx, &l->attn, &s->attn,
        &(dr_mha_grad){
            .dy = d, .x = &s->n1, .c = &s->n1, .dx = &dn1, .mode_dx = DR_SET, .dc = &dn1}));
    /* 1' */
    return dr_norm_backward(cx, &l->norm1, &r->values[i].t, &s->stats1, &dn1, d, DR_ADD);
}

static dr_status run_layer(dr_context *cx, dr_clip_run *r, int i)
{
    value *y = &r->values[i + 1];
    y->frame = dr_frame_begin(cx);
    y->t = dr_new_like(cx, y->frame, &r->values[i].t);
    dr_frame keep = dr_frame_begin(cx);
    DR_TRY(layer_forward(cx, r, i, &y->t, keep));
    if (r->options.train && !r->options.checkpointing) {
        r->saved[i].keep = keep;
    } else {
        dr_frame_end(cx, keep);
    }
    if (!r->options.train) {
        end_frame(cx, &r->values[i].frame);
    }
    return DR_OK;
}

static dr_status run_layer_backward(dr_context *cx, dr_clip_run *r, int i, dr_tensor *d)
{
    layer_saved *s = &r->saved[i];
    end_frame(cx, &r->values[i + 1].frame); /* only the next layer read it */
    if (r->options.checkpointing) {         /* run again to have what backward reads */
        s->keep = dr_frame_begin(cx);
        dr_frame scratch = dr_frame_begin(cx);
        dr_tensor y = dr_new_like(cx, scratch, d);
        DR_TRY(layer_forward(cx, r, i, &y, s->keep));
        dr_frame_end(cx, scratch);
    }
    dr_frame f = dr_frame_begin(cx);
    DR_TRY(mlp_backward(cx, r, i, d, f));
    dr_frame_end(cx, f);
    f = dr_frame_begin(cx);
    DR_TRY(attention_backward(cx, r, i, d, f));
    dr_frame_end(cx, f);
    end_frame(cx, &s->keep);
    return DR_OK;
}

/* ---- the whole ----------------------------------------------------------------------------- */

static dr_status final_norm(dr_context *cx, dr_clip_run *r, dr_tensor *out)
{
    value *last = &r->values[r->n_layers];
    r->final_frame = dr_frame_begin(cx);
    r->final_stats = dr_norm_stats(cx, r->final_frame, &r->m->final_norm, &last->t);
    DR_TRY(dr_norm_forward(cx, &r->m->final_norm, &last->t, out, &r->final_stats));
    if (!r->options.train) {
        end_frame(cx, &r->final_frame);
        end_frame(cx, &last->frame);
    }
    return DR_OK;
}

dr_status dr_clip_forward(dr_context *cx, dr_clip_run *r, const dr_tensor *ids, dr_tensor *out)
{
    const dr_clip *m = r->m;
    DR_CHECK(ids->rank == 2 && ids->dim[1] <= m->config.positions,
             "text encoder: %lld tokens, at most %lld", (long long)ids->dim[1],
             (long long)m->config.positions);
    r->ids = ids;
    value *first = &r->values[0];
    first->frame = dr_frame_begin(cx);
    first->t = dr_new(cx, first->frame, 3, DR_DIMS(ids->dim[0], ids->dim[1], m->config.width));
    DR_TRY(dr_embedding(cx, &(dr_embedding_args){.ids = ids,
                                                 .tokens = &m->tokens->value,
                                                 .positions = &m->positions->value,
                                                 .y = &first->t}));
    for (int i = 0; i < r->n_layers; i++) {
        DR_TRY(run_layer(cx, r, i));
    }
    return final_norm(cx, r, out);
}

/* segment 0: embeddings; 1 .. layers: layers; layers + 1: final norm */
static void report(const dr_clip *m, const dr_grad_sink *sink, int segment)
{
    if (sink != NULL) {
        int64_t begin;
        int64_t end;
        dr_params_segment_range(m->trained, m->first_segment + segment, &begin, &end);
        sink->ready(sink->user, begin, end);
    }
}

/* The first segment that wants a gradient: nothing before it needs a backward. */
static int first_trained_segment(const dr_clip *m)
{
    int first = m->config.layers + 1;
    for (size_t i = 0; i < m->params->n; i++) {
        const dr_param *p = m->params->at[i];
        const int segment = p->segment - m->first_segment;
        if (dr_param_is_trained(p) && segment >= 0 && segment < first) {
            first = segment;
        }
    }
    return first;
}

static dr_status embedding_backward(dr_context *cx, const dr_clip_run *r, const dr_tensor *d)
{
    dr_param *tokens = r->m->tokens;
    dr_param *positions = r->m->positions;
    return dr_embedding_backward(
        cx, &(dr_embedding_backward_args){
                .dy = d,
                .ids = r->ids,
                .dtokens = tokens->grad.data != NULL ? &tokens->grad : NULL,
                .dpositions = positions->grad.data != NULL ? &positions->grad : NULL});
}

static dr_status backward_layers(dr_context *cx, dr_clip_run *r, dr_tensor *d,
                                 const dr_grad_sink *sink)
{
    const dr_clip *m = r->m;
    const int first = first_trained_segment(m);
    for (int i = m->config.layers - 1; i >= 0; i--) {
        if (i < r->n_layers && i + 1 >= first) {
            DR_TRY(run_layer_backward(cx, r, i, d));
        }
        report(m, sink, i + 1);
    }
    if (first == 0) {
        DR_TRY(embedding_backward(cx, r, d));
    }
    report(m, sink, 0);
    return DR_OK;
}

static void release(dr_context *cx, dr_clip_run *r)
{
    for (int i = 0; i <= r->n_layers; i++) {
        end_frame(cx, &r->values[i].frame);
        end_frame(cx, &r->saved[i].keep);
    }
    end_frame(cx, &r->final_frame);
}

dr_status dr_clip_backward(dr_context *cx, dr_clip_run *r, const dr_tensor *dout,
                           const dr_grad_sink *sink)
{
    const dr_clip *m = r->m;
    DR_CHECK(r->options.train && r->final_frame != 0,
             "text encoder: backward without a training forward");
    dr_frame f = dr_frame_begin(cx);
    dr_tensor d = dr_new_like(cx, f, dout);
    DR_TRY(dr_norm_backward(cx, &m->final_norm, &r->values[r->n_layers].t, &r->final_stats, dout,
                            &d, DR_SET));
    report(m, sink, m->config.layers + 1);
    DR_TRY(backward_layers(cx, r, &d, sink));
    dr_frame_end(cx, f);
    release(cx, r);
    return DR_OK;
}
