#include "dreamrun/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FRAMES = 16 };

typedef struct error_record {
    dr_status status;
    char message[2048];
    int n_frames;
    struct {
        const char *file;
        int line;
    } frames[MAX_FRAMES];
} error_record;

static _Thread_local error_record record;

static const struct {
    const char *name;
    int code;
    const char *text;
} status_table[DR_STATUS_COUNT] = {
#define STATUS_ROW(n, c, t) {#n, c, t},
    DR_STATUS_LIST(STATUS_ROW)
#undef STATUS_ROW
};

static bool is_valid(dr_status st)
{
    return (int)st >= 0 && st < DR_STATUS_COUNT;
}

const char *dr_status_name(dr_status st)
{
    return is_valid(st) ? status_table[st].name : "UNKNOWN";
}

const char *dr_status_text(dr_status st)
{
    return is_valid(st) ? status_table[st].text : "unknown status";
}

int dr_status_exit_code(dr_status st)
{
    return is_valid(st) ? status_table[st].code : 70;
}

static const char *short_path(const char *file)
{
    const char *src = strstr(file, "/src/");
    return src != NULL ? src + 5 : file;
}

dr_status dr_error_set(dr_status st, const char *file, int line, const char *fmt, ...)
{
    char text[sizeof record.message]; /* an argument may be the record's own message */
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    record.status = st;
    memcpy(record.message, text, sizeof text);
    record.n_frames = 0;
    return dr_error_frame(st, file, line);
}

dr_status dr_error_prefix(dr_status st, const char *fmt, ...)
{
    char text[2 * sizeof record.message];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof record.message, fmt, ap);
    va_end(ap);
    if (n < 0) {
        return st;
    }
    size_t len = strlen(text);
    (void)snprintf(text + len, sizeof text - len, ": %s", record.message);
    memcpy(record.message, text, sizeof record.message - 1);
    record.message[sizeof record.message - 1] = '\0';
    return st;
}

dr_status dr_error_frame(dr_status st, const char *file, int line)
{
    if (record.n_frames < MAX_FRAMES) {
        record.frames[record.n_frames].file = short_path(file);
        record.frames[record.n_frames].line = line;
        record.n_frames++;
    }
    return st;
}

const char *dr_error_message(void)
{
    return record.message;
}

dr_status dr_error_status(void)
{
    return record.status;
}

void dr_error_trace(char *buf, size_t size)
{
    size_t used = 0;
    buf[0] = '\0';
    for (int i = 0; i < record.n_frames && used < size; i++) {
        int n = snprintf(buf + used, size - used, "%s%s:%d", i > 0 ? " < " : "",
                         record.frames[i].file, record.frames[i].line);
        used += n > 0 ? (size_t)n : 0;
    }
}

void dr_error_clear(void)
{
    memset(&record, 0, sizeof record);
}

void dr_error_export(dr_error_copy *out)
{
    out->status = record.status;
    memcpy(out->message, record.message, sizeof out->message);
}

void dr_error_import(const dr_error_copy *in)
{
    record.status = in->status;
    memcpy(record.message, in->message, sizeof record.message);
    record.n_frames = 0;
}

static void (*panic_hook)(const char *message);

void dr_panic_set_hook(void (*hook)(const char *message))
{
    panic_hook = hook;
}

void dr_panic(const char *cond, const char *file, int line, const char *fmt, ...)
{
    char text[1024];
    char all[1400];
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    (void)snprintf(all, sizeof all, "%s:%d: broken contract (%s): %s", short_path(file), line, cond,
                   text);
    if (panic_hook != NULL) {
        panic_hook(all);
    }
    (void)fprintf(stderr, "dreamrun: %s\n", all);
    abort();
}
