/*
 * launcher/console.h - what the ranks print: to the screen, tagged, and to files; and their last
 * words.
 *
 * Layer:    launcher.  May include base/ only.
 *
 * Rank 0's bytes go through as they are. Lines of other ranks get "[rank N] " in front, unless they
 * carry it already.
 */
#ifndef DR_LAUNCHER_CONSOLE_H
#define DR_LAUNCHER_CONSOLE_H

#include "base/str.h"

#include <stdio.h>

typedef struct dr_console_options {
    int n_ranks;
    bool quiet;          /* only rank 0 on the screen                                          */
    const char *log_dir; /* NULL: no files                                                     */
    const char *tee;     /* which streams go to files: "3", "0:1,1:3" (as torchrun)            */
    int attempt;         /* counts from 0; names the folder below log_dir                      */
} dr_console_options;

typedef struct dr_console dr_console;

/* Errors: DR_INVALID tee; DR_OUTPUT the folder. */
DR_MUST_USE dr_status dr_console_create(const dr_console_options *o, dr_console **out);
void dr_console_destroy(dr_console *c);
/* Bytes of a rank's stdout (err false) or stderr. */
void dr_console_take(dr_console *c, int rank, bool err, const char *data, size_t n);
/* Ends lines that have not been ended; what a rank prints last may lack its line end. */
void dr_console_flush(dr_console *c);
/* The rank's first line with "error: ", else its last line on stderr; "" when it said nothing. */
const char *dr_console_words(const dr_console *c, int rank);
/* The same, only an error line; of any rank, the lowest first, when rank is -1. "" for none. */
const char *dr_console_error(const dr_console *c, int rank);
/* Path of the rank's log of stderr; NULL: none is written. */
const char *dr_console_log(const dr_console *c, int rank);

/* Which streams of a rank go to files by a specification as above: bit 0 stdout, bit 1 stderr. */
DR_MUST_USE dr_status dr_console_tee(const char *spec, int rank, int *streams);

#endif
