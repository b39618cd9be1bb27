/*
 * base/append_file.h - files that grow while a program runs (logs): each addition is whole or not
 * there.
 *
 * Layer:    base.
 * Threads:  one per file.
 */
#ifndef DR_BASE_APPEND_FILE_H
#define DR_BASE_APPEND_FILE_H

#include "dreamrun/status.h"

#include <sys/types.h>

typedef struct dr_append_file { /* fd < 0: closed */
    int fd;
    off_t size; /* of the whole additions */
} dr_append_file;

/* Opens or creates the file; exclusive: it must not exist (DR_INVALID). Else DR_OUTPUT. */
DR_MUST_USE dr_status dr_append_open(dr_append_file *f, const char *path, bool exclusive);
/*
 * Adds n bytes in one go; path is for messages. A process that is killed leaves at most a part of
 * its last addition. DR_IO: nothing was added; a file from which the part could not be removed is
 * closed, and every later addition fails.
 */
DR_MUST_USE dr_status dr_append_add(dr_append_file *f, const char *path, const void *data,
                                    size_t n);
void dr_append_close(dr_append_file *f);

#endif
