/*
 * data/dataset_config.h - --dataset_config: datasets and their folders, described in a TOML or JSON
 * file.
 *
 * Layer:    data.
 * Source:   sd-scripts' config_util.py. A value is looked for in the subset, its dataset,
 * [general], the command line, in this order; folder names mean nothing here. Unlike there, a whole
 *           number will do for a number, and true is no number.
 */
#ifndef DR_DATA_DATASET_CONFIG_H
#define DR_DATA_DATASET_CONFIG_H

#include "data/dataset.h"

typedef struct dr_dataset_defaults { /* what the command line says; it outlives the dataset */
    dr_bucket_options buckets;       /* resolution {0, 0}: not given */
    int64_t batch_size;              /* --train_batch_size */
    bool masked_loss;                /* --masked_loss: mask pictures may be named */
    int64_t repeats;                 /* --dataset_repeats; 1 */
    double validation_split;         /* --validation_split */
    int64_t validation_seed;         /* --validation_seed */
    dr_subset_options subset;        /* caption_extension and picture not NULL */
} dr_dataset_defaults;

/*
 * Reads the file and sets o->parts, o->specs and their counts, in the arena. Errors: DR_INVALID for
 * keys and values (named by place, found, expected), DR_UNSUPPORTED for what is not built,
 * DR_FORMAT and DR_IO as dr_config_open.
 */
DR_MUST_USE dr_status dr_dataset_config_read(dr_arena *arena, const char *path,
                                             const dr_dataset_defaults *defaults,
                                             dr_dataset_options *o);

#endif
