#include "train/train.h"

#include "base/fault.h"
#include "base/fence.h"
#include "base/log.h"
#include "base/note.h"
#include "base/profile.h"
#include "base/stop.h"
#include "io/xxh3.h"
#include "train/check/dataset_check.h"
#include "train/hub/hub.h"
#include "train/leaf_graphs.h"
#include "train/report/run_profile.h"
#include "train/run_alarms.h"
#include "train/run_states.h"
#include "train/watchdog.h"

#include <stdlib.h>

/* All ranks must have built the same dataset: the plan is computed on each of them. */
static dr_status check_same_dataset(dr_run *r)
{
    dr_str text = {0};
    for (size_t i = 0; i < r->dataset.n_images; i++) {
        const dr_dataset_image *im = &r->dataset.images[i];
        dr_str_printf(&text, "%s\n%s\n%d %d %u %u\n", im->path, im->caption, (int)im->size.w,
                      (int)im->size.h, im->bucket, im->repeats);
    }
    dr_status st = dr_dist_check_equal(r->dist, dr_str_get(&text), text.len, "dataset");
    dr_str_free(&text);
    return st;
}

static dr_status open_dataset(dr_run *r)
{
    dr_str text = {0};
    dr_dataset_options data = r->c->data;
    data.folders.info_read_only = dr_dist_rank(r->dist) != 0;
    dr_log_same_on_all_ranks(true);
    dr_status st = dr_dataset_open(&r->arena, &data, &r->dataset);
    dr_log_same_on_all_ranks(false);
    DR_TRY(dr_dist_agree(r->dist, st));
    DR_TRY(check_same_dataset(r));
    if (r->c->data.folders.picture != NULL && r->c->data.folders.picture->decode.as_pillow) {
        dr_info("pictures: as sd-scripts reads them (--compat sd-scripts)");
    }
    dr_dataset_summary(&r->dataset, &text);
    dr_info("%s", dr_str_get(&text));
    dr_str_free(&text);
    return DR_OK;
}

/* The model's files; cheap but for the hash of the VAE. */
static dr_status open_files(dr_run *r)
{
    dr_model_open_options open = r->c->model;
    DR_TRY(dr_hub_resolve_model(r->dist, &r->arena, &open));
    open.threads = r->c->threads;
    DR_TRY(dr_dist_agree(r->dist, dr_model_file_open(&open, &r->file)));
    return dr_dist_agree(r->dist, dr_model_file_hash_vae(r->file));
}

static dr_status open_model(dr_run *r)
{
    const dr_train_config *c = r->c;
    DR_TRY(open_files(r));
    if (c->lora == NULL) {
        DR_TRY(dr_dist_agree(r->dist, dr_model_file_check_save(r->file, dr_run_save_format(r))));
    }
    r->trains_text_encoder =
        c->stop_text_encoder > 0 &&
        (c->lora == NULL || (c->lora->text_encoder && c->lora->lr_text_encoder > 0.0));
    dr_status st = dr_network_init(
        &r->net, dr_model_file_config(r->file),
        &(dr_network_options){.backend = r->backend,
                              .threads = c->threads,
                              .train = true,
                              .train_text_encoder = r->trains_text_encoder,
                              .checkpointing = c->checkpointing,
                              .clip_skip = c->clip_skip,
                              .loss = c->loss,
                              .one_segment_of_grads = c->fused_backward,
                              .input_noise = c->objective.ip_noise_gamma != 0.0,
                              .n_rows = c->n_token_rows,
                              .weighted = c->weighted_captions,
                              .masked = c->masked_loss || dr_dataset_wants_alpha(&c->data),
                              .lora = c->lora,
                              .seed = c->seed,
                              .precision = c->precision});
    r->loss_scale = dr_loss_scale_init(c->precision);
    return dr_dist_agree(r->dist, st);
}

