#include "base/note.h"

#include "base/str.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int note_fd(void)
{
    const char *text = getenv("DREAMRUN_NOTES");
    int64_t fd = -1;
    return text != NULL && dr_parse_i64(text, &fd) && fd > 2 && fd < 1 << 20 ? (int)fd : -1;
}

void dr_note(const char *fmt, ...)
{
    char line[4002];
    va_list args;
    int fd = note_fd();
    if (fd < 0) {
        return;
    }
    va_start(args, fmt);
    int n = vsnprintf(line, sizeof line - 1, fmt, args);
    va_end(args);
    if (n < 0) {
        return;
    }
    size_t used = (size_t)n < sizeof line - 2 ? (size_t)n : sizeof line - 2;
    line[used] = '\n';
    ssize_t written = write(fd, line, used + 1); /* the pipe does not block */
    (void)written;
}
