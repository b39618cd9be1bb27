/*
 * launcher/journal.h - OUTPUT_DIR/.dreamrun/events.jsonl: what happened to a run and why, one line
 * each.
 *
 * Layer:    launcher.  May include base/ only.
 *
 * Events that come before the output folder is known wait in memory.
 */
#ifndef DR_LAUNCHER_JOURNAL_H
#define DR_LAUNCHER_JOURNAL_H

#include "base/str.h"

typedef struct dr_journal {
    dr_str waiting;
    dr_str path; /* empty: not known yet */
} dr_journal;

/* The run's output folder; later calls change nothing. */
void dr_journal_open(dr_journal *j, const char *output_dir);
/* Adds {"time": ..., "event": event, <fields>}; fields is the rest of a JSON object, "" for none.
 */
void dr_journal_add(dr_journal *j, const char *event, const char *fields);
void dr_journal_close(dr_journal *j);
/* Adds a text as a JSON string. */
void dr_json_text(dr_str *out, const char *text);

#endif
