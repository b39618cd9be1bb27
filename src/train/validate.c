/*
 * Validation: the loss of pictures that are never trained on, at fixed noise and timesteps.
 *
 * A picture is one rank's work, one forward pass for each timestep, so its losses depend on nothing
 * but the weights; they are summed in the order of the pictures.
 */
#include "base/log.h"
#include "train/run_internal.h"

#include <stdlib.h>

/* How many pictures a validation looks at. */
static size_t n_pictures(const dr_run *r)
{
    const size_t n = r->dataset.n_validation_images;
    const size_t most = (size_t)r->c->validation.most_batches * r->c->batch_size;
    return most > 0 && most < n ? most : n;
}

/* The picture that is looked at as number i: spread over all. */
static size_t picture_at(const dr_run *r, size_t i)
{
    const size_t n = r->dataset.n_validation_images;
    return r->dataset.n_images - n + i * n / n_pictures(r);
}

uint64_t dr_run_seed(const dr_run *r, uint32_t epoch)
{
    return epoch == DR_EPOCH_OF_VALIDATION ? r->c->validation.seed : r->c->seed;
}

/* ---- one picture --------------------------------------------------------------------------- */

/* Text states of a caption, on the host; the caller frees them. */
static dr_status encode_text(dr_run *r, dr_context *cx, const dr_leaf_text *text, void **out)
{
    dr_frame f = dr_frame_begin(cx);
    dr_tensor ids = dr_new_typed(cx, f, DR_I32, 2, DR_DIMS(r->c->n_token_rows, text->length));
    const int64_t length = r->c->n_token_rows == 1 ? text->length : dr_context_length(&r->net);
    dr_tensor states = dr_new(cx, f, 3, DR_DIMS(1, length, r->net.clip.config.width));
    dr_status st = dr_try_calloc((size_t)dr_numel(&states), dr_dtype_size(states.dtype), out);
    if (st == DR_OK) {
        st = dr_upload(cx, &ids, text->ids);
    }
    if (st == DR_OK) {
        st = dr_leaf_text_states(cx, &r->net, &ids, &states);
    }
    if (st == DR_OK) {
        st = dr_download(cx, &states, *out);
    }
    dr_frame_end(cx, f);
    return st;
}

static dr_status loss_at(dr_run *r, dr_context *cx, const dr_sample_ref *ref,
                         const dr_leaf_text *text, const void *states, double *loss)
{
    const dr_leaf leaf = {.samples = ref, .n = 1, .bucket = r->dataset.images[ref->image].bucket};
    int32_t timestep = 0;
    float weight = 0.0f;
    float value = 0.0f;
    const char *key = NULL;
    const dr_leaf_host host = {&timestep, &weight, &key};
    int64_t h, w;
    dr_latents_size(r->latents, ref->image, &h, &w);
    dr_frame f = dr_frame_begin(cx);
    dr_leaf_input in = dr_leaf_input_new(cx, &r->net, f, (dr_leaf_shape){1, h, w, text->length});
    dr_leaf_output out;
    dr_status st = dr_run_fill_leaf(r, cx, &leaf, DR_EPOCH_OF_VALIDATION, 1, text, &in, &host);
    if (st == DR_OK) {
        st = dr_leaf_run(cx, &r->net, &in,
                         &(dr_leaf_options){.states = states, .forward_only = true}, f, &out);
    }
    if (st == DR_OK) {
        st = dr_download(cx, &out.loss, &value);
    }
    dr_frame_end(cx, f);
    *loss = (double)weight * (double)value;
    return st;
}

/* Its loss at each timestep. */
static dr_status losses_of_picture(dr_run *r, dr_context *cx, size_t image, double *losses)
{
    const uint32_t number = r->dataset.images[image].first_sample;
    dr_sample_ref ref = {(uint32_t)image, 0, number * DR_VALIDATION_TIMESTEPS};
    const dr_leaf leaf = {.samples = &ref, .n = 1, .bucket = r->dataset.images[image].bucket};
    dr_leaf_text text;
    void *states = NULL;
    dr_status st = dr_run_leaf_text(r, &leaf, DR_EPOCH_OF_VALIDATION, &text);
    if (st == DR_OK) {
        st = encode_text(r, cx, &text, &states);
    }
    for (; st == DR_OK && ref.repeat < DR_VALIDATION_TIMESTEPS; ref.repeat++, ref.sample++) {
        st = loss_at(r, cx, &ref, &text, states, &losses[ref.repeat]);
    }
    dr_leaf_text_free(&text);
    free(states);
    return st;
}

/* ---- all pictures -------------------------------------------------------------------------- */

/* This rank's pictures: every world-th. */
static dr_status run_own(dr_run *r, size_t share, double *losses)
{
    const size_t world = (size_t)dr_dist_world(r->dist);
    dr_context cx = dr_network_context(&r->net, r->pool);
    for (size_t k = 0; k < share; k++) {
        const size_t i = k * world + (size_t)dr_dist_rank(r->dist);
        if (i < n_pictures(r)) {
            DR_TRY(
                losses_of_picture(r, &cx, picture_at(r, i), &losses[k * DR_VALIDATION_TIMESTEPS]));
        }
    }
    return DR_OK;
}

