/*
 * Where the numbers of a step go wrong first: its batches run again with every part looked at.
 */
#include "train/device_numbers.h"
#include "train/run_alarms.h"

#include <stdlib.h>

/* ---- looking ------------------------------------------------------------------------------- */

/* A failure to look is no finding. */
static bool is_bad(const dr_run *r, const dr_tensor *t, int64_t *at)
{
    if (dr_first_not_finite(r->backend->device, t, at) != DR_OK) {
        dr_error_clear();
        return false;
    }
    return *at >= 0;
}

/* ---- parameters ---------------------------------------------------------------------------- */

static bool search_weights(const dr_run *r, dr_str *found)
{
    int64_t at;
    for (size_t g = 0; g < r->n_groups; g++) {
        for (size_t i = 0; i < r->groups[g].n; i++) {
            if (is_bad(r, &r->groups[g].at[i]->value, &at)) {
                dr_str_printf(found,
                              "the trained weights: %s %s holds NaN or infinity since the step "
                              "before",
                              r->groups[g].name, r->groups[g].at[i]->name);
                return true;
            }
        }
    }
    return false;
}

const dr_param *dr_run_bad_gradient(const dr_run *r, int64_t begin, int64_t end)
{
    const dr_param *bad = NULL;
    int64_t bad_at = -1;
    int64_t element;
    for (size_t g = 0; g < r->n_groups; g++) {
        for (size_t i = 0; i < r->groups[g].n; i++) {
            const dr_param *p = r->groups[g].at[i];
            const int64_t at = r->net.trained[r->group_part[g]].at + p->offset;
            if (at >= begin && at < end && at > bad_at && is_bad(r, &p->grad, &element)) {
                bad = p;
                bad_at = at;
            }
        }
    }
    return bad;
}

/* ---- one batch ----------------------------------------------------------------------------- */

typedef struct search {
    dr_run *r;
    const dr_step_place *p;
    const dr_leaf *leaf;
    const dr_leaf_host *host;
    dr_str *found;
    int segment; /* of the U-Net, whose output was the first; -1: none */
    uint32_t sample;
} search;

/* What is wrong, and with which sample of the leaf. */
static void tell(const search *s, const char *what, uint32_t sample)
{
    const dr_sample_ref *ref = &s->leaf->samples[sample];
    dr_str caption = {0};
    dr_run_caption(s->r, ref, s->p->epoch, &caption);
    dr_str_printf(s->found, "%s, of %s, timestep %d, caption '%s'", what,
                  s->r->dataset.images[ref->image].path, (int)s->host->timesteps[sample],
                  dr_str_get(&caption));
    if (s->leaf->n > 1) {
        dr_str_printf(s->found, " (picture %u of %u in its batch)", sample + 1, s->leaf->n);
    }
    dr_str_free(&caption);
}

/* A tensor whose first dimension is the leaf's samples. */
static bool search_tensor(const search *s, const dr_tensor *t, const char *what)
{
    int64_t at;
    if (!is_bad(s->r, t, &at)) {
        return false;
    }
    tell(s, what, (uint32_t)(at / (dr_numel(t) / s->leaf->n)));
    return true;
}

static void see_segment(void *user, int segment, const dr_tensor *output)
{
    search *s = user;
    int64_t at;
    if (s->segment < 0 && is_bad(s->r, output, &at)) {
        s->segment = segment;
        s->sample = (uint32_t)(at / (dr_numel(output) / s->leaf->n));
    }
}

/* "the output of down_blocks.1.resnets.0 of the U-Net": the first parameter without its own name.
 */
static void tell_segment(const search *s)
{
    const dr_params *set = &s->r->net.unet_params;
    dr_str what = {0};
    for (size_t i = 0; what.len == 0 && i < set->n; i++) {
        if (set->at[i]->segment == s->segment) {
            const char *name = set->at[i]->name;
            int dots = 0;
            size_t n = 0;
            for (; name[n] != '\0' && !(name[n] == '.' && ++dots == 4); n++) {
            }
            dr_str_printf(&what, "the output of the U-Net's part that begins with %.*s", (int)n,
                          name);
        }
    }
    tell(s, dr_str_get(&what), s->sample);
    dr_str_free(&what);
}

