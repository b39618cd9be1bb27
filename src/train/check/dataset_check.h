/*
 * train/check/dataset_check.h - what will go wrong, or not as expected, with a dataset: said before
 * it costs hours. `dreamrun check` shows all of it; a training stops at its errors and shows its
 * warnings.
 *
 * Layer:    train.
 * Errors that no dataset can be built with (folders, captions that are not UTF-8, damaged
 * pictures) come from dr_dataset_open; this looks at a dataset that could be built.
 */
#ifndef DR_TRAIN_DATASET_CHECK_H
#define DR_TRAIN_DATASET_CHECK_H

#include "data/dataset.h"

typedef enum dr_check_level { DR_CHECK_NOTE, DR_CHECK_WARNING, DR_CHECK_ERROR } dr_check_level;

typedef struct dr_check_finding {
    dr_check_level level;
    const char *cause; /* a word for programs: "captions-elsewhere" */
    char *text;        /* what was found, with examples */
    char *fix;         /* what to do; "" where nothing needs to be done */
} dr_check_finding;

typedef struct dr_check_options {
    const char *caption_extension; /* of folders that name none */
    int token_rows;                /* 1, 2, 3: captions of 75, 150, 225 tokens */
    bool v2;
    uint32_t batch_size; /* of buckets that name none */
    uint32_t n_ranks, accumulation;
    int64_t n_steps, steps_per_epoch;
    bool hash; /* read all files: finds pictures that are there twice */
    bool deep; /* decode all pictures: finds damage, and pictures of one colour */
} dr_check_options;

typedef struct dr_dataset_report {
    dr_check_finding *findings; /* errors first */
    size_t n_findings;
    size_t n_errors, n_warnings;
    size_t n_images;
    uint32_t *n_tokens; /* (images): of the unprocessed caption, without start and end */
    char **tails;       /* (images): the text that is cut off, or NULL */
} dr_dataset_report;

/* The share of the resized picture that its crop leaves out, in 0..1. */
double dr_crop_loss(const dr_dataset_image *image);
/* How much larger than the file the resized picture is along its wider side: 1 and less: not. */
double dr_enlargement(const dr_dataset_image *image);

/* Samples of a batch of the bucket. */
uint32_t dr_check_batch_size(const dr_check_options *o, const dr_bucket *b);

/* Errors: DR_IO for folders that can no longer be read. The caller ends it with deinit either way.
 */
DR_MUST_USE dr_status dr_dataset_check(const dr_dataset *d, const dr_check_options *o,
                                       dr_dataset_report *out);
void dr_dataset_report_deinit(dr_dataset_report *r);

#endif
