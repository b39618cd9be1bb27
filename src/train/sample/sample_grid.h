/*
 * train/sample/sample_grid.h - all sample pictures of a run in one: a row for each time they were
 * drawn, a column for each prompt.
 *
 * Layer:    train.
 */
#ifndef DR_TRAIN_SAMPLE_GRID_H
#define DR_TRAIN_SAMPLE_GRID_H

#include "train/sample/sample_files.h"

typedef struct dr_sample_grid {
    const char *dir;         /* of the pictures; the grid lies there, too */
    const char *output_name; /* or NULL */
    const char *since;   /* files of earlier times are another run's; NULL: a run that goes on */
    dr_sample_when last; /* files of later numbers are another run's */
    size_t n_prompts;
} dr_sample_grid;

/*
 * Writes "{output_name_}grid.png" from the pictures in dir: each fits into 256 x 256; of more than
 * 24 rows an even choice with the first and the last one. What a picture's file lacks is black.
 * Errors: DR_IO, DR_OUTPUT, DR_FORMAT, DR_NOMEM.
 */
DR_MUST_USE dr_status dr_sample_grid_write(const dr_sample_grid *g);

#endif
