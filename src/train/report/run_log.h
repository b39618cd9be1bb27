/*
 * train/report/run_log.h - where a run notes its numbers, texts and pictures: TensorBoard event
 * files, a JSONL file, and memory (for the report at the end). docs/logs.md describes the files.
 *
 * Layer:    train.
 * Threads:  one. Ranks: rank 0 has a log; on the others it is NULL, and every call does nothing.
 * Errors:   a log never ends a run: what cannot be written is dropped with one warning.
 *
 *   <logging_dir>/<prefix><YYYYmmddHHMMSS>/<tracker>/events.out.tfevents.*
 *   <logging_dir>/<prefix><YYYYmmddHHMMSS>/steps.jsonl
 */
#ifndef DR_TRAIN_RUN_LOG_H
#define DR_TRAIN_RUN_LOG_H

#include "io/event_file.h"

typedef struct dr_run_log dr_run_log;

typedef struct dr_run_log_config {
    const char *dir;     /* --logging_dir; NULL: numbers are kept in memory only */
    const char *prefix;  /* --log_prefix, or "" */
    const char *tracker; /* --log_tracker_name: the folder of the event files */
    /* A run that goes on: the folder's name as dr_run_log_name gave it, or NULL; and the steps
     * done. What the folder says of later steps is void. A folder that is gone is made anew. */
    const char *name;
    int64_t steps_done;
} dr_run_log_config;

/* Creates the folders and files. Errors: DR_OUTPUT. Nothing is written before a run could start. */
DR_MUST_USE dr_status dr_run_log_create(const dr_run_log_config *c, dr_run_log **out);
/* Flushes and closes. NULL is fine here and everywhere below. */
void dr_run_log_destroy(dr_run_log *l);
/* The folder of the run's log and its name in logging_dir, or NULL without files. */
const char *dr_run_log_folder(const dr_run_log *l);
const char *dr_run_log_name(const dr_run_log *l);

/* Where the following entries belong: steps done (0: before the first), epoch from 1. */
void dr_run_log_at(dr_run_log *l, int64_t step, uint32_t epoch);
/* A number of the step; tags are grouped by what stands before '/', as TensorBoard shows them. */
void dr_run_log_scalar(dr_run_log *l, const char *tag, double value);
/* A number of the epoch: over epochs, not steps. */
void dr_run_log_epoch_scalar(dr_run_log *l, const char *tag, double value);
void dr_run_log_text(dr_run_log *l, const char *tag, const char *text);
/* A picture, a PNG file in memory. */
void dr_run_log_png(dr_run_log *l, const char *tag, const dr_event_png *png);
/* The options of the run as sd-scripts' --log_config has them: a folder of their own with an event
 * file for the hparams page, and hparams.yml. */
void dr_run_log_hparams(dr_run_log *l, const dr_event_hparam *list, size_t n);
/* Brings what was noted into the files. After every step, and where more is noted. */
void dr_run_log_flush(dr_run_log *l);
/* The run went back: what was noted of steps after this one is void. */
void dr_run_log_rewind(dr_run_log *l, int64_t steps_done);

/* What was noted, for the report. */
typedef struct dr_log_point {
    int64_t step; /* steps done when it was noted */
    int64_t x;    /* that step, or the epoch */
    double y;
} dr_log_point;
typedef struct dr_log_series {
    char *tag;
    bool of_epochs;
    dr_log_point *at;
    size_t n, cap;
} dr_log_series;
size_t dr_run_log_n_series(const dr_run_log *l);
const dr_log_series *dr_run_log_series(const dr_run_log *l, size_t i);
/* NULL when nothing was noted under that tag. */
const dr_log_series *dr_run_log_find(const dr_run_log *l, const char *tag);

#endif