static dr_status open_latents(dr_run *r, bool fill_only)
{
    const dr_train_config *c = r->c;
    if (c->masked_loss && !r->dataset.masked) {
        DR_FAIL(DR_INVALID, "--masked_loss: no masks: give --conditioning_data_dir (or "
                            "conditioning_data_dir in the dataset file), or --alpha_mask");
    }
    if (c->cache_latents && r->dataset.varies) {
        DR_FAIL(DR_INVALID,
                "--cache_latents: color_aug, random_crop and face_crop_aug_range give a "
                "picture anew for every use, so its latent cannot be kept; leave one "
                "of them out");
    }
    return dr_latents_create(r->dist,
                             &(dr_latents_config){.backend = r->backend,
                                                  .threads = c->threads,
                                                  .loader_threads = c->loader_threads,
                                                  .dataset = &r->dataset,
                                                  .file = r->file,
                                                  .vae_hash = dr_model_file_vae_hash(r->file),
                                                  .cached = c->cache_latents,
                                                  .cache_dir = c->cache_dir,
                                                  .keep_draw = c->keep_latent_draw,
                                                  .stored = c->latent_dtype,
                                                  .vae_batch = c->vae_batch_size,
                                                  .fill_only = fill_only,
                                                  .flip = r->dataset.flips,
                                                  .seed = c->seed,
                                                  .validation_seed = c->validation.seed},
                             &r->latents);
}

/* Steps, or below 1 a share of the run. */
static int64_t steps_of(double given, int64_t total)
{
    return (int64_t)(given < 1.0 ? given * (double)total : given);
}

/* --initial_step and its like: the samples before it are not seen, the schedule starts at 0. */
static dr_status begin_later(dr_run *r)
{
    const dr_train_config *c = r->c;
    if (c->initial_step == 0 && c->initial_epoch == 0) {
        return DR_OK;
    }
    if (r->resuming) {
        DR_FAIL(DR_INVALID, "--initial_epoch, --initial_step: the state that --resume goes on from "
                            "knows its step; leave them out");
    }
    const int64_t per_epoch = r->steps_per_epoch;
    const int64_t step = c->initial_step > 0 ? c->initial_step : (c->initial_epoch - 1) * per_epoch;
    if (step >= r->n_steps) {
        DR_FAIL(DR_INVALID,
                "the run begins after step %lld and ends with step %lld: raise --max_train_steps "
                "(or --max_train_epochs)",
                (long long)step, (long long)r->n_steps);
    }
    r->step = c->skip_until_initial_step ? step : step / per_epoch * per_epoch;
    r->schedule_from = r->step;
    return DR_OK;
}

/* What other numbers of ranks would make of an epoch; shards that were chosen change nothing. */
static void say_other_ranks(const dr_run *r)
{
    static const uint32_t ranks[] = {1, 2, 4, 8};
    dr_str text = {0};
    for (size_t i = 0; r->c->virtual_shards == 0 && i < sizeof ranks / sizeof *ranks; i++) {
        const uint32_t n_leaves = ranks[i] * (uint32_t)r->c->accumulation;
        dr_str_printf(&text, "%s%u: %u", i > 0 ? ", " : "steps of an epoch by ranks: ", ranks[i],
                      dr_steps_per_epoch(&r->dataset, r->c->batch_size, n_leaves));
    }
    if (text.len > 0) {
        dr_info("%s (--max_train_steps counts steps, whatever their size)", dr_str_get(&text));
    }
    dr_str_free(&text);
}

/* Steps, epochs, schedule, and the lines of the header that say how they come about. */
static dr_status plan_steps(dr_run *r)
{
    const dr_train_config *c = r->c;
    int64_t shards = c->virtual_shards > 0 ? c->virtual_shards : dr_dist_world(r->dist);
    if (shards * c->accumulation > 4096) { /* each holds a place in every step's plan */
        DR_FAIL(DR_INVALID,
                "--virtual_shards %lld x --gradient_accumulation_steps %d: at most 4096",
                (long long)shards, c->accumulation);
    }
    r->n_leaves = (uint32_t)(shards * c->accumulation);
    r->net.o.precision.narrow_grads = /* sums of leaves are made in 32 bits */
        c->precision.kind == DR_PRECISION_FULL && r->n_leaves == 1;
    r->steps_per_epoch = dr_steps_per_epoch(&r->dataset, c->batch_size, r->n_leaves);
    r->n_steps = c->max_epochs > 0 ? c->max_epochs * r->steps_per_epoch : c->max_steps;
    r->lr = (dr_lr_schedule){.kind = c->lr_kind,
                             .total_steps = r->n_steps,
                             .warmup_steps = steps_of(c->warmup, r->n_steps),
                             .decay_steps = steps_of(c->decay, r->n_steps),
                             .cycles = c->lr_cycles,
                             .timescale = c->lr_timescale,
                             .min_ratio = c->lr_min_ratio,
                             .rules = c->lr_rules,
                             .power = c->lr_power,
                             .base_lr = c->lr};
    DR_TRY(begin_later(r));
    r->lr.first_step = r->schedule_from;
    dr_str text = {0};
    dr_epoch_arithmetic(&r->dataset, c->batch_size, (uint32_t)shards, (uint32_t)c->accumulation,
                        &text);
    dr_info("%s", dr_str_get(&text));
    dr_str_free(&text);
    dr_info("run: %lld steps = %lld epochs of %u steps; %d rank%s x %d thread%s; seed %llu",
            (long long)r->n_steps,
            (long long)((r->n_steps + r->steps_per_epoch - 1) / r->steps_per_epoch),
            r->steps_per_epoch, dr_dist_world(r->dist), dr_dist_world(r->dist) > 1 ? "s" : "",
            c->threads, c->threads > 1 ? "s" : "", (unsigned long long)c->seed);
    say_other_ranks(r);
    return dr_lr_schedule_check(&r->lr);
}

