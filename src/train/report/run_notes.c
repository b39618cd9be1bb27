/*
 * What a run says of itself while it goes: options, progress, the numbers of its log.
 */
#include "base/log.h"
#include "train/run_alarms.h"

#include <math.h>
#include <string.h>
#include <sys/resource.h>

/* ---- options ------------------------------------------------------------------------------- */

/* Options that were given, or the others that do something, in lines of a hundred columns. */
static void show(const dr_run *r, const char *title, bool given)
{
    enum { COLUMNS = 100 };
    dr_str text = {0};
    size_t column = strlen(title);
    dr_str_add(&text, title);
    for (size_t i = 0; i < r->c->n_options; i++) {
        const dr_train_option *o = &r->c->options[i];
        const bool plain = strcmp(o->value, "unset") == 0 || strcmp(o->value, "off") == 0;
        if (o->given != given || (!given && plain)) {
            continue;
        }
        const size_t width = strlen(o->name) + strlen(o->value) + 2;
        dr_str_add(&text, column + width > COLUMNS ? "\n  " : " ");
        column = column + width > COLUMNS ? width + 1 : column + width;
        dr_str_printf(&text, "%s=%s", o->name, o->value);
    }
    dr_info("%s", dr_str_get(&text));
    dr_str_free(&text);
}

void dr_run_show_options(const dr_run *r)
{
    show(r, "options given:", true);
    show(r, "options at their defaults (what is off or unset is left out):", false);
}

/* ---- the log ------------------------------------------------------------------------------- */

static dr_status open_log(dr_run *r)
{
    const dr_train_config *c = r->c;
    const char *name = NULL;
    if (c->logging_dir == NULL && c->report == NULL) {
        return DR_OK;
    }
    if (r->resuming) {
        bool found = false;
        DR_TRY(dr_json_get_string(r->resume_facts, "log", &name, &found));
    }
    DR_TRY(dr_run_log_create(&(dr_run_log_config){.dir = c->logging_dir,
                                                  .prefix = c->log_prefix,
                                                  .tracker = c->log_tracker,
                                                  .name = name,
                                                  .steps_done = r->step},
                             &r->log));
    if (dr_run_log_folder(r->log) != NULL) {
        dr_info("log: %s", dr_run_log_folder(r->log));
    }
    if (c->n_hparams > 0) {
        dr_str text = {0};
        dr_str_add(&text, "option | value\n--- | ---\n");
        for (size_t i = 0; i < c->n_hparams; i++) {
            const dr_event_hparam *h = &c->hparams[i];
            char number[32];
            dr_float_repr(h->number, number);
            dr_str_printf(&text, "%s | %s\n", h->name,
                          h->text != NULL    ? h->text
                          : !h->is_bool      ? number
                          : h->number != 0.0 ? "on"
                                             : "off");
        }
        dr_run_log_hparams(r->log, c->hparams, c->n_hparams);
        dr_run_log_at(r->log, r->step, dr_run_epoch(r));
        dr_run_log_text(r->log, "options", dr_str_get(&text));
        dr_str_free(&text);
        dr_run_log_flush(r->log);
    }
    return DR_OK;
}

dr_status dr_run_open_log(dr_run *r)
{
    return dr_dist_agree(r->dist, dr_dist_rank(r->dist) == 0 ? open_log(r) : DR_OK);
}

/* sd-scripts' LossRecorder: the mean of the last epoch's worth of losses, or of all so far. */
static double mean_loss(const dr_run *r, const char *tag)
{
    const dr_log_series *s = dr_run_log_find(r->log, tag);
    const size_t n = s->n < r->steps_per_epoch ? s->n : r->steps_per_epoch;
    double sum = 0.0;
    for (size_t i = s->n - n; i < s->n; i++) {
        sum += s->at[i].y;
    }
    return sum / (double)n;
}

