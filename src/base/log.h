/*
 * base/log.h - messages to stderr, by level; rank 0 speaks unless a message says otherwise.
 *
 * Layer:    base.
 * Threads:  any; one message is one write.
 */
#ifndef DR_BASE_LOG_H
#define DR_BASE_LOG_H

#include "base/str.h"

typedef enum dr_log_level { DR_LOG_DEBUG, DR_LOG_INFO, DR_LOG_WARNING, DR_LOG_ERROR } dr_log_level;

/* Messages below level are dropped. rank > 0 silences INFO and DEBUG of this process and tags the
 * rest with "[rank N]". */
void dr_log_configure(dr_log_level level, int rank);
/*
 * Messages are added to the file instead of going to stderr, errors excepted, which go to both. It
 * stays open to the end of the process. DR_OUTPUT: it cannot be opened, nothing has changed.
 */
DR_MUST_USE dr_status dr_log_to_file(const char *path);
/* While on, every rank does the same work and only rank 0 speaks of it, warnings included. */
void dr_log_same_on_all_ranks(bool on);
/* While out is not NULL, warnings go there instead of to stderr, one string each. Of a process that
 * has one thread. */
void dr_log_collect_warnings(dr_strv *out);
/* From now on warnings of this process are kept, too, up to some number; NULL: not any more. Set
 * while there is one thread; read when the others are done. */
void dr_log_keep_warnings(dr_strv *out);
/* Counts of warnings and errors so far (for the final report). */
int dr_log_warnings(void);
void dr_log_write(dr_log_level level, const char *fmt, ...) DR_PRINTF(2, 3);

#define dr_debug(...) dr_log_write(DR_LOG_DEBUG, __VA_ARGS__)
#define dr_info(...)  dr_log_write(DR_LOG_INFO, __VA_ARGS__)
#define dr_warn(...)  dr_log_write(DR_LOG_WARNING, __VA_ARGS__)
/* Prints the thread's error record as "error: message" with the trace at DEBUG level. */
void dr_log_error_record(void);

#endif
