/*
 * What a run saves, and when: models by epoch, by step and at the end, with their states, and what
 * goes to make room. Rank 0 writes; all ranks learn how it went.
 */
#include "base/fence.h"
#include "base/file.h"
#include "base/log.h"
#include "base/note.h"
#include "base/tree.h"
#include "train/device_numbers.h"
#include "train/run_alarms.h"
#include "train/run_states.h"
#include "train/zero.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* DIR/NAME<ending>; the caller frees it. */
static char *path_of(const dr_run *r, dr_save_kind kind, int64_t number, const char *ending)
{
    dr_str name = {0};
    dr_save_name(&r->c->save, kind, number, &name);
    dr_str_add(&name, ending);
    char *path = dr_path_join(r->c->output_dir, dr_str_get(&name));
    dr_str_free(&name);
    return path;
}

static char *model_path(const dr_run *r, dr_save_kind kind, int64_t number)
{
    const dr_lora_settings *lora = r->c->lora;
    return path_of(r, kind, number,
                   lora != NULL ? lora->ending : dr_save_ending(dr_run_save_format(r)));
}

/* Saves that were killed. Nobody else writes into the folder: the fence is ours. */
static void sweep_output(const dr_run *r)
{
    static const char *const unnamed[] = {"epoch-", "at-", "last", NULL}; /* dr_save_name */
    const char *const named[] = {r->c->save.name, NULL};
    const int n = dr_tree_sweep(r->c->output_dir, r->c->save.name != NULL ? named : unnamed);
    if (n > 0) {
        dr_info("removed what %d killed save%s left in %s", n, n > 1 ? "s" : "", r->c->output_dir);
    }
}

dr_status dr_run_check_output(dr_run *r)
{
    dr_status st = DR_OK;
    if (dr_dist_rank(r->dist) == 0) {
        char *path = model_path(r, DR_SAVE_LAST, 0);
        dr_run_warn_metadata(r);
        st = dr_mkdirs(r->c->output_dir);
        if (st == DR_OK &&
            getenv("DREAMRUN_WORLD") != NULL) { /* one writer below dreamrun launch */
            st = dr_fence_take(r->c->output_dir);
            dr_note("output_dir %s", r->c->output_dir);
            if (st == DR_OK) {
                sweep_output(r);
            }
        }
        if (st == DR_OK) {
            st = dr_model_check_target(path, r->c->lora != NULL ? DR_SAVE_SAFETENSORS
                                                                : dr_run_save_format(r));
        }
        free(path);
    }
    return dr_dist_agree(r->dist, st);
}

/* ---- writing (rank 0) ---------------------------------------------------------------------- */

/* Weights that are not finite are never saved. */
static dr_status check_finite(dr_run *r, dr_context *cx)
{
    double squares = 0.0;
    const dr_tensor w = dr_network_trained(&r->net);
    const dr_status st = dr_sum_of_squares(cx, &w, &squares);
    if (st == DR_OK && !isfinite(squares)) {
        DR_FAIL(DR_NUMERIC,
                "step %lld: the weights hold NaN or infinity, so nothing is saved; what was saved "
                "before stays (a lower --learning_rate, or --max_grad_norm 1)",
                (long long)r->step);
    }
    return st;
}

static dr_status write_model(dr_run *r, dr_save_kind kind, int64_t number)
{
    char *path = model_path(r, kind, number);
    const uint32_t epoch = dr_run_epoch(r);
    dr_status st = dr_fence_check();
    if (st == DR_OK) {
        st = dr_run_save_model(r, path, kind == DR_SAVE_STEP ? epoch - 1 : epoch, r->step);
    }
    if (st == DR_OK) {
        dr_info("saved %s", path);
    }
    free(path);
    return st;
}

static dr_status save_model(dr_run *r, dr_save_kind kind, int64_t number)
{
    dr_context cx;
    dr_context_init(&cx, r->backend, r->pool, r->c->threads);
    DR_TRY(check_finite(r, &cx));
    return write_model(r, kind, number);
}

static dr_status save_state(dr_run *r, dr_save_kind kind, int64_t number)
{
    dr_context cx;
    char *path = path_of(r, kind, number, DR_STATE_SUFFIX);
    dr_context_init(&cx, r->backend, r->pool, r->c->threads);
    dr_status st = check_finite(r, &cx);
    if (st == DR_OK) {
        st = dr_run_write_state(r, path);
    }
    if (st == DR_OK) {
        dr_info("saved %s: epoch %u, step %lld", path, dr_run_epoch(r), (long long)r->step);
        dr_note("state %lld %s", (long long)r->step, path);
        free(r->newest_state);
        r->newest_state = path;
    } else {
        free(path);
    }
    return st;
}

