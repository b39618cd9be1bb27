#include "base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

static dr_log_level min_level = DR_LOG_INFO;
static int my_rank;
static bool same_on_all_ranks;
static atomic_int n_warnings;
static dr_strv *collected;
static dr_strv *kept; /* under kept_lock */
static pthread_mutex_t kept_lock = PTHREAD_MUTEX_INITIALIZER;
static FILE *file; /* NULL: stderr */

void dr_log_configure(dr_log_level level, int rank)
{
    min_level = level;
    my_rank = rank;
}

dr_status dr_log_to_file(const char *path)
{
    FILE *f = fopen(path, "ae");
    if (f == NULL) {
        DR_FAIL(DR_OUTPUT, "--console_log_file: %s cannot be written: %s", path, strerror(errno));
    }
    (void)setvbuf(f, NULL, _IOLBF, BUFSIZ);
    file = f;
    return DR_OK;
}

void dr_log_same_on_all_ranks(bool on)
{
    same_on_all_ranks = on;
}

void dr_log_collect_warnings(dr_strv *out)
{
    collected = out;
}

void dr_log_keep_warnings(dr_strv *out)
{
    kept = out;
}

static void keep(const char *text)
{
    enum { MOST_KEPT = 200 };
    (void)pthread_mutex_lock(&kept_lock);
    if (kept != NULL && kept->n < MOST_KEPT) {
        dr_strv_push(kept, text);
    }
    (void)pthread_mutex_unlock(&kept_lock);
}

int dr_log_warnings(void)
{
    return atomic_load(&n_warnings);
}

void dr_log_write(dr_log_level level, const char *fmt, ...)
{
    static const char *const tags[] = {"debug: ", "", "warning: ", "error: "};
    if (level == DR_LOG_WARNING) {
        atomic_fetch_add(&n_warnings, 1);
    }
    if (level < min_level || (my_rank > 0 && (level < DR_LOG_WARNING || same_on_all_ranks))) {
        return;
    }
    char line[4096];
    int n = 0;
    if (my_rank > 0) {
        n = snprintf(line, sizeof line, "[rank %d] ", my_rank);
    }
    n += snprintf(line + n, sizeof line - (size_t)n, "%s", tags[level]);
    va_list ap;
    va_start(ap, fmt);
    (void)vsnprintf(line + n, sizeof line - (size_t)n - 1, fmt, ap);
    va_end(ap);
    if (level == DR_LOG_WARNING) {
        keep(line + (my_rank > 0 ? 0 : strlen(tags[level])));
    }
    if (collected != NULL && level == DR_LOG_WARNING) {
        dr_strv_push(collected, line + strlen(tags[level]));
        return;
    }
    size_t len = strlen(line);
    line[len] = '\n';
    if (file != NULL) {
        (void)fwrite(line, 1, len + 1, file);
    }
    if (file == NULL || level == DR_LOG_ERROR) {
        (void)fwrite(line, 1, len + 1, stderr);
    }
}

void dr_log_error_record(void)
{
    char trace[1024];
    dr_error_trace(trace, sizeof trace);
    dr_log_write(DR_LOG_ERROR, "%s", dr_error_message());
    if (trace[0] != '\0') {
        dr_debug("at %s", trace);
    }
}
