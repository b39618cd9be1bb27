/*
 * The numbers of a log in memory, and the JSONL file read back when a run goes on or goes back.
 */
#include "base/arena.h"
#include "base/file.h"
#include "io/json.h"
#include "train/report/run_log_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static dr_log_series *series_of(dr_log_store *s, const char *tag, bool of_epochs)
{
    for (size_t i = 0; i < s->n; i++) {
        if (s->at[i].of_epochs == of_epochs && strcmp(s->at[i].tag, tag) == 0) {
            return &s->at[i];
        }
    }
    if (s->n == s->cap) {
        s->cap = s->cap > 0 ? 2 * s->cap : 32;
        s->at = dr_xrealloc(s->at, s->cap, sizeof *s->at);
    }
    dr_str copy = {0};
    dr_str_add(&copy, tag);
    s->at[s->n] = (dr_log_series){.tag = copy.data, .of_epochs = of_epochs};
    return &s->at[s->n++];
}

void dr_log_store_add(dr_log_store *s, const char *tag, bool of_epoch, dr_log_point p)
{
    dr_log_series *series = series_of(s, tag, of_epoch);
    if (series->n == series->cap) {
        series->cap = series->cap > 0 ? 2 * series->cap : 256;
        series->at = dr_xrealloc(series->at, series->cap, sizeof *series->at);
    }
    series->at[series->n++] = p;
}

void dr_log_store_cut(dr_log_store *s, int64_t steps_done)
{
    for (size_t i = 0; i < s->n; i++) {
        dr_log_series *series = &s->at[i];
        while (series->n > 0 && series->at[series->n - 1].step > steps_done) {
            series->n--;
        }
    }
}

void dr_log_store_free(dr_log_store *s)
{
    for (size_t i = 0; i < s->n; i++) {
        free(s->at[i].tag);
        free(s->at[i].at);
    }
    free(s->at);
    *s = (dr_log_store){0};
}

/* ---- the JSONL file ------------------------------------------------------------------------ */

/* The numbers of one row. */
static void take_row(dr_log_store *s, const dr_json_doc *row, int64_t step)
{
    int64_t epoch = 0;
    if (dr_json_get_int(row, "epoch", &epoch, NULL) != DR_OK) {
        dr_error_clear();
    }
    const dr_json_value *root = dr_json_root(row);
    const bool of_epoch = dr_json_member(root, "of") != NULL;
    dr_json_iter it = {0};
    while (dr_json_next(root, &it)) {
        const dr_json_kind kind = dr_json_kind_of_value(it.value);
        const bool place = strcmp(it.name, "step") == 0 || strcmp(it.name, "epoch") == 0 ||
                           strcmp(it.name, "time") == 0;
        if (!place && (kind == DR_JSON_REAL || kind == DR_JSON_INT)) {
            const dr_log_point p = {step, of_epoch ? epoch : step, dr_json_real_value(it.value)};
            dr_log_store_add(s, it.name, of_epoch, p);
        }
    }
}

/* True when the row stays; its numbers are then in the store. */
static bool keep_row(const char *path, const char *text, size_t n, int64_t steps_done,
                     dr_log_store *s)
{
    dr_json_doc *row = NULL;
    int64_t step = 0;
    if (dr_json_parse(&row, path, text, n) != DR_OK) {
        dr_error_clear();
        return false;
    }
    bool keep = dr_json_get_int(row, "step", &step, NULL) == DR_OK && step <= steps_done;
    if (keep && s != NULL) {
        take_row(s, row, step);
    }
    dr_json_close(row);
    return keep;
}

dr_status dr_log_file_cut(const char *path, int64_t steps_done, dr_log_store *s)
{
    enum { MAX_BYTES = 1 << 30 };
    char *text = NULL;
    size_t n = 0;
    if (!dr_path_exists(path)) {
        return DR_OK;
    }
    DR_TRY(dr_file_read(path, MAX_BYTES, &text, &n));
    size_t at = 0;
    for (const char *end; at < n && (end = memchr(text + at, '\n', n - at)) != NULL;) {
        const size_t length = (size_t)(end - text) - at;
        if (!keep_row(path, text + at, length, steps_done, s)) {
            break;
        }
        at += length + 1;
    }
    free(text);
    if (at < n && truncate(path, (off_t)at) != 0) {
        DR_FAIL(DR_IO, "%s: cannot be cut to the steps done: %s", path, strerror(errno));
    }
    return DR_OK;
}
