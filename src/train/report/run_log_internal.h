/*
 * train/report/run_log_internal.h - the numbers of a log in memory, and its JSONL file read back.
 * Private to run_log.
 */
#ifndef DR_TRAIN_RUN_LOG_INTERNAL_H
#define DR_TRAIN_RUN_LOG_INTERNAL_H

#include "train/report/run_log.h"

typedef struct dr_log_store {
    dr_log_series *at;
    size_t n, cap;
} dr_log_store;

void dr_log_store_add(dr_log_store *s, const char *tag, bool of_epoch, dr_log_point p);
/* Forgets what was noted at later steps. */
void dr_log_store_cut(dr_log_store *s, int64_t steps_done);
void dr_log_store_free(dr_log_store *s);
/*
 * Cuts the JSONL file to the rows of steps up to steps_done, and adds what they say to the store
 * unless that is NULL. The first row that is no JSON (the last one of a killed run) and what
 * follows go, too. A file that is not there is empty. Errors: DR_IO, DR_FORMAT.
 */
DR_MUST_USE dr_status dr_log_file_cut(const char *path, int64_t steps_done, dr_log_store *s);

#endif