static dr_status begin_optimizer(dr_run *r)
{
    dr_context cx;
    dr_context_init(&cx, r->backend, r->pool, r->c->threads);
    DR_TRY(dr_optimizer_alloc(r->optimizer, r->backend->device));
    return dr_optimizer_begin(r->optimizer, &cx);
}

/* What `dreamrun check` would say: warnings show, errors stop. */
static dr_status check_dataset(dr_run *r)
{
    const dr_train_config *c = r->c;
    dr_dataset_report report;
    dr_status st =
        dr_dataset_check(&r->dataset,
                         &(dr_check_options){.caption_extension = c->data.folders.caption_extension,
                                             .token_rows = c->n_token_rows,
                                             .v2 = c->model.v2,
                                             .batch_size = c->batch_size,
                                             .n_ranks = r->n_leaves / (uint32_t)c->accumulation,
                                             .accumulation = (uint32_t)c->accumulation,
                                             .n_steps = r->n_steps,
                                             .steps_per_epoch = r->steps_per_epoch},
                         &report);
    for (size_t i = 0; st == DR_OK && i < report.n_findings; i++) {
        const dr_check_finding *f = &report.findings[i];
        if (f->level == DR_CHECK_WARNING) {
            dr_warn("%s\n  fix: %s", f->text, f->fix);
        } else if (f->level == DR_CHECK_ERROR) {
            st = dr_error_set(DR_FORMAT, __FILE__, __LINE__, "%s\n  fix: %s", f->text, f->fix);
        }
    }
    dr_dataset_report_deinit(&report);
    return st;
}

static dr_status load(dr_run *r)
{
    DR_TRY(dr_dist_agree(r->dist, dr_run_plan_memory(r)));
    DR_TRY(dr_dist_agree(r->dist, dr_network_load(&r->net, r->file)));
    DR_TRY(dr_dist_agree(r->dist, dr_run_fingerprint_model(r)));
    DR_TRY(dr_dist_agree(r->dist, begin_optimizer(r)));
    DR_TRY(dr_run_load_state(r));
    dr_info("training: U-Net %lld parameters, text encoder %lld%s",
            (long long)dr_network_trained_count(&r->net, DR_PART_UNET),
            (long long)dr_network_trained_count(&r->net, DR_PART_TEXT_ENCODER),
            r->trains_text_encoder ? "" : " (frozen)");
    const int64_t n_trained = r->net.n_trained;
    dr_status st = DR_OK;
    if (!r->backend->device->host_visible && r->c->plane == NULL &&
        r->n_leaves > 1) { /* one leaf needs no sum */
        st = dr_try_calloc((size_t)n_trained, sizeof(float), (void **)&r->host_grads);
        DR_TRY(dr_dist_agree(r->dist, st));
    }
    float *sums = r->net.o.precision.narrow_grads ? NULL : r->net.grads; /* one leaf: no sums */
    st = dr_reducer_create(
        r->dist,
        &(dr_reducer_config){.n_leaves = (int64_t)r->n_leaves,
                             .grads = r->host_grads != NULL ? r->host_grads : sums,
                             .n_elems = n_trained,
                             .plane = r->c->plane},
        &r->reducer);
    return dr_dist_agree(r->dist, st);
}

/* What the run would need; no picture is encoded for it, so the VAE is counted beside the latents.
 */
static dr_status estimate(dr_run *r)
{
    r->config.cache_latents = false;
    DR_TRY(open_latents(r, false));
    return dr_dist_agree(r->dist, dr_run_plan_memory(r));
}