static void search_outputs(search *s, const dr_leaf_input *in, const dr_leaf_output *out)
{
    if (search_tensor(s, &in->latents, "the latent") || search_tensor(s, &in->noise, "the noise") ||
        search_tensor(s, &out->context, "the text encoder's states")) {
        return;
    }
    if (s->segment >= 0) {
        tell_segment(s);
        return;
    }
    if (search_tensor(s, &out->pred, "the U-Net's prediction") ||
        search_tensor(s, &out->loss, "the loss")) {
        return;
    }
    const bool kept = !s->r->c->fused_backward; /* the gradients of all segments */
    const dr_param *bad = kept ? dr_run_bad_gradient(s->r, 0, s->r->net.n_trained) : NULL;
    if (bad != NULL) {
        dr_str what = {0};
        dr_str_printf(&what, "the gradient of %s in a batch that begins with that", bad->name);
        tell(s, dr_str_get(&what), 0);
        dr_str_free(&what);
    }
}

/* For a backward whose gradients are looked at, if at all, when it is over. */
static void discard_ready(void *user, int64_t begin, int64_t end)
{
    dr_run *r = user;
    if (r->c->fused_backward && end > begin) { /* the next segment's gradients come there, too */
        const size_t bytes =
            (size_t)(end - begin) * dr_dtype_size(dr_precision_grads(r->net.o.precision));
        if (r->backend->device->zero(r->net.grads, bytes) != DR_OK) {
            dr_error_clear(); /* the next real step meets the broken device */
        }
    }
}

static dr_status run_again(search *s, dr_context *cx, dr_frame f, const dr_leaf_text *captions)
{
    dr_run *r = s->r;
    int64_t h, w;
    dr_latents_size(r->latents, s->leaf->samples[0].image, &h, &w);
    dr_leaf_input in =
        dr_leaf_input_new(cx, &r->net, f, (dr_leaf_shape){s->leaf->n, h, w, captions->length});
    dr_leaf_output out;
    DR_TRY(dr_run_fill_leaf(r, cx, s->leaf, s->p->epoch, s->p->step->n_samples, captions, &in,
                            s->host));
    DR_TRY(dr_run_inject_input(r, s->p->global_step, &in));
    DR_TRY(r->backend->device->zero(r->net.grads, dr_network_grad_bytes(&r->net)));
    dr_unet_watch(r->net.unet_run, see_segment, s);
    const dr_grad_sink sink = {discard_ready, r};
    const dr_leaf_options o = {.train_text_encoder = s->p->text, .sink = &sink};
    const dr_status st = dr_leaf_run(cx, &r->net, &in, &o, f, &out);
    dr_unet_watch(r->net.unet_run, NULL, NULL);
    DR_TRY(st);
    search_outputs(s, &in, &out);
    return DR_OK;
}

static void search_leaf(dr_run *r, dr_context *cx, const dr_step_place *p, const dr_leaf *leaf,
                        dr_str *found)
{
    const dr_leaf_host host = {
        .timesteps = dr_xcalloc(leaf->n, sizeof(int32_t)),
        .loss_weights = dr_xcalloc(leaf->n, sizeof(float)),
        .keys = dr_xcalloc(leaf->n, sizeof(char *)),
    };
    search s = {.r = r, .p = p, .leaf = leaf, .host = &host, .found = found, .segment = -1};
    dr_leaf_text captions;
    dr_frame f = dr_frame_begin(cx);
    dr_status st = dr_run_leaf_text(r, leaf, p->epoch, &captions);
    if (st == DR_OK) {
        st = run_again(&s, cx, f, &captions);
    }
    dr_frame_end(cx, f);
    dr_leaf_text_free(&captions);
    if (st != DR_OK) {
        dr_error_clear(); /* the search found nothing; the step's own error is told */
    }
    free(host.timesteps);
    free(host.loss_weights);
    free((void *)host.keys);
}

void dr_run_search_nan(dr_run *r, const dr_step_place *p, dr_str *found)
{
    dr_context cx = dr_network_context(&r->net, r->pool);
    int64_t first, n;
    if (search_weights(r, found)) {
        return;
    }
    /* before they are used again; of a fused step they are gone */
    const bool fused = r->c->fused_backward;
    const dr_param *sum = fused ? r->fused.bad : dr_run_bad_gradient(r, 0, r->net.n_trained);
    dr_reducer_leaves(r->reducer, &first, &n);
    for (int64_t i = 0; found->len == 0 && i < n; i++) {
        if (first + i < (int64_t)p->step->n_leaves) {
            search_leaf(r, &cx, p, &p->step->leaves[first + i], found);
        }
    }
    /* the last rank, so that a rank whose batches show it is heard first */
    if (found->len == 0 && sum != NULL && dr_dist_rank(r->dist) == dr_dist_world(r->dist) - 1) {
        dr_str_printf(found, "the gradient of %s%s", sum->name,
                      fused ? "" : ", of which every batch alone is finite");
    }
}
