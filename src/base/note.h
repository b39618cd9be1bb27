/*
 * base/note.h - what a rank tells the launcher that watches it: joined, step, state, hang.
 *
 * Layer:    base.
 * Threads:  any; a note is one write.
 *
 * The agent above the rank (launcher/agent.h) hands a pipe down in DREAMRUN_NOTES. Without one, and
 * when it is full, notes are dropped: they change nothing in the run.
 */
#ifndef DR_BASE_NOTE_H
#define DR_BASE_NOTE_H

#include "dreamrun/status.h"

/* Sends one line, without its line end, of at most 4000 bytes. */
void dr_note(const char *fmt, ...) DR_PRINTF(1, 2);

#endif
