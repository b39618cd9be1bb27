/*
 * train/check/dataset_check_internal.h - how the checks of a dataset report. Private to train.
 */
#ifndef DR_TRAIN_DATASET_CHECK_INTERNAL_H
#define DR_TRAIN_DATASET_CHECK_INTERNAL_H

#include "train/check/dataset_check.h"

typedef struct dr_checking {
    const dr_dataset *d;
    const dr_check_options *o;
    dr_dataset_report *out;
} dr_checking;

/* Examples for a finding: the first five by name, then how many more. */
typedef struct dr_examples {
    dr_str text;
    size_t n;
} dr_examples;
void dr_examples_add(dr_examples *e, const char *fmt, ...) DR_PRINTF(2, 3);
/* Adds a finding "<head>: <number><examples>" when there are any, and frees the examples. */
void dr_checking_report(dr_checking *c, dr_check_level level, const char *cause, const char *head,
                        dr_examples *e, const char *fix);
void dr_checking_add(dr_checking *c, dr_check_level level, const char *cause, const char *text,
                     const char *fix);

/* The ending of a folder's caption files, without its dot. */
const char *dr_checking_extension(const dr_checking *c, const dr_subset *s);

/* The checks, by what they look at. */
DR_MUST_USE dr_status dr_check_captions(dr_checking *c);
DR_MUST_USE dr_status dr_check_folders(dr_checking *c);
DR_MUST_USE dr_status dr_check_pictures(dr_checking *c);

#endif
