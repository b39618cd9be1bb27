/*
 * The report at the end of a run: what goes into it, and where it is written.
 */
#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "train/report/report.h"
#include "train/run_alarms.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

bool dr_run_wants_report(const dr_run *r)
{
    return r->c->report != NULL || r->c->logging_dir != NULL;
}

static void describe_dataset(const dr_run *r, dr_str *text)
{
    const uint32_t shards = r->n_leaves / (uint32_t)r->c->accumulation;
    dr_dataset_summary(&r->dataset, text);
    dr_epoch_arithmetic(&r->dataset, r->c->batch_size, shards, (uint32_t)r->c->accumulation, text);
    dr_str_add(text, "\n");
}

/* Local time, as 2026-02-16 12:34. */
static void describe_time(char out[32])
{
    const time_t now = time(NULL);
    struct tm local;
    out[0] = '\0';
    if (localtime_r(&now, &local) != NULL) {
        (void)strftime(out, 32, "%Y-%m-%d %H:%M", &local);
    }
}

static dr_status write_page(const dr_run *r, const char *path, const char *state,
                            const char *dataset)
{
    char when[32];
    char took[32];
    char steps[64];
    char samples[32];
    char loss[32];
    char who[64];
    const double seconds = dr_now_s() - r->progress.started_s;
    describe_time(when);
    (void)snprintf(took, sizeof took, "%.0f s", seconds);
    (void)snprintf(steps, sizeof steps, "%lld of %lld, %lld of them by this process",
                   (long long)r->step, (long long)r->n_steps, (long long)r->progress.n_done);
    (void)snprintf(samples, sizeof samples, "%llu", (unsigned long long)r->progress.n_samples);
    (void)snprintf(loss, sizeof loss, "%.5g", r->progress.smooth_loss);
    (void)snprintf(who, sizeof who, "dreamrun %s, %d rank(s), %s", DR_VERSION,
                   dr_dist_world(r->dist), r->backend->name);
    const dr_report_fact facts[] = {{"ended", when, false},
                                    {"training took", took, false},
                                    {"steps", steps, false},
                                    {"samples seen by this process", samples, false},
                                    {"loss, smoothed", loss, false},
                                    {"model at the start", r->c->model.path, false},
                                    {"output", r->c->output_dir, false},
                                    {"program", who, false}};
    dr_report_fact *options = dr_xcalloc(r->c->n_options + 1, sizeof *options);
    for (size_t i = 0; i < r->c->n_options; i++) {
        const dr_train_option *o = &r->c->options[i];
        options[i] = (dr_report_fact){o->name, o->value, o->given};
    }
    char *samples_dir = dr_path_join(r->c->output_dir, "sample");
    const dr_report report = {.title = r->c->save.name != NULL ? r->c->save.name : "dreamrun",
                              .state = state,
                              .facts = facts,
                              .n_facts = sizeof facts / sizeof *facts,
                              .log = r->log,
                              .sample_dir = samples_dir,
                              .dataset = dataset,
                              .options = options,
                              .n_options = r->c->n_options,
                              .warnings = &r->warnings};
    const dr_status st = dr_report_write(&report, path);
    free(samples_dir);
    free(options);
    return st;
}

void dr_run_write_report(dr_run *r, dr_status how)
{
    dr_str state = {0};
    dr_str dataset = {0};
    if (dr_dist_rank(r->dist) != 0 || !dr_run_wants_report(r)) {
        return;
    }
    char *path = NULL;
    if (r->c->report == NULL) {
        path = dr_path_join(dr_run_log_folder(r->log), "report.html");
    }
    describe_dataset(r, &dataset);
    if (how == DR_OK) {
        dr_str_add(&state, "finished");
    } else {
        dr_str_printf(&state, "ended early: %s", dr_error_message());
    }
    const char *where = path != NULL ? path : r->c->report;
    dr_error_copy kept;
    dr_error_export(&kept);
    if (write_page(r, where, dr_str_get(&state), dr_str_get(&dataset)) == DR_OK) {
        dr_info("report: %s", where);
    } else {
        dr_warn("no report: %s", dr_error_message());
    }
    dr_error_clear();
    if (how != DR_OK) {
        dr_error_import(&kept);
    }
    dr_str_free(&state);
    dr_str_free(&dataset);
    free(path);
}
