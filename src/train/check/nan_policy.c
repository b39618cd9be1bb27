/*
 * What a run does when a step's loss or gradient is not finite: --nan stop, skip, rollback.
 */
#include "base/log.h"
#include "io/json.h"
#include "train/run_alarms.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Where it began, as the first rank that knows it says; the caller frees it. Collective. */
static char *search_together(dr_run *r, const dr_step_place *p)
{
    dr_str found = {0};
    dr_str text = {0};
    dr_run_search_nan(r, p, &found);
    dr_status st = DR_OK;
    if (found.len > 0) {
        st = dr_error_set(DR_NUMERIC, __FILE__, __LINE__, "%s", dr_str_get(&found));
    }
    st = dr_dist_agree(r->dist, st);
    dr_str_add(&text,
               st == DR_NUMERIC ? dr_error_message() : "not found when the step was run again");
    dr_error_clear();
    dr_str_free(&found);
    return text.data;
}

static dr_status stop(const dr_str *text)
{
    DR_FAIL(DR_NUMERIC,
            "%s\n  fix: a lower --learning_rate, --max_grad_norm 1, or leave the picture out; "
            "--nan skip leaves such steps out, --nan rollback goes back to the newest state first",
            dr_str_get(text));
}

static dr_status skip(dr_run *r, const dr_str *text)
{
    if (++r->nan.in_a_row >= DR_NAN_MOST_IN_A_ROW) {
        DR_FAIL(DR_NUMERIC, "%s\n  this is step %d of that kind in a row: the run is not going on",
                dr_str_get(text), r->nan.in_a_row);
    }
    if (dr_dist_rank(r->dist) == 0) {
        dr_progress_end(&r->progress);
        dr_warn("%s\n  --nan skip: the step changes nothing", dr_str_get(text));
    }
    return DR_OK;
}

static dr_status roll_back(dr_run *r, const dr_step_place *p, const dr_str *text)
{
    if (r->nan.n_left_out == DR_NAN_MOST_ROLLBACKS) {
        DR_FAIL(DR_NUMERIC, "%s\n  the run went back %d times already: it is not going on",
                dr_str_get(text), r->nan.n_left_out);
    }
    if (dr_dist_rank(r->dist) == 0) {
        dr_progress_end(&r->progress);
        dr_warn("%s", dr_str_get(text));
    }
    r->nan.left_out[r->nan.n_left_out++] = p->global_step;
    r->nan.going_back = true;
    return DR_OK;
}

/* Not "-nan". */
static double unsigned_nan(double v)
{
    return isnan(v) ? (double)NAN : v;
}

dr_status dr_run_not_finite(dr_run *r, const dr_step_place *p, double loss, double norm)
{
    char *where = search_together(r, p);
    dr_str text = {0};
    dr_str_printf(&text,
                  "step %lld: the loss is %g and the gradient norm %g, %s. First not finite: %s",
                  (long long)p->global_step + 1, unsigned_nan(loss), unsigned_nan(norm),
                  r->fused.stepped ? "after a part of the weights was stepped on "
                                     "(--fused_backward_pass)"
                                   : "before the weights were touched",
                  where);
    if (dr_precision_scales_loss(r->net.o.precision)) {
        dr_str_printf(&text,
                      "\n  the loss scale of fp16 is %g: --mixed_precision bf16 has a larger range",
                      r->loss_scale.scale);
    }
    const dr_status st = r->c->nan == DR_NAN_SKIP       ? skip(r, &text)
                         : r->c->nan == DR_NAN_ROLLBACK ? roll_back(r, p, &text)
                                                        : stop(&text);
    dr_str_free(&text);
    free(where);
    return st;
}

void dr_run_was_finite(dr_run *r)
{
    r->nan.in_a_row = 0;
}

bool dr_run_leaves_out(const dr_run *r, int64_t global_step)
{
    for (int i = 0; i < r->nan.n_left_out; i++) {
        if (r->nan.left_out[i] == global_step) {
            return true;
        }
    }
    return false;
}

/* ---- going back ---------------------------------------------------------------------------- */

/* Rank 0: which state, and its step. */
static dr_status choose_state(dr_run *r, int64_t *step)
{
    if (r->newest_state == NULL && r->resume == NULL) {
        DR_FAIL(DR_NUMERIC, "--nan rollback: there is no state to go back to yet; save states with "
                            "--save_state and --save_every_n_steps");
    }
    if (r->newest_state != NULL) {
        dr_str copy = {0};
        dr_str_add(&copy, r->newest_state);
        free(r->resume);
        r->resume = copy.data;
    }
    DR_TRY(dr_run_open_facts(r));
    return dr_json_get_int(r->resume_facts, "current_step", step, NULL);
}

dr_status dr_run_go_back(dr_run *r)
{
    int64_t step = 0;
    const int64_t left_out = r->step;
    r->nan.going_back = false;
    DR_TRY(dr_dist_agree(r->dist, dr_dist_rank(r->dist) == 0 ? choose_state(r, &step) : DR_OK));
    DR_TRY(dr_dist_bcast(r->dist, &step, sizeof step, 0));
    DR_TRY(dr_run_read_state(r));
    r->step = step;
    dr_text_cache_destroy(r->text_cache); /* of a text encoder that may be trained again */
    r->text_cache = NULL;
    dr_look_ahead_destroy(r->ahead);
    r->ahead = dr_look_ahead_create();
    DR_TRY(dr_dead_watch_begin(r));
    dr_run_log_rewind(r->log, step);
    if (dr_dist_rank(r->dist) == 0) {
        bool found = false;
        DR_TRY(
            dr_json_get_double(r->resume_facts, "smooth_loss", &r->progress.smooth_loss, &found));
        dr_warn("--nan rollback: back to step %lld (%s); step %lld will be left out",
                (long long)step, r->resume, (long long)left_out + 1);
    }
    return DR_OK;
}
