/*
 * One optimizer step: this rank's leaves, the reduction, clipping, the optimizer, and what is said
 * of it.
 */
#include "base/clock.h"
#include "train/device_numbers.h"
#include "train/leaf_graphs.h"
#include "train/lora/lora_norms.h"
#include "train/run_alarms.h"
#include "train/watchdog.h"
#include "train/zero.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct final_gradients { /* what run_leaf's sink needs and says */
    dr_run *r;
    dr_status st;
} final_gradients;

static void report_ready(void *user, int64_t begin, int64_t end)
{
    final_gradients *f = user;
    if (f->st == DR_OK) {
        f->st = dr_network_settle_grads(&f->r->net, begin, end);
    }
    dr_reducer_ready(f->r->reducer, begin, end);
}

static size_t state_bytes(const dr_run *r, const dr_context *cx)
{
    return (size_t)(dr_context_length(&r->net) * r->net.clip.config.width) *
           dr_dtype_size(cx->dtype);
}

/* Whether the states of these captions follow from ids of full length alone, and may be kept. */
static bool may_keep(dr_run *r, const dr_leaf_text *captions)
{
    if (r->c->text_cache_bytes == 0 || captions->weights != NULL ||
        captions->length != DR_TOKEN_ROW) {
        return false;
    }
    if (r->text_cache == NULL) {
        r->text_cache =
            dr_text_cache_create(r->c->text_cache_bytes, (size_t)r->c->n_token_rows * DR_TOKEN_ROW);
    }
    return true;
}

static const int32_t *ids_of(const dr_run *r, const dr_leaf_text *captions, uint32_t i)
{
    return captions->ids + (size_t)i * (size_t)r->c->n_token_rows * DR_TOKEN_ROW;
}

/* States of all n captions from the cache, one after the other, or NULL; the caller frees them. */
static char *find_states(const dr_run *r, const dr_context *cx, uint32_t n,
                         const dr_leaf_text *captions)
{
    size_t bytes = state_bytes(r, cx);
    char *all = dr_xcalloc(n, bytes);
    for (uint32_t i = 0; i < n; i++) {
        const void *one = dr_text_cache_find(r->text_cache, ids_of(r, captions, i));
        if (one == NULL) {
            free(all);
            return NULL;
        }
        memcpy(all + i * bytes, one, bytes);
    }
    return all;
}

static dr_status keep_states(dr_run *r, dr_context *cx, const dr_tensor *context,
                             const dr_leaf_text *captions)
{
    size_t bytes = state_bytes(r, cx);
    uint32_t n = (uint32_t)context->dim[0];
    char *all = dr_xcalloc(n, bytes);
    dr_status st = dr_download(cx, context, all);
    for (uint32_t i = 0; st == DR_OK && i < n; i++) {
        dr_text_cache_add(r->text_cache, ids_of(r, captions, i), all + i * bytes, bytes);
    }
    free(all);
    return st;
}

/* dr_leaf_run, with kept states where the text encoder is frozen; graph: it may be a recording,
 * after which the pool must not be used before all of out has been read. */
static dr_status run_networks(dr_run *r, dr_context *cx, const dr_leaf_input *in,
                              const dr_leaf_text *captions, dr_leaf_options *o, bool graph,
                              dr_frame f, dr_leaf_output *out)
{
    bool keeps = !o->train_text_encoder && may_keep(r, captions);
    char *states = keeps ? find_states(r, cx, (uint32_t)in->latents.dim[0], captions) : NULL;
    o->states = states;
    dr_status st =
        graph ? dr_leaf_graphs_run(r, cx, in, o, f, out) : dr_leaf_run(cx, &r->net, in, o, f, out);
    if (st == DR_OK && keeps && states == NULL) {
        st = keep_states(r, cx, &out->context, captions);
    }
    free(states);
    return st;
}

/* leaf NULL: none any more. */
static void begin_dropout(dr_run *r, const dr_leaf *leaf, uint32_t epoch)
{
    if (r->net.lora == NULL) {
        return;
    }
    const dr_lora_batch b = {.module_dropout = r->c->lora->module_dropout,
                             .seed = r->c->seed,
                             .epoch = epoch,
                             .sample = leaf != NULL ? leaf->samples[0].sample : 0};
    dr_lora_network_draw(r->net.lora, leaf != NULL ? &b : NULL);
}