/* The rate of each group under sd-scripts' names. */
static void note_rates(dr_run *r, int64_t step)
{
    const double factor = dr_run_lr_factor(r, step - 1);
    const bool adapts = dr_optimizer_d(r->optimizer) > 0.0;
    for (size_t i = 0; i < r->n_groups; i++) {
        const bool text = strcmp(r->groups[i].name, "text_encoder") == 0;
        const char *name = !text                ? r->groups[i].name
                           : r->c->network_tags ? "textencoder"
                                                : "text_encoder1";
        const double used = dr_optimizer_last_lr(r->optimizer, i);
        dr_str tag = {0};
        dr_str_printf(&tag, "lr/%s", name);
        dr_run_log_scalar(r->log, dr_str_get(&tag), adapts ? r->groups[i].lr * factor : used);
        dr_str_free(&tag);
        if (adapts) {
            dr_str_printf(&tag, "lr/d*lr/%s", name);
            dr_run_log_scalar(r->log, dr_str_get(&tag), used);
            dr_str_free(&tag);
        }
    }
}

static void note_machine(dr_run *r, const dr_progress_step *s)
{
    const double gib = 1024.0 * 1024.0 * 1024.0;
    struct rusage usage = {0};
    dr_run_log_scalar(r->log, "perf/step_s", s->step_s);
    dr_run_log_scalar(r->log, "perf/samples_per_s", (double)s->samples / s->step_s);
    dr_run_log_scalar(r->log, "data/wait_s", s->data_s);
    dr_run_log_scalar(r->log, "data/samples", (double)s->samples);
    if (s->memory_total_bytes > 0) {
        dr_run_log_scalar(r->log, "mem/device_gib", (double)s->memory_used_bytes / gib);
    }
    if (getrusage(RUSAGE_SELF, &usage) == 0) {
        dr_run_log_scalar(r->log, "mem/host_peak_gib", (double)usage.ru_maxrss * 1024.0 / gib);
    }
}

static void note_numbers(dr_run *r, const dr_progress_step *s)
{
    const bool network = r->c->network_tags;
    const char *loss = network ? "loss/current" : "loss";
    dr_run_log_at(r->log, s->step, s->epoch);
    if (dr_precision_scales_loss(r->net.o.precision)) {
        dr_run_log_scalar(r->log, "fp16/loss_scale", s->loss_scale);
        dr_run_log_scalar(r->log, "fp16/skipped_steps", (double)s->n_skipped);
    }
    if (s->skipped) { /* neither loss nor gradients are numbers */
        if (!dr_precision_scales_loss(r->net.o.precision)) {
            dr_run_log_scalar(r->log, "alarm/not_finite", 1.0);
        }
        dr_run_log_flush(r->log);
        return;
    }
    dr_run_log_scalar(r->log, loss, s->loss);
    const double mean = mean_loss(r, loss);
    if (network) {
        dr_run_log_scalar(r->log, "loss/average", mean);
    }
    dr_run_log_scalar(r->log, "norm/grad", s->grad_norm);
    if (s->n_scaled >= 0.0) { /* sd-scripts' names */
        dr_run_log_scalar(r->log, "max_norm/keys_scaled", s->n_scaled);
        dr_run_log_scalar(r->log, "max_norm/max_key_norm", s->largest_norm);
        dr_run_log_scalar(r->log, "norm/avg_key_norm", s->mean_norm);
    }
    note_rates(r, s->step);
    note_machine(r, s);
    if (s->step % r->steps_per_epoch == 0 || s->step == r->n_steps) {
        dr_run_log_epoch_scalar(r->log, network ? "loss/epoch_average" : "loss/epoch", mean);
    }
    dr_run_log_flush(r->log);
}

void dr_run_note_left_out(dr_run *r, uint32_t epoch)
{
    dr_run_log_at(r->log, r->step + 1, epoch);
    dr_run_log_scalar(r->log, "alarm/left_out", 1.0);
    dr_run_log_flush(r->log);
    dr_info("step %lld is left out", (long long)r->step + 1);
}

void dr_run_note_step(dr_run *r, dr_progress_step s)
{
    const dr_save_options *save = &r->c->save;
    r->backend->device->memory(&s.memory_used_bytes, &s.memory_total_bytes);
    s.steps_to_save =
        dr_save_next_step(save, s.step, (int64_t)r->steps_per_epoch, r->n_steps) - s.step;
    dr_progress_update(&r->progress, &s);
    if (r->log != NULL) {
        note_numbers(r, &s);
    }
}
