/*
 * apps/train_settings.h - from the options of a trainer to the settings of a run.
 *
 * Layer:    apps.
 */
#ifndef DR_APPS_TRAIN_SETTINGS_H
#define DR_APPS_TRAIN_SETTINGS_H

#include "apps/options.h"
#include "base/log.h"
#include "data/dataset_config.h"
#include "train/train.h"

typedef struct dr_setting_texts { /* what the settings point to beyond the option set */
    char caption_extension[64];
    char *cache_dir;
    const dr_train_fact *facts; /* in the arena */
    dr_picture_options picture;
    dr_dataset_defaults defaults;
    dr_arena arena;           /* of the dataset file and the facts */
    dr_subset_options subset; /* of folders without settings of their own */
} dr_setting_texts;
void dr_setting_texts_free(dr_setting_texts *t);

/* The dataset, its captions and its cache: all of the settings that say what is read. */
DR_MUST_USE dr_status dr_settings_data(const dr_options *o, dr_setting_texts *texts,
                                       dr_train_config *c);
/* All settings but the seed and the threads. texts is to be freed in any case. */
DR_MUST_USE dr_status dr_settings_all(const dr_options *o, dr_setting_texts *texts,
                                      dr_train_config *c);
/* Collective. --seed, or a random one; rank 0's holds for all ranks. */
DR_MUST_USE dr_status dr_settings_seed(const dr_options *o, dr_dist *d, uint64_t *seed);
dr_log_level dr_settings_log_level(const dr_options *o);

#endif