static dr_status run_leaf(dr_run *r, dr_context *cx, const dr_step *step, const dr_leaf *leaf,
                          uint32_t epoch, bool text, bool dump, double *loss)
{
    const dr_leaf_host host = {
        .timesteps = dr_xcalloc(leaf->n, sizeof(int32_t)),
        .loss_weights = dr_xcalloc(leaf->n, sizeof(float)),
        .keys = dr_xcalloc(leaf->n, sizeof(char *)),
    };
    float *losses = dr_xcalloc(leaf->n, sizeof *losses);
    int64_t h, w;
    dr_latents_size(r->latents, leaf->samples[0].image, &h, &w);
    double t0 = dr_now_s();
    const dr_span span = dr_span_begin();
    dr_leaf_text captions;
    dr_status st = dr_run_leaf_text(r, leaf, epoch, &captions);
    dr_frame f = dr_frame_begin(cx);
    dr_leaf_input in =
        dr_leaf_input_new(cx, &r->net, f, (dr_leaf_shape){leaf->n, h, w, captions.length});
    dr_leaf_output out;
    final_gradients final = {r, DR_OK};
    const dr_grad_sink sink =
        r->c->fused_backward ? dr_run_fused_sink(r) : (dr_grad_sink){report_ready, &final};
    const bool summed_on_host = r->host_grads != NULL && !r->c->fused_backward;
    if (st == DR_OK) {
        st = dr_run_fill_leaf(r, cx, leaf, epoch, step->n_samples, &captions, &in, &host);
    }
    if (st == DR_OK) {
        st = dr_run_inject_input(r, r->step, &in);
    }
    r->data_s += dr_now_s() - t0;
    dr_span_end(span, "inputs", "data");
    if (st == DR_OK) {
        begin_dropout(r, leaf, epoch);
        st = run_networks(
            r, cx, &in, &captions,
            &(dr_leaf_options){.train_text_encoder = text, .sink = summed_on_host ? NULL : &sink},
            !dump, f, &out);
        begin_dropout(r, NULL, epoch);
    }
    dr_leaf_text_free(&captions);
    st = st == DR_OK ? final.st : st;
    if (st == DR_OK) {
        st = dr_download(cx, &out.loss, losses);
    }
    *loss = 0.0;
    for (uint32_t i = 0; i < leaf->n; i++) {
        *loss += (double)host.loss_weights[i] * (double)losses[i];
    }
    if (st == DR_OK && dump) {
        st = dr_dump_add(r->dump, cx,
                         &(dr_dump_leaf){&in, &out, host.timesteps, host.loss_weights, host.keys,
                                         leaf->samples});
    }
    dr_frame_end(cx, f);
    free(host.timesteps);
    free(host.loss_weights);
    free((void *)host.keys);
    free(losses);
    return st;
}

/* This rank's leaves; losses[i] of local leaf i (0 for leaves without samples). */
static dr_status run_leaves(dr_run *r, dr_context *cx, const dr_step *step, uint32_t epoch,
                            bool text, bool dump, double *losses)
{
    int64_t first, n;
    dr_reducer_leaves(r->reducer, &first, &n);
    dr_reducer_begin_step(r->reducer);
    for (int64_t i = 0; i < n; i++) {
        dr_span span = dr_span_begin();
        DR_TRY(dr_network_begin_grads(&r->net));
        dr_span_end(span, "zero gradients", "optimizer");
        losses[i] = 0.0;
        if (first + i < (int64_t)step->n_leaves) {
            DR_TRY(run_leaf(r, cx, step, &step->leaves[first + i], epoch, text, dump, &losses[i]));
        }
        span = dr_span_begin();
        DR_TRY(dr_network_settle_grads(&r->net, 0, r->net.n_grads));
        if (r->host_grads != NULL) {
            DR_TRY(r->backend->device->download(r->host_grads, r->net.grads,
                                                dr_network_grad_bytes(&r->net)));
        }
        dr_reducer_end_leaf(r->reducer);
        dr_span_end(span, "sum of leaves", "reduce");
    }
    return DR_OK;
}

/* Loss of the step: all leaves' losses summed in leaf order, the same on every rank. A rank that
 * was asked to stop says so here, and all of them stop after the same step. */
