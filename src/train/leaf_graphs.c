#include "train/leaf_graphs.h"

#include "base/arena.h"
#include "base/log.h"

#include <stdlib.h>
#include <string.h>

typedef struct leaf_key { /* leaves with equal keys are the same work */
    int64_t n, h, w, length;
    bool text, states;
    const void *first_input; /* addresses follow from the shape; here as a check */
} leaf_key;

typedef struct leaf_graph {
    leaf_key key;
    dr_leaf_output out;
    void *recording; /* NULL: not yet */
} leaf_graph;

struct dr_leaf_graphs {
    const dr_recorder *recorder;
    leaf_graph *at;
    size_t n, cap;
    bool off; /* recording has failed */
};

static bool drops(const dr_lora_settings *lora)
{
    if (lora == NULL) {
        return false;
    }
    const dr_adapter_dropout *d = &lora->dropout;
    return lora->module_dropout > 0.0 || d->elements > 0.0F || d->ranks > 0.0F || d->rows > 0.0F ||
           d->output > 0.0F;
}

static const char *why_not(const dr_run *r)
{
    const dr_train_config *c = r->c;
    if (!c->graphs) {
        return "--cuda_graphs off";
    }
    if (dr_dist_world(r->dist) > 1) {
        return "with several ranks gradients are exchanged while backward goes on";
    }
    if (c->fused_backward) {
        return "--fused_backward_pass steps while backward goes on";
    }
    if (r->backend->sets_fresh) {
        return "gradients are set by their first writer, which a recording would not be told";
    }
    if (c->profile != NULL) {
        return "--profile looks at every operation";
    }
    return drops(c->lora) ? "dropout leaves out other parts of the LoRA in every batch" : NULL;
}

dr_leaf_graphs *dr_leaf_graphs_create(const dr_run *r)
{
    const dr_recorder *recorder = r->backend->recorder;
    if (recorder == NULL) {
        return NULL;
    }
    const char *why = why_not(r);
    dr_info("CUDA graphs: %s%s",
            why == NULL ? "one for each shape of a batch" : "none: ", why == NULL ? "" : why);
    if (why != NULL) {
        return NULL;
    }
    dr_leaf_graphs *g = dr_xcalloc(1, sizeof *g);
    g->recorder = recorder;
    return g;
}

void dr_leaf_graphs_destroy(dr_leaf_graphs *g)
{
    for (size_t i = 0; g != NULL && i < g->n; i++) {
        g->recorder->forget(g->at[i].recording);
    }
    if (g != NULL) {
        free(g->at);
    }
    free(g);
}

static leaf_key key_of(const dr_leaf_input *in, const dr_leaf_options *o)
{
    return (leaf_key){.n = in->latents.dim[0],
                      .h = in->latents.dim[1],
                      .w = in->latents.dim[2],
                      .length = in->ids.dim[1],
                      .text = o->train_text_encoder,
                      .states = o->states != NULL,
                      .first_input = in->latents.data};
}

static bool same_key(const leaf_key *a, const leaf_key *b)
{
    return a->n == b->n && a->h == b->h && a->w == b->w && a->length == b->length &&
           a->text == b->text && a->states == b->states && a->first_input == b->first_input;
}

static leaf_graph *find(dr_leaf_graphs *g, const leaf_key *key)
{
    for (size_t i = 0; i < g->n; i++) {
        if (same_key(&g->at[i].key, key)) {
            return &g->at[i];
        }
    }
    return NULL;
}

static void add(dr_leaf_graphs *g, const leaf_key *key, const dr_leaf_output *out)
{
    if (g->n == g->cap) {
        g->cap = g->cap > 0 ? 2 * g->cap : 8;
        g->at = dr_xrealloc(g->at, g->cap, sizeof *g->at);
    }
    g->at[g->n++] = (leaf_graph){.key = *key, .out = *out};
}

static dr_status run_recorded(dr_context *cx, dr_network *net, const dr_leaf_input *in,
                              const dr_leaf_options *o, const leaf_graph *g)
{
    dr_leaf_options recorded = *o;
    dr_leaf_output out;
    recorded.states_are_there = o->states != NULL;
    recorded.sink = NULL; /* of one rank: nobody waits for ranges, and end_leaf takes them all */
    const dr_frame f = dr_frame_begin(cx);
    const dr_status st = dr_leaf_run(cx, net, in, &recorded, f, &out);
    dr_frame_end(cx, f);
    DR_CHECK(st != DR_OK ||
                 (out.loss.data == g->out.loss.data && out.context.data == g->out.context.data),
             "a leaf of the same shape has other addresses");
    return st;
}

static dr_status do_without(dr_leaf_graphs *all)
{
    dr_warn("CUDA graphs: none from here on: %s", dr_error_message());
    dr_error_clear();
    all->off = true;
    return DR_OK;
}

/* Records the work of a shape that was seen once. A device that cannot is only found out; an
 * operation that fails in between has left its memory as it was, and ends the run. */
static dr_status record(dr_leaf_graphs *all, dr_context *cx, dr_network *net,
                        const dr_leaf_input *in, const dr_leaf_options *o, leaf_graph *g)
{
    if (all->recorder->begin() != DR_OK) {
        return do_without(all);
    }
    dr_status st = run_recorded(cx, net, in, o, g);
    if (st != DR_OK) {
        st = dr_error_set(st, __FILE__, __LINE__,
                          "%s (while it was recorded as a CUDA graph: --cuda_graphs off)",
                          dr_error_message());
        dr_error_copy first;
        dr_error_export(&first);
        (void)all->recorder->end(&g->recording);
        dr_error_import(&first);
        return st;
    }
    return all->recorder->end(&g->recording) == DR_OK ? DR_OK : do_without(all);
}

dr_status dr_leaf_graphs_run(dr_run *r, dr_context *cx, const dr_leaf_input *in,
                             const dr_leaf_options *o, dr_frame f, dr_leaf_output *out)
{
    dr_leaf_graphs *all = r->graphs;
    const leaf_key key = key_of(in, o);
    if (all == NULL || all->off) {
        return dr_leaf_run(cx, &r->net, in, o, f, out);
    }
    leaf_graph *g = find(all, &key);
    if (g == NULL) {
        DR_TRY(dr_leaf_run(cx, &r->net, in, o, f, out));
        add(all, &key, out);
        return DR_OK;
    }
    if (g->recording == NULL) {
        DR_TRY(record(all, cx, &r->net, in, o, g));
    }
    if (all->off) {
        return dr_leaf_run(cx, &r->net, in, o, f, out);
    }
    *out = g->out;
    if (o->states != NULL) {
        DR_TRY(dr_upload(cx, &g->out.context, o->states));
    }
    return all->recorder->play(g->recording);
}