static dr_status prepare(dr_run *r)
{
    r->tokenizer = dr_tokenizer_create(r->c->model.v2 ? DR_TOKENIZER_SD2 : DR_TOKENIZER_SD1);
    r->dump = dr_dump_create(r->c->n_token_rows);
    r->ahead = dr_look_ahead_create();
    dr_schedule_init(&r->snr_schedule);
    r->noise_schedule = r->snr_schedule;
    if (r->c->objective.zero_terminal_snr) {
        dr_schedule_zero_terminal_snr(&r->noise_schedule);
    }
    dr_run_show_options(r);
    DR_TRY(dr_run_open_state(r));
    dr_span span = dr_span_begin();
    DR_TRY(open_model(r)); /* cheap: only headers are read */
    dr_span_end(span, "open model", "start");
    span = dr_span_begin();
    DR_TRY(open_dataset(r));
    dr_span_end(span, "open dataset", "start");
    if (!r->c->estimate) {
        DR_TRY(dr_run_check_output(r));
    }
    DR_TRY(dr_run_open_samples(r));
    dr_run_fingerprint_dataset(r);
    DR_TRY(dr_dist_agree(r->dist, plan_steps(r)));
    DR_TRY(dr_dist_agree(r->dist, dr_run_create_optimizer(r)));
    DR_TRY(dr_dist_agree(r->dist, dr_dist_rank(r->dist) == 0 ? check_dataset(r) : DR_OK));
    dr_run_describe_validation(r);
    if (r->c->estimate) {
        return estimate(r);
    }
    dr_watchdog_does(DR_DOES_CACHE);
    span = dr_span_begin();
    DR_TRY(open_latents(r, false));
    dr_span_end(span, "latents", "start");
    dr_watchdog_does(DR_DOES_PREPARE);
    span = dr_span_begin();
    DR_TRY(load(r));
    dr_span_end(span, "plan and load", "start");
    span = dr_span_begin();
    DR_TRY(dr_dist_agree(r->dist, dr_dead_watch_begin(r)));
    DR_TRY(dr_run_open_log(r));
    dr_span_end(span, "alarms and log", "start");
    r->graphs = dr_leaf_graphs_create(r);
    span = dr_span_begin();
    DR_TRY(dr_run_check_base(r));
    dr_span_end(span, "base check", "start");
    return DR_OK;
}

dr_status dr_run_plan_epoch(const dr_run *r, uint32_t epoch, dr_epoch_plan *plan)
{
    return dr_epoch_plan_build(plan, &r->dataset,
                               &(dr_epoch_plan_options){.seed = r->c->seed,
                                                        .epoch = epoch,
                                                        .batch_size = r->c->batch_size,
                                                        .n_leaves = r->n_leaves});
}

/* After a step: what is due is drawn and saved; a request to stop ends the run unless it is at its
 * end. */
static dr_status end_step(dr_run *r)
{
    dr_watchdog_step(r->step);
    if (dr_dist_rank(r->dist) == 0) {
        dr_note("step %lld", (long long)r->step);
    }
    DR_TRY(dr_run_check_ranks(r, false));
    dr_watchdog_does(DR_DOES_VALIDATE);
    DR_TRY(dr_run_validate_due(r));
    dr_watchdog_does(DR_DOES_SAMPLE);
    DR_TRY(dr_run_sample_due(r));
    dr_watchdog_does(DR_DOES_SAVE);
    const dr_span span = dr_span_begin();
    DR_TRY(dr_run_save_due(r));
    dr_span_end(span, "save", "save");
    return r->stop_signal != 0 && r->step < r->n_steps ? dr_run_leave(r) : DR_OK;
}

/* The next step, if it is to be run, and what follows from it. */
static dr_status next_step(dr_run *r, const dr_epoch_plan *plan, uint32_t epoch, uint32_t i)
{
    dr_watchdog_does(DR_DOES_STEP);
    dr_fault_at_step(r->step + 1);
    if (dr_run_leaves_out(r, r->step)) {
        dr_run_note_left_out(r, epoch);
    } else {
        const dr_span span = dr_span_begin();
        dr_run_look_ahead(r, plan, epoch, i, r->step);
        dr_span_end(span, "look ahead", "data");
        DR_TRY(dr_run_step(r, &plan->steps[i], epoch, r->step));
        dr_span_end_n(span, "step", "step", r->step + 1);
    }
    if (r->nan.going_back) {
        return dr_run_go_back(r);
    }
    r->step++;
    DR_TRY(end_step(r));
    return dr_run_profile_step(r);
}

