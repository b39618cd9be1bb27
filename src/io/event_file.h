/*
 * io/event_file.h - TensorBoard event files out: records framed as TFRecord, messages as protobuf.
 *
 * Layer:    io.
 * Threads:  one per file.
 * Source:   tensorboard 2.20 (compat/proto: event, summary, tensor; plugins/hparams); TFRecord:
 *           length u64, masked CRC32C of it, data, masked CRC32C of it, all little-endian.
 *
 * Records gather in memory until flush, which appends them in one go. A process that is killed
 * leaves a readable file that ends with its last flush. A flush that fails drops its records, so
 * the file stays readable and later flushes may succeed (base/append_file.h).
 */
#ifndef DR_IO_EVENT_FILE_H
#define DR_IO_EVENT_FILE_H

#include "base/str.h"

typedef struct dr_event_file dr_event_file;

typedef struct dr_event_at { /* where an entry belongs */
    double time_s;           /* seconds since 1970 */
    int64_t step;
    const char *tag;
} dr_event_at;

/*
 * A new file of TensorBoard's naming in the directory, which exists, with its first record.
 * restart_step >= 0: what other files of the directory hold from that step on is void.
 * Errors: DR_OUTPUT, DR_IO; *out is then NULL.
 */
DR_MUST_USE dr_status dr_event_file_create(const char *dir, double time_s, int64_t restart_step,
                                           dr_event_file **out);
/* Flushes and closes; NULL is fine. A failure of the flush is dropped: flush before to know. */
void dr_event_file_close(dr_event_file *f);
const char *dr_event_file_path(const dr_event_file *f);

void dr_event_file_scalar(dr_event_file *f, const dr_event_at *at, double value); /* as f32 */
/* Shown as Markdown under the tag "<tag>/text_summary", as torch's SummaryWriter names it. */
void dr_event_file_text(dr_event_file *f, const dr_event_at *at, const char *text);
typedef struct dr_event_png { /* a PNG file in memory */
    const void *data;
    size_t n;
    int32_t width, height;
} dr_event_png;
void dr_event_file_png(dr_event_file *f, const dr_event_at *at, const dr_event_png *png);

typedef struct dr_event_hparam {
    const char *name;
    const char *text; /* NULL: a number */
    double number;
    bool is_bool; /* number is 0 or 1 */
} dr_event_hparam;
/* What the hparams page shows: torch's three summaries (experiment, session start, session end). */
void dr_event_file_hparams(dr_event_file *f, double time_s, const dr_event_hparam *list, size_t n);

/* Appends what was gathered. DR_IO: nothing of it is in the file. */
DR_MUST_USE dr_status dr_event_file_flush(dr_event_file *f);

/* CRC32C (Castagnoli) of n bytes. */
uint32_t dr_crc32c(const void *data, size_t n);

#endif