static dr_status gather_loss(dr_run *r, const dr_step *step, const double *losses, double *out)
{
    enum { COUNT, STOP, HEAD };
    int world = dr_dist_world(r->dist);
    size_t share = (r->n_leaves + (size_t)world - 1) / (size_t)world + HEAD;
    double *mine = dr_xcalloc(share, sizeof *mine);
    double *all = dr_xcalloc(share * (size_t)world, sizeof *all);
    int64_t first, n;
    dr_reducer_leaves(r->reducer, &first, &n);
    mine[COUNT] = (double)n;
    mine[STOP] = (double)dr_stop_signal();
    memcpy(mine + HEAD, losses, (size_t)n * sizeof *losses);
    dr_status st = dr_dist_allgather(r->dist, mine, all, share * sizeof *mine);
    double sum = 0.0;
    for (int q = 0; q < world; q++) {
        const double *of_rank = all + (size_t)q * share;
        for (int64_t i = 0; i < (int64_t)of_rank[COUNT]; i++) {
            sum += of_rank[HEAD + i];
        }
        r->stop_signal = r->stop_signal != 0 ? r->stop_signal : (int)of_rank[STOP];
    }
    free(mine);
    free(all);
    *out = sum / (double)step->n_samples;
    return st;
}

/* Of the gradients without loss scale. */
static dr_status gradient_norm(dr_run *r, dr_context *cx, double *norm)
{
    const dr_tensor g = dr_network_gradients(&r->net);
    double squares = 0.0;
    const dr_status st = dr_sum_of_squares(cx, &g, &squares);
    *norm = sqrt(squares) / r->loss_scale.scale;
    return st;
}

double dr_run_lr_factor(const dr_run *r, int64_t global_step)
{
    return dr_lr_factor(&r->lr, global_step - r->loss_scale.skipped);
}

/* Nothing was changed before; loss and gradient are finite. */
static dr_status update(dr_run *r, dr_context *cx, int64_t global_step, bool text, double norm)
{
    const dr_train_config *c = r->c;
    const double factor = dr_run_lr_factor(r, global_step);
    const bool *frozen = dr_run_frozen_groups(r, text);
    double clip = 1.0;
    if (c->max_grad_norm > 0.0 && c->max_grad_norm / (norm + 1e-6) < 1.0) { /* torch's clip */
        clip = c->max_grad_norm / (norm + 1e-6);
    }
    DR_TRY(dr_dead_watch_gradients(r, cx, 0, r->net.n_trained));
    DR_TRY(dr_optimizer_step(r->optimizer, cx,
                             &(dr_optim_step){.lr_factor = factor,
                                              .grad_scale = clip / r->loss_scale.scale,
                                              .frozen = frozen}));
    DR_TRY(dr_zero_spread(r));
    DR_TRY(dr_network_refresh(&r->net, cx, 0, r->net.n_trained));
    dr_run_was_finite(r);
    return dr_dead_watch_step(r, factor);
}

/*
 * Whether the loss scale answers for numbers that are not finite: the step is left out and the
 * scale halved. A loss that is not finite twice in a row does not come from the scale.
 */
static bool scale_takes(const dr_run *r, double loss)
{
    const dr_loss_scale *s = &r->loss_scale;
    const bool again = s->good == 0 && s->skipped > 0;
    return dr_precision_scales_loss(r->net.o.precision) && s->scale > DR_LOSS_SCALE_LEAST &&
           (isfinite(loss) || !again);
}

static dr_status write_dump(dr_run *r, const dr_step *step, uint32_t epoch, int64_t global_step,
                            double norm, double loss)
{
    double factor = dr_run_lr_factor(r, global_step);
    int rank = dr_dist_rank(r->dist);
    const dr_lora_settings *lora = r->c->lora;
    return dr_dump_write(
        r->dump,
        &(dr_dump_step){.dir = r->c->dump_dir,
                        .step = global_step + 1,
                        .epoch = epoch,
                        .rank = rank,
                        .global_batch = step->n_samples,
                        .lr_unet = (lora != NULL ? lora->lr_unet : r->c->lr) * factor,
                        .lr_text_encoder =
                            (lora != NULL ? lora->lr_text_encoder : r->c->lr_text_encoder) * factor,
                        .grad_norm = norm,
                        .loss = loss,
                        .loss_scale = r->loss_scale.scale,
                        .gradients = rank == 0 ? &r->net : NULL});
}

