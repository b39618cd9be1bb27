#include "train/network.h"

#include "ops/diffusion_ops.h"
#include "ops/pointwise.h"
#include "text/tokenizer.h"

static int64_t largest_segment(const dr_params *set)
{
    int64_t most = 0;
    for (int s = 0; s < set->n_segments; s++) {
        int64_t begin;
        int64_t end;
        dr_params_segment_range(set, s, &begin, &end);
        most = end - begin > most ? end - begin : most;
    }
    return most;
}

/* The trained part is [text encoder | U-Net], or one of them alone. */
static void place_trained(dr_network *n)
{
    int64_t largest = 0;
    n->n_trained = 0;
    for (int part = DR_PART_TEXT_ENCODER; part >= DR_PART_UNET; part--) {
        dr_params *set = n->trained[part].set;
        if (set == NULL) {
            continue;
        }
        const int64_t segment = largest_segment(set);
        n->trained[part].at = n->n_trained;
        n->n_trained += set->n_elems;
        largest = segment > largest ? segment : largest;
    }
    n->n_grads = n->o.one_segment_of_grads ? largest : n->n_trained;
}

dr_status dr_network_init(dr_network *n, const dr_model_config *config, const dr_network_options *o)
{
    *n = (dr_network){.o = *o};
    dr_arena_init(&n->arena);
    dr_params_init(&n->text_params, &n->arena);
    dr_params_init(&n->unet_params, &n->arena);
    DR_TRY(dr_clip_config_check(&config->clip));
    DR_TRY(dr_unet_config_check(&config->unet));
    if (config->clip.width != config->unet.context_dim) {
        DR_FAIL(DR_FORMAT,
                "the text encoder is %lld wide, but the U-Net's cross attention expects %lld: the "
                "model mixes two families",
                (long long)config->clip.width, (long long)config->unet.context_dim);
    }
    if (config->clip.vocab < DR_TOKEN_VOCAB || config->clip.positions < DR_TOKEN_ROW) {
        DR_FAIL(DR_FORMAT,
                "the text encoder knows %lld tokens at %lld positions, the CLIP tokenizer gives %d "
                "at %d",
                (long long)config->clip.vocab, (long long)config->clip.positions, DR_TOKEN_VOCAB,
                DR_TOKEN_ROW);
    }
    if (o->clip_skip > config->clip.layers) {
        DR_FAIL(DR_INVALID, "--clip_skip %d: the text encoder has %d layers", o->clip_skip,
                config->clip.layers);
    }
    dr_clip_init(&n->clip, &config->clip, &n->text_params);
    dr_unet_init(&n->unet, &config->unet, &n->unet_params);
    n->n_values = n->text_params.n_elems + n->unet_params.n_elems;
    if (o->lora != NULL) {
        DR_TRY(dr_network_add_lora(n));
    } else {
        dr_params_set_trainable(&n->text_params, o->train_text_encoder);
        n->trained[DR_PART_UNET].set = &n->unet_params;
        n->trained[DR_PART_TEXT_ENCODER].set = o->train_text_encoder ? &n->text_params : NULL;
    }
    if (o->train_text_encoder) {
        dr_clip_freeze_skipped(&n->clip, o->clip_skip);
    }
    place_trained(n);
    dr_clip_options clip = {.checkpointing = o->checkpointing, .clip_skip = o->clip_skip};
    n->clip_eval = dr_clip_run_create(&n->clip, clip);
    if (o->train_text_encoder) {
        clip.train = true;
        n->clip_train = dr_clip_run_create(&n->clip, clip);
    }
    n->unet_run = dr_unet_run_create(&n->unet, (dr_unet_options){.train = o->train,
                                                                 .checkpointing = o->checkpointing,
                                                                 .context = o->train_text_encoder});
    n->unet_eval = dr_unet_run_create(&n->unet, (dr_unet_options){.train = false});
    return DR_OK;
}

int64_t dr_network_trained_count(const dr_network *n, dr_model_part part)
{
    const dr_params *set = n->trained[part].set;
    int64_t count = 0;
    for (size_t i = 0; set != NULL && i < set->n; i++) {
        count += set->at[i]->trainable ? set->at[i]->n : 0;
    }
    return count;
}

int64_t dr_context_length(const dr_network *net)
{
    return 75 * net->o.n_rows + 2;
}

/* Positions of the joined rows of ids. */
static int64_t joined_length(const dr_network *net, const dr_tensor *ids)
{
    return net->o.n_rows == 1 ? ids->dim[1] : dr_context_length(net);
}

