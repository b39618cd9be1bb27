/*
 * train/report/report.h - one HTML page about a run: numbers, curves, sample pictures, dataset,
 * options, warnings. One file without scripts or links to other files; it opens anywhere.
 *
 * Layer:    train.
 */
#ifndef DR_TRAIN_REPORT_H
#define DR_TRAIN_REPORT_H

#include "train/report/run_log.h"

typedef struct dr_report_fact {
    const char *name, *value;
    bool given; /* of options: by the user */
} dr_report_fact;

typedef struct dr_report { /* nothing is owned */
    const char *title;
    const char *state; /* "finished", "stopped after step 12 of 100" */
    const dr_report_fact *facts;
    size_t n_facts;
    const dr_run_log *log;
    const char *sample_dir; /* *.png in it are shown; may not exist, or NULL */
    const char *dataset;    /* plain text, several lines */
    const dr_report_fact *options;
    size_t n_options;
    const dr_strv *warnings;
} dr_report;

/* Writes the page whole or not at all. Errors: DR_OUTPUT, DR_IO. */
DR_MUST_USE dr_status dr_report_write(const dr_report *r, const char *path);

/* Adds text with what HTML gives a meaning to as entities. */
void dr_report_add_text(dr_str *html, const char *text);
/* Adds series i of the log as one curve (SVG) with its axes' limits; nothing below two points. */
void dr_report_add_curve(dr_str *html, const dr_log_series *s);

#endif
