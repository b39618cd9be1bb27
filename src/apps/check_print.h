/*
 * apps/check_print.h - what `dreamrun check` found, for people and for programs.
 *
 * Layer:    apps.
 */
#ifndef DR_APPS_CHECK_PRINT_H
#define DR_APPS_CHECK_PRINT_H

#include "base/str.h"
#include "train/check/dataset_check.h"

typedef struct dr_check_result {
    const dr_dataset *dataset; /* without pictures when it could not be built */
    const dr_dataset_report *report;
    const dr_check_options *options;
    const dr_strv *scan_warnings; /* of reading the folders */
    const char *error;            /* why the dataset could not be built; NULL: it was */
    uint32_t batches_per_epoch;   /* over all ranks */
} dr_check_result;

/* Folders, buckets, captions, steps, findings. */
void dr_check_print_text(const dr_check_result *r, dr_str *out);
/* One JSON object: images, truncated, buckets, totals, findings, warnings. */
void dr_check_print_json(const dr_check_result *r, dr_str *out);

#endif