dr_leaf_input dr_leaf_input_new(dr_context *cx, const dr_network *net, dr_frame f, dr_leaf_shape s)
{
    dr_leaf_input in = {0};
    int64_t n = s.n;
    dr_dtype compute = cx->backend->compute;
    in.latents = dr_new(cx, f, 4, DR_DIMS(n, s.h, s.w, net->unet.config.in_channels));
    in.noise = dr_new_like(cx, f, &in.latents);
    in.input_noise = net->o.input_noise ? dr_new_like(cx, f, &in.latents) : in.noise;
    in.t = dr_new_typed(cx, f, DR_F32, 1, DR_DIMS(n));
    in.signal = dr_new_typed(cx, f, compute, 1, DR_DIMS(n));
    in.sigma = dr_new_like(cx, f, &in.signal);
    in.target_noise = dr_new_like(cx, f, &in.signal);
    in.target_latent = dr_new_like(cx, f, &in.signal);
    in.weight = dr_new_like(cx, f, &in.signal);
    in.threshold = dr_new_like(cx, f, &in.signal);
    in.ids = dr_new_typed(cx, f, DR_I32, 2, DR_DIMS(n * net->o.n_rows, s.length));
    if (net->o.masked) {
        in.mask = dr_new_typed(cx, f, compute, 3, DR_DIMS(n, s.h, s.w));
    }
    if (net->o.weighted) {
        in.token_weights =
            dr_new_typed(cx, f, compute, 1, DR_DIMS(n * joined_length(net, &in.ids)));
        in.token_zeros = dr_new_like(cx, f, &in.token_weights);
    }
    return in;
}

/* ---- captions longer than one row: rows of 77 states become one sequence of 75 rows + 2 -------
 */

/* len positions from `from` of sequence i of x (M,S,C). */
static dr_tensor positions_of(const dr_tensor *x, int64_t i, int64_t from, int64_t len)
{
    char *at =
        (char *)x->data + (size_t)((i * x->dim[1] + from) * x->dim[2]) * dr_dtype_size(x->dtype);
    return dr_tensor_of(at, x->dtype, 2, DR_DIMS(len, x->dim[2]));
}

static dr_status copy_positions(dr_context *cx, const dr_tensor *from, dr_tensor *to)
{
    return dr_add(cx, &(dr_add_args){.alpha = 1.0f, .x = from, .y = to});
}

/*
 * Start of row 0, positions 1..75 of every row, end of the last row. to_rows: the reverse, for
 * gradients; positions that were left out stay as they are (zero).
 */
static dr_status join_rows(dr_context *cx, int n_rows, const dr_tensor *rows,
                           const dr_tensor *joined, bool to_rows)
{
    for (int64_t i = 0; i < joined->dim[0]; i++) {
        for (int k = 0; k < n_rows; k++) {
            int64_t first = k == 0 ? 0 : 1;
            int64_t last = k == n_rows - 1 ? 76 : 75;
            dr_tensor row = positions_of(rows, i * n_rows + k, first, last - first + 1);
            dr_tensor seq = positions_of(joined, i, 75 * k + first, last - first + 1);
            DR_TRY(to_rows ? copy_positions(cx, &seq, &row) : copy_positions(cx, &row, &seq));
        }
    }
    return DR_OK;
}

static dr_status text_forward(dr_context *cx, dr_network *net, dr_clip_run *run,
                              const dr_tensor *ids, dr_tensor *context)
{
    if (net->o.n_rows == 1) {
        return dr_clip_forward(cx, run, ids, context);
    }
    dr_frame f = dr_frame_begin(cx);
    dr_tensor rows = dr_new(cx, f, 3, DR_DIMS(ids->dim[0], 77, context->dim[2]));
    dr_status st = dr_clip_forward(cx, run, ids, &rows);
    if (st == DR_OK) {
        st = join_rows(cx, net->o.n_rows, &rows, context, false);
    }
    dr_frame_end(cx, f);
    return st;
}

dr_status dr_leaf_text_states(dr_context *cx, dr_network *net, const dr_tensor *ids,
                              dr_tensor *context)
{
    return text_forward(cx, net, net->clip_eval, ids, context);
}

static dr_status text_backward(dr_context *cx, dr_network *net, const dr_tensor *dcontext,
                               const dr_grad_sink *sink)
{
    if (net->o.n_rows == 1) {
        return dr_clip_backward(cx, net->clip_train, dcontext, sink);
    }
    dr_frame f = dr_frame_begin(cx);
    dr_tensor drows =
        dr_new(cx, f, 3, DR_DIMS(dcontext->dim[0] * net->o.n_rows, 77, dcontext->dim[2]));
    dr_status st = dr_zero(cx, &drows);
    if (st == DR_OK) {
        st = join_rows(cx, net->o.n_rows, &drows, dcontext, true);
    }
    if (st == DR_OK) {
        st = dr_clip_backward(cx, net->clip_train, &drows, sink);
    }
    dr_frame_end(cx, f);
    return st;
}

/* States (or their gradients) times the weight of their position, in place. */
static dr_status weigh_positions(dr_context *cx, const dr_leaf_input *in, const dr_tensor *states)
{
    if (in->token_weights.rank == 0) {
        return DR_OK;
    }
    dr_tensor x = dr_reshape(states, 2, DR_DIMS(states->dim[0] * states->dim[1], states->dim[2]));
    return dr_mix(
        cx,
        &(dr_mix_args){.x = &x, .z = &x, .a = &in->token_weights, .b = &in->token_zeros, .y = &x});
}