static dr_status validate(dr_run *r, dr_progress_loss *out)
{
    const size_t n = n_pictures(r);
    const size_t world = (size_t)dr_dist_world(r->dist);
    const size_t share = (n + world - 1) / world;
    const size_t n_own = share * DR_VALIDATION_TIMESTEPS;
    double *mine = dr_xcalloc(n_own, sizeof *mine);
    double *all = dr_xcalloc(n_own * world, sizeof *all);
    dr_status st = dr_dist_agree(r->dist, run_own(r, share, mine));
    if (st == DR_OK) {
        st = dr_dist_allgather(r->dist, mine, all, n_own * sizeof *mine);
    }
    for (size_t i = 0; i < n; i++) {
        const double *of = all + i % world * n_own + i / world * DR_VALIDATION_TIMESTEPS;
        for (int k = 0; k < DR_VALIDATION_TIMESTEPS; k++) {
            out->at[k] += of[k] / (double)n;
        }
    }
    for (int k = 0; k < DR_VALIDATION_TIMESTEPS; k++) {
        out->timestep[k] = dr_run_validation_timestep(r, (uint32_t)k);
        out->loss += out->at[k] / DR_VALIDATION_TIMESTEPS;
    }
    free(mine);
    free(all);
    return st;
}

/* Under sd-scripts' tags, and at each timestep. */
static void note(dr_run *r, const dr_progress_loss *v, bool by_step, bool by_epoch)
{
    dr_progress_validation(&r->progress, v);
    dr_run_log_at(r->log, v->step, v->epoch);
    if (by_step) {
        dr_run_log_scalar(r->log, "loss/validation/step_average", v->loss);
    }
    if (by_epoch) {
        dr_run_log_epoch_scalar(r->log, "loss/validation/epoch_average", v->loss);
    }
    for (int k = 0; k < DR_VALIDATION_TIMESTEPS; k++) {
        dr_str tag = {0};
        dr_str_printf(&tag, "loss/validation/timestep_%d", v->timestep[k]);
        dr_run_log_scalar(r->log, dr_str_get(&tag), v->at[k]);
        dr_str_free(&tag);
    }
    dr_run_log_flush(r->log);
}

dr_status dr_run_validate_due(dr_run *r)
{
    const dr_validation_options *o = &r->c->validation;
    const bool ends = r->step == r->n_steps;
    const bool ends_epoch = r->step % r->steps_per_epoch == 0;
    const bool by_epoch = ends || (ends_epoch && dr_run_epoch(r) % o->every_n_epochs == 0);
    const bool by_step = o->every_n_steps > 0 && r->step % o->every_n_steps == 0;
    dr_progress_loss v = {.step = r->step, .epoch = dr_run_epoch(r)};
    if (r->dataset.n_validation_images == 0 || !(by_epoch || by_step) ||
        (r->stop_signal != 0 && !ends)) { /* a stop does not wait */
        return DR_OK;
    }
    DR_TRY(dr_run_show_weights(r, true));
    dr_status st = validate(r, &v);
    DR_KEEP_FIRST(dr_run_show_weights(r, false), st);
    if (st == DR_OK && dr_dist_rank(r->dist) == 0) {
        note(r, &v, by_step, by_epoch);
    }
    return st;
}

void dr_run_describe_validation(const dr_run *r)
{
    const dr_validation_options *o = &r->c->validation;
    dr_str text = {0};
    if (r->dataset.n_validation_images == 0) {
        return;
    }
    dr_str_printf(&text, "validation: %zu of %zu pictures kept for it, %d timesteps each, every ",
                  n_pictures(r), r->dataset.n_validation_images, DR_VALIDATION_TIMESTEPS);
    if (o->every_n_epochs > 1) {
        dr_str_printf(&text, "%lld epochs", (long long)o->every_n_epochs);
    } else {
        dr_str_add(&text, "epoch");
    }
    if (o->every_n_steps > 0) {
        dr_str_printf(&text, " and every %lld steps", (long long)o->every_n_steps);
    }
    dr_info("%s, and at the end", dr_str_get(&text));
    dr_str_free(&text);
}

/* ---- memory -------------------------------------------------------------------------------- */

/* As loss_of_picture, with shapes only. */
static dr_status walk(dr_run *r, dr_context *cx, dr_leaf_shape shape)
{
    const dr_leaf_text text = {.length = (int)shape.length};
    void *states = NULL;
    dr_leaf_output out;
    dr_status st = encode_text(r, cx, &text, &states);
    if (st == DR_OK) {
        dr_frame f = dr_frame_begin(cx);
        dr_leaf_input in = dr_leaf_input_new(cx, &r->net, f, shape);
        st = dr_leaf_run(cx, &r->net, &in,
                         &(dr_leaf_options){.states = states, .forward_only = true}, f, &out);
        dr_frame_end(cx, f);
    }
    free(states);
    return st;
}

dr_status dr_run_validation_peak(dr_run *r, size_t *peak)
{
    const dr_dataset *d = &r->dataset;
    const int64_t shortest = r->c->no_token_padding ? 2 : DR_TOKEN_ROW;
    bool *walked = dr_xcalloc(d->n_all_buckets, sizeof *walked);
    dr_status st = DR_OK;
    for (size_t i = d->n_images - d->n_validation_images; st == DR_OK && i < d->n_images; i++) {
        const dr_size_px size = d->buckets[d->images[i].bucket].size;
        dr_leaf_shape shape = {1, size.h / 8, size.w / 8, shortest};
        for (; !walked[d->images[i].bucket] && st == DR_OK && shape.length <= DR_TOKEN_ROW;
             shape.length++) {
            dr_pool *dry = dr_pool_create_dry();
            dr_context cx = dr_network_context(&r->net, dry);
            st = walk(r, &cx, shape);
            const size_t bytes = dr_pool_peak_bytes(dry);
            *peak = bytes > *peak ? bytes : *peak;
            dr_pool_destroy(dry);
        }
        walked[d->images[i].bucket] = true;
    }
    free(walked);
    return st;
}