static void remove_model(const dr_run *r, dr_save_kind kind, int64_t number)
{
    char *path = model_path(r, kind, number);
    if (!dr_path_is_dir(path)) {
        char *yaml = path_of(r, kind, number, ".yaml"); /* beside a v2 checkpoint */
        (void)unlink(path);
        (void)unlink(yaml);
        free(yaml);
    } else {
        char *index = dr_path_join(path, "model_index.json");
        if (dr_path_exists(index)) {
            dr_tree_discard(path);
        }
        free(index);
    }
    free(path);
}

static void remove_state(const dr_run *r, dr_save_kind kind, int64_t number)
{
    char *path = path_of(r, kind, number, DR_STATE_SUFFIX);
    dr_state_remove(path);
    free(path);
}

/* Model, state, and only then what they replace. */
static dr_status save_with_state(dr_run *r, dr_save_kind kind, int64_t number)
{
    const dr_save_options *o = &r->c->save;
    const int64_t n_epochs = dr_run_n_epochs(r);
    DR_TRY(save_model(r, kind, number));
    const int64_t old = kind == DR_SAVE_EPOCH ? dr_save_expired_epoch(o, number, n_epochs, false)
                                              : dr_save_expired_step(o, number, false);
    if (old > 0) {
        remove_model(r, kind, old);
    }
    if (o->state) {
        DR_TRY(save_state(r, kind, number));
        const int64_t old_state = kind == DR_SAVE_EPOCH
                                      ? dr_save_expired_epoch(o, number, n_epochs, true)
                                      : dr_save_expired_step(o, number, true);
        if (old_state > 0) {
            remove_state(r, kind, old_state);
        }
    }
    return DR_OK;
}

/* A save in the middle that finds no room costs that save, not the run. */
static dr_status tolerate(const dr_run *r, dr_status st)
{
    if (st != DR_IO && st != DR_OUTPUT) {
        return st;
    }
    dr_warn("step %lld: not saved: %s; what was saved before is untouched, the run goes on and the "
            "next save is tried as planned",
            (long long)r->step, dr_error_message());
    return DR_OK;
}

/* Collective. st: how the save went on rank 0, which the others have helped with. */
static dr_status end_save(dr_run *r, dr_status st)
{
    st = dr_dist_rank(r->dist) == 0 ? dr_zero_end(r, st) : dr_zero_serve(r);
    return dr_dist_agree(r->dist, st);
}

/* ---- when (all ranks) ---------------------------------------------------------------------- */

int64_t dr_run_n_epochs(const dr_run *r)
{
    return (r->n_steps + r->steps_per_epoch - 1) / r->steps_per_epoch;
}

uint32_t dr_run_epoch(const dr_run *r)
{
    return r->step == 0 ? 1 : (uint32_t)((r->step - 1) / r->steps_per_epoch) + 1;
}

dr_status dr_run_save_due(dr_run *r)
{
    const uint32_t epoch = dr_run_epoch(r);
    const bool ends_epoch = r->step % r->steps_per_epoch == 0;
    const bool by_epoch =
        ends_epoch && dr_save_due_at_epoch(&r->c->save, epoch, dr_run_n_epochs(r));
    const bool by_step = dr_save_due_at_step(&r->c->save, r->step);
    if (!by_epoch && !by_step) {
        return DR_OK;
    }
    DR_TRY(dr_run_check_ranks(r, true));
    dr_status st = DR_OK;
    if (dr_dist_rank(r->dist) == 0) {
        dr_progress_end(&r->progress);
        if (by_step) {
            st = tolerate(r, save_with_state(r, DR_SAVE_STEP, r->step));
        }
        if (st == DR_OK && by_epoch) {
            st = tolerate(r, save_with_state(r, DR_SAVE_EPOCH, epoch));
        }
    }
    return end_save(r, st);
}

dr_status dr_run_save_last(dr_run *r)
{
    DR_TRY(dr_run_check_ranks(r, true));
    dr_status st = DR_OK;
    if (dr_dist_rank(r->dist) == 0) {
        st = save_model(r, DR_SAVE_LAST, 0);
        if (st == DR_OK && (r->c->save.state || r->c->save.state_at_end)) {
            st = save_state(r, DR_SAVE_LAST, 0);
        }
    }
    return end_save(r, st);
}

dr_status dr_run_leave(dr_run *r)
{
    DR_TRY(dr_run_check_ranks(r, true));
    dr_status st = DR_OK;
    if (dr_dist_rank(r->dist) == 0) {
        st = save_state(r, DR_SAVE_STEP, r->step);
        if (st == DR_OK) {
            st = dr_error_set(DR_CANCELLED, __FILE__, __LINE__,
                              "stopped by %s after step %lld; go on with the same command and "
                              "--resume '%s'",
                              dr_stop_signal_name(r->stop_signal), (long long)r->step,
                              r->newest_state);
        }
    }
    return end_save(r, st);
}