/* ---- one leaf ----------------------------------------------------------------------------------
 */

static dr_span leaf_span(const dr_context *cx)
{
    return cx->dry ? 0 : dr_span_begin();
}

typedef struct shifted_sink { /* a network's ranges inside the trained part */
    const dr_grad_sink *sink;
    int64_t shift;
} shifted_sink;

static void report_shifted(void *user, int64_t begin, int64_t end)
{
    const shifted_sink *s = user;
    if (s->sink != NULL && end > begin) {
        s->sink->ready(s->sink->user, begin + s->shift, end + s->shift);
    }
}

static dr_status backward(dr_context *cx, dr_network *net, const dr_leaf_input *in,
                          const dr_leaf_options *o, dr_frame f, const dr_leaf_output *out,
                          const dr_tensor *dpred)
{
    const dr_trained *trained = &net->trained[DR_PART_UNET];
    shifted_sink unet_shift = {trained->set != NULL ? o->sink : NULL, trained->at};
    const dr_grad_sink unet_sink = {report_shifted, &unet_shift};
    dr_span span = leaf_span(cx);
    if (!o->train_text_encoder) {
        const dr_status st = dr_unet_backward(cx, net->unet_run, dpred, NULL, &unet_sink);
        dr_span_end(span, "U-Net", "backward");
        return st;
    }
    dr_tensor dcontext = dr_new_like(cx, f, &out->context);
    DR_TRY(dr_zero(cx, &dcontext));
    DR_TRY(dr_unet_backward(cx, net->unet_run, dpred, &dcontext, &unet_sink));
    dr_span_end(span, "U-Net", "backward");
    span = leaf_span(cx);
    DR_TRY(weigh_positions(cx, in, &dcontext));
    shifted_sink text_shift = {o->sink, net->trained[DR_PART_TEXT_ENCODER].at};
    const dr_grad_sink text_sink = {report_shifted, &text_shift};
    const dr_status st = text_backward(cx, net, &dcontext, &text_sink);
    dr_span_end(span, "text encoder", "backward");
    return st;
}

dr_status dr_leaf_run(dr_context *cx, dr_network *net, const dr_leaf_input *in,
                      const dr_leaf_options *o, dr_frame f, dr_leaf_output *out)
{
    int64_t n = in->latents.dim[0];
    out->noisy = dr_new_like(cx, f, &in->latents);
    out->target = dr_new_like(cx, f, &in->latents);
    out->pred = dr_new_like(cx, f, &in->latents);
    out->context =
        dr_new(cx, f, 3, DR_DIMS(n, joined_length(net, &in->ids), net->clip.config.width));
    out->loss = dr_new_typed(cx, f, cx->backend->compute, 1, DR_DIMS(n));
    dr_tensor dpred = {0};
    if (!o->forward_only) {
        dpred = dr_new_like(cx, f, &in->latents);
    }
    dr_span span = leaf_span(cx);
    DR_TRY(dr_mix(cx, &(dr_mix_args){.x = &in->latents,
                                     .z = &in->input_noise,
                                     .a = &in->signal,
                                     .b = &in->sigma,
                                     .y = &out->noisy}));
    DR_TRY(dr_mix(cx, &(dr_mix_args){.x = &in->latents,
                                     .z = &in->noise,
                                     .a = &in->target_latent,
                                     .b = &in->target_noise,
                                     .y = &out->target}));
    dr_span_end(span, "noise", "forward");
    span = leaf_span(cx);
    if (o->states == NULL) {
        DR_TRY(text_forward(cx, net, o->train_text_encoder ? net->clip_train : net->clip_eval,
                            &in->ids, &out->context));
    } else if (!o->states_are_there) {
        DR_TRY(dr_upload(cx, &out->context, o->states));
    }
    DR_TRY(weigh_positions(cx, in, &out->context));
    dr_span_end(span, "text encoder", "forward");
    span = leaf_span(cx);
    DR_TRY(dr_unet_forward(cx, o->forward_only ? net->unet_eval : net->unet_run, &out->noisy,
                           &in->t, &out->context, &out->pred));
    dr_span_end(span, "U-Net", "forward");
    span = leaf_span(cx);
    DR_TRY(dr_mse(cx, &(dr_mse_args){.kind = net->o.loss,
                                     .threshold = &in->threshold,
                                     .pred = &out->pred,
                                     .target = &out->target,
                                     .weight = &in->weight,
                                     .mask = in->mask.rank > 0 ? &in->mask : NULL,
                                     .loss = &out->loss,
                                     .dpred = o->forward_only ? NULL : &dpred}));
    dr_span_end(span, "loss", "forward");
    return o->forward_only ? DR_OK : backward(cx, net, in, o, f, out, &dpred);
}