/* Steps of the epoch that holds the next step, until it ends or the run goes back behind it. */
static dr_status train_epoch(dr_run *r, uint32_t epoch)
{
    dr_epoch_plan plan;
    DR_TRY(dr_run_plan_epoch(r, epoch, &plan));
    dr_status st = DR_OK;
    const int64_t before = (int64_t)(epoch - 1) * r->steps_per_epoch;
    while (st == DR_OK && r->step >= before && r->step - before < plan.n_steps &&
           r->step < r->n_steps) {
        st = next_step(r, &plan, epoch, (uint32_t)(r->step - before));
    }
    dr_epoch_plan_deinit(&plan);
    return st;
}

static dr_status train(dr_run *r)
{
    dr_status st = DR_OK;
    r->equal_at_step = r->step;
    dr_stop_take_notes(true);
    dr_progress_begin(&r->progress, r->c->progress, r->n_steps, (uint32_t)dr_run_n_epochs(r),
                      r->resuming ? &r->resumed_loss : NULL);
    if (r->step == 0) {
        dr_watchdog_does(DR_DOES_SAMPLE);
        st = dr_run_sample_due(r);
    }
    while (st == DR_OK && r->step < r->n_steps) {
        st = train_epoch(r, (uint32_t)(r->step / r->steps_per_epoch) + 1);
    }
    dr_progress_end(&r->progress);
    dr_watchdog_does(DR_DOES_SAVE);
    if (st == DR_OK) {
        const dr_span span = dr_span_begin();
        st = dr_run_save_last(r);
        dr_span_end(span, "save", "save");
    }
    dr_stop_take_notes(false);
    return st;
}

static void release(dr_run *r)
{
    dr_run_close_samples(r);
    dr_leaf_graphs_destroy(r->graphs);
    dr_dead_watch_end(r);
    dr_reducer_destroy(r->reducer);
    free(r->host_grads);
    free(r->latent);
    dr_pool_destroy(r->pool);
    dr_latents_destroy(r->latents);
    dr_look_ahead_destroy(r->ahead);
    dr_optimizer_destroy(r->optimizer);
    dr_network_deinit(&r->net);
    dr_model_file_close(r->file);
    dr_text_cache_destroy(r->text_cache);
    dr_mask_store_destroy(r->masks);
    dr_dump_destroy(r->dump);
    dr_run_log_destroy(r->log);
    dr_strv_free(&r->warnings);
    dr_tokenizer_destroy(r->tokenizer);
    dr_json_close(r->resume_facts);
    free(r->resume);
    free(r->newest_state);
    dr_arena_deinit(&r->arena);
}

dr_status dr_train_run(dr_dist *d, const dr_backend *backend, const dr_train_config *config)
{
    dr_run *r = dr_xcalloc(1, sizeof *r);
    r->config = *config;
    r->c = &r->config;
    r->dist = d;
    r->backend = backend;
    r->started_s = dr_metadata_now();
    dr_arena_init(&r->arena);
    dr_log_keep_warnings(dr_run_wants_report(r) ? &r->warnings : NULL);
    dr_status st = dr_watchdog_start(d, config->wait_limit_s);
    if (st == DR_OK) {
        st = dr_run_profile_begin(r);
    }
    if (st == DR_OK) {
        st = prepare(r);
    }
    if (st == DR_OK && !config->estimate) {
        st = train(r);
        if (st == DR_OK || st == DR_CANCELLED) {
            DR_KEEP_FIRST(dr_run_profile_end(r), st);
        }
        dr_run_write_report(r, st);
    }
    dr_log_keep_warnings(NULL);
    dr_watchdog_stop();
    dr_fence_release();
    release(r);
    free(r);
    return st;
}

dr_status dr_train_fill_cache(dr_dist *d, const dr_backend *backend, const dr_train_config *config)
{
    dr_run *r = dr_xcalloc(1, sizeof *r);
    r->c = config;
    r->dist = d;
    r->backend = backend;
    dr_arena_init(&r->arena);
    dr_status st = open_files(r);
    if (st == DR_OK) {
        st = open_dataset(r);
    }
    if (st == DR_OK) {
        st = open_latents(r, true);
    }
    release(r);
    free(r);
    return st;
}
