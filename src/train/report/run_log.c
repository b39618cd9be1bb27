#include "train/report/run_log.h"

#include "base/append_file.h"
#include "base/arena.h"
#include "base/file.h"
#include "base/log.h"
#include "io/json.h"
#include "train/report/run_log_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

typedef enum row_kind { ROW_NONE, ROW_STEP, ROW_EPOCH } row_kind;

struct dr_run_log {
    char *name, *folder, *jsonl_path; /* NULL: memory only */
    char *tracker_folder;
    dr_event_file *events;
    dr_append_file jsonl;
    dr_str rows; /* finished rows of the JSONL file */
    dr_str row;  /* the one being built, without its end */
    row_kind row_kind;
    int64_t step;
    uint32_t epoch;
    bool warned;
    dr_log_store store;
};

static double wall_time_s(void)
{
    struct timespec t = {0};
    (void)clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- folders and files --------------------------------------------------------------------- */

/* A new folder <prefix><time> in dir; where two runs begin in one second the later gets "_2". */
static dr_status make_folder(dr_run_log *l, const dr_run_log_config *c)
{
    char stamp[32] = "";
    const time_t now = time(NULL);
    struct tm local;
    if (localtime_r(&now, &local) != NULL) {
        (void)strftime(stamp, sizeof stamp, "%Y%m%d%H%M%S", &local);
    }
    DR_TRY(dr_mkdirs(c->dir));
    for (int number = 1;; number++) {
        dr_str name = {0};
        dr_str_printf(&name, "%s%s", c->prefix, stamp);
        if (number > 1) {
            dr_str_printf(&name, "_%d", number);
        }
        l->name = name.data;
        l->folder = dr_path_join(c->dir, l->name);
        if (mkdir(l->folder, 0777) == 0) {
            return DR_OK;
        }
        const int why = errno;
        if (why != EEXIST) {
            DR_FAIL(DR_OUTPUT, "--logging_dir: %s cannot be created: %s", l->folder, strerror(why));
        }
        free(l->name);
        free(l->folder);
        l->name = l->folder = NULL;
    }
}

/* The folder that the run wrote before; false: it is gone, or there was none. */
static bool find_folder(dr_run_log *l, const dr_run_log_config *c)
{
    if (c->name == NULL || strchr(c->name, '/') != NULL) {
        return false;
    }
    char *folder = dr_path_join(c->dir, c->name);
    if (!dr_path_is_dir(folder)) {
        free(folder);
        return false;
    }
    dr_str name = {0};
    dr_str_add(&name, c->name);
    l->name = name.data;
    l->folder = folder;
    return true;
}

static dr_status open_events(dr_run_log *l, int64_t restart_step)
{
    dr_event_file_close(l->events);
    l->events = NULL;
    return dr_event_file_create(l->tracker_folder, wall_time_s(), restart_step, &l->events);
}

static dr_status open_files(dr_run_log *l, const dr_run_log_config *c)
{
    const bool goes_on = find_folder(l, c);
    if (!goes_on) {
        DR_TRY(make_folder(l, c));
    }
    l->tracker_folder = dr_path_join(l->folder, c->tracker);
    l->jsonl_path = dr_path_join(l->folder, "steps.jsonl");
    DR_TRY(dr_mkdirs(l->tracker_folder));
    if (goes_on) {
        DR_TRY(dr_log_file_cut(l->jsonl_path, c->steps_done, &l->store));
    }
    DR_TRY(open_events(l, goes_on ? c->steps_done + 1 : -1));
    return dr_append_open(&l->jsonl, l->jsonl_path, false);
}

dr_status dr_run_log_create(const dr_run_log_config *c, dr_run_log **out)
{
    dr_run_log *l = dr_xcalloc(1, sizeof *l);
    l->jsonl.fd = -1;
    const dr_status st = c->dir != NULL ? open_files(l, c) : DR_OK;
    if (st != DR_OK) {
        dr_run_log_destroy(l);
        return st;
    }
    *out = l;
    return DR_OK;
}

void dr_run_log_destroy(dr_run_log *l)
{
    if (l == NULL) {
        return;
    }
    dr_run_log_flush(l);
    dr_event_file_close(l->events);
    dr_append_close(&l->jsonl);
    dr_str_free(&l->rows);
    dr_str_free(&l->row);
    dr_log_store_free(&l->store);
    free(l->name);
    free(l->folder);
    free(l->tracker_folder);
    free(l->jsonl_path);
    free(l);
}

const char *dr_run_log_folder(const dr_run_log *l)
{
    return l != NULL ? l->folder : NULL;
}

const char *dr_run_log_name(const dr_run_log *l)
{
    return l != NULL ? l->name : NULL;
}

/* ---- entries ------------------------------------------------------------------------------- */

static void end_row(dr_run_log *l)
{
    if (l->row_kind != ROW_NONE) {
        dr_str_add(&l->row, "}\n");
        dr_str_add_n(&l->rows, l->row.data, l->row.len);
        dr_str_free(&l->row);
        l->row_kind = ROW_NONE;
    }
}

void dr_run_log_at(dr_run_log *l, int64_t step, uint32_t epoch)
{
    if (l != NULL) {
        end_row(l);
        l->step = step;
        l->epoch = epoch;
    }
}

static void begin_row(dr_run_log *l, row_kind kind)
{
    if (l->row_kind == kind) {
        return;
    }
    end_row(l);
    l->row_kind = kind;
    dr_str_printf(&l->row, "{\"step\": %lld, \"epoch\": %u, \"time\": %.3f", (long long)l->step,
                  l->epoch, wall_time_s());
    if (kind == ROW_EPOCH) {
        dr_str_add(&l->row, ", \"of\": \"epoch\"");
    }
}

static void add_scalar(dr_run_log *l, bool of_epoch, const char *tag, double value)
{
    if (l == NULL) {
        return;
    }
    const int64_t x = of_epoch ? (int64_t)l->epoch : l->step;
    dr_log_store_add(&l->store, tag, of_epoch, (dr_log_point){l->step, x, value});
    if (l->events == NULL) {
        return;
    }
    begin_row(l, of_epoch ? ROW_EPOCH : ROW_STEP);
    dr_str_add(&l->row, ", ");
    dr_json_add_string(&l->row, tag);
    dr_str_add(&l->row, ": ");
    dr_json_add_double(&l->row, value);
    dr_event_file_scalar(l->events, &(dr_event_at){wall_time_s(), x, tag}, value);
}

void dr_run_log_scalar(dr_run_log *l, const char *tag, double value)
{
    add_scalar(l, false, tag, value);
}

void dr_run_log_epoch_scalar(dr_run_log *l, const char *tag, double value)
{
    add_scalar(l, true, tag, value);
}

void dr_run_log_text(dr_run_log *l, const char *tag, const char *text)
{
    if (l != NULL && l->events != NULL) {
        dr_event_file_text(l->events, &(dr_event_at){wall_time_s(), l->step, tag}, text);
    }
}

void dr_run_log_png(dr_run_log *l, const char *tag, const dr_event_png *png)
{
    if (l != NULL && l->events != NULL) {
        dr_event_file_png(l->events, &(dr_event_at){wall_time_s(), l->step, tag}, png);
    }
}

static void warn_once(dr_run_log *l)
{
    if (!l->warned) {
        dr_warn("the log is incomplete: %s; the run goes on", dr_error_message());
        l->warned = true;
    }
    dr_error_clear();
}

void dr_run_log_flush(dr_run_log *l)
{
    if (l == NULL || l->events == NULL) {
        return;
    }
    end_row(l);
    if (l->rows.len > 0 &&
        dr_append_add(&l->jsonl, l->jsonl_path, l->rows.data, l->rows.len) != DR_OK) {
        warn_once(l);
    }
    dr_str_free(&l->rows);
    if (dr_event_file_flush(l->events) != DR_OK) {
        warn_once(l);
    }
}

void dr_run_log_rewind(dr_run_log *l, int64_t steps_done)
{
    if (l == NULL) {
        return;
    }
    dr_run_log_flush(l);
    dr_log_store_cut(&l->store, steps_done);
    if (l->events == NULL) {
        return;
    }
    dr_append_close(&l->jsonl);
    dr_status st = dr_log_file_cut(l->jsonl_path, steps_done, NULL);
    if (st == DR_OK) {
        st = dr_append_open(&l->jsonl, l->jsonl_path, false);
    }
    if (st != DR_OK || open_events(l, steps_done + 1) != DR_OK) {
        warn_once(l);
    }
}

/* ---- hparams ------------------------------------------------------------------------------- */

static dr_status write_hparams_yml(const char *folder, const dr_event_hparam *list, size_t n)
{
    dr_str text = {0};
    for (size_t i = 0; i < n; i++) {
        char number[32];
        dr_str_printf(&text, "%s: ", list[i].name);
        if (list[i].text != NULL) {
            dr_json_add_string(&text, list[i].text); /* a JSON string is a YAML string */
        } else if (list[i].is_bool) {
            dr_str_add(&text, list[i].number != 0.0 ? "true" : "false");
        } else {
            dr_float_repr(list[i].number, number);
            dr_str_add(&text, number);
        }
        dr_str_add(&text, "\n");
    }
    char *path = dr_path_join(folder, "hparams.yml");
    const dr_status st = dr_file_write(path, dr_str_get(&text), text.len);
    free(path);
    dr_str_free(&text);
    return st;
}

void dr_run_log_hparams(dr_run_log *l, const dr_event_hparam *list, size_t n)
{
    if (l == NULL || l->events == NULL) {
        return;
    }
    const double now = wall_time_s();
    char number[32];
    dr_event_file *events = NULL;
    (void)snprintf(number, sizeof number, "%.6f", now);
    char *folder = dr_path_join(l->tracker_folder, number);
    dr_status st = dr_mkdirs(folder);
    if (st == DR_OK) {
        st = write_hparams_yml(folder, list, n);
    }
    if (st == DR_OK) {
        st = dr_event_file_create(folder, now, -1, &events);
    }
    if (st == DR_OK) {
        dr_event_file_hparams(events, now, list, n);
        st = dr_event_file_flush(events);
    }
    dr_event_file_close(events);
    free(folder);
    if (st != DR_OK) {
        warn_once(l);
    }
}

/* ---- what was noted ------------------------------------------------------------------------ */

size_t dr_run_log_n_series(const dr_run_log *l)
{
    return l != NULL ? l->store.n : 0;
}

const dr_log_series *dr_run_log_series(const dr_run_log *l, size_t i)
{
    return &l->store.at[i];
}

const dr_log_series *dr_run_log_find(const dr_run_log *l, const char *tag)
{
    for (size_t i = 0; i < dr_run_log_n_series(l); i++) {
        if (strcmp(l->store.at[i].tag, tag) == 0) {
            return &l->store.at[i];
        }
    }
    return NULL;
}