/* After an update, with --scale_weight_norms; *norms.n_scaled is -1 without. */
static dr_status limit_norms(dr_run *r, dr_context *cx, bool updated, dr_lora_norms *norms)
{
    const double limit = r->c->lora != NULL ? r->c->lora->norm_limit : 0.0;
    *norms = (dr_lora_norms){.n_scaled = -1};
    return updated && limit > 0.0 ? dr_lora_limit_norms(&r->net, cx, limit, norms) : DR_OK;
}

dr_status dr_run_step(dr_run *r, const dr_step *step, uint32_t epoch, int64_t global_step)
{
    dr_context cx; /* of the optimizer: the networks have another type */
    double t0 = dr_now_s();
    double loss = 0.0;
    double norm = 0.0;
    bool text = global_step < r->c->stop_text_encoder && r->trains_text_encoder;
    bool dump = r->c->dump_dir != NULL && global_step < r->c->dump_steps;
    double *losses = dr_xcalloc(r->n_leaves, sizeof *losses);
    r->data_s = 0.0;
    dr_context_init(&cx, r->backend, r->pool, r->c->threads);
    if (r->c->fused_backward) {
        dr_run_fused_begin(r, &cx, global_step, text);
    }
    dr_context networks = dr_network_context(&r->net, r->pool);
    dr_status st = run_leaves(r, &networks, step, epoch, text, dump, losses);
    if (st != DR_OK) { /* the others are inside the reduction: they cannot be asked any more */
        free(losses);
        dr_dist_abort(r->dist, st);
    }
    dr_watchdog_does(DR_DOES_WAIT);
    dr_span span = dr_span_begin();
    st = dr_reducer_wait(r->reducer);
    if (st == DR_OK && r->host_grads != NULL) {
        st = r->backend->device->upload(r->net.grads, r->host_grads,
                                        (size_t)(r->net.n_trained) * sizeof(float));
    }
    if (st == DR_OK) {
        st = gather_loss(r, step, losses, &loss);
    }
    free(losses);
    DR_TRY(st);
    dr_span_end(span, "wait for gradients", "reduce");
    dr_watchdog_does(DR_DOES_STEP);
    span = dr_span_begin();
    if (!r->c->fused_backward) {
        DR_TRY(dr_run_inject_gradients(r, global_step));
    }
    DR_TRY(r->c->fused_backward ? dr_run_fused_end(r, &norm) : gradient_norm(r, &cx, &norm));
    dr_span_end(span, "norm", "optimizer");
    if (dump) {
        DR_TRY(dr_dist_agree(r->dist, write_dump(r, step, epoch, global_step, norm, loss)));
    }
    const bool good = isfinite(loss) && isfinite(norm);
    span = dr_span_begin();
    if (good && !r->c->fused_backward) {
        DR_TRY(update(r, &cx, global_step, text, norm));
        DR_TRY(dr_run_inject_flip(r, global_step));
    } else if (!good && !scale_takes(r, loss)) {
        const dr_step_place place = {step, epoch, global_step, text};
        DR_TRY(dr_run_not_finite(r, &place, loss, norm));
    }
    dr_lora_norms norms;
    DR_TRY(limit_norms(r, &cx, good, &norms));
    dr_span_end(span, "update", "optimizer");
    if (dr_precision_scales_loss(r->net.o.precision)) {
        dr_loss_scale_update(&r->loss_scale, good);
    }
    span = dr_span_begin();
    if (dr_dist_rank(r->dist) == 0 && !r->nan.going_back) {
        dr_run_note_step(
            r, (dr_progress_step){.step = global_step + 1,
                                  .epoch = epoch,
                                  .loss = loss,
                                  .lr = dr_optimizer_last_lr(r->optimizer, r->shown_group),
                                  .grad_norm = norm,
                                  .n_scaled = (double)norms.n_scaled,
                                  .mean_norm = norms.mean,
                                  .largest_norm = norms.largest,
                                  .samples = step->n_samples,
                                  .data_s = r->data_s,
                                  .skipped = !good,
                                  .n_skipped = r->loss_scale.skipped,
                                  .loss_scale = r->loss_scale.scale,
                                  .step_s = dr_now_s() - t0});
    }
    dr_span_end(span, "report", "report");
    return DR_OK;
}
