#include "launcher/journal.h"

#include "base/file.h"
#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void dr_json_text(dr_str *out, const char *text)
{
    dr_str_add(out, "\"");
    for (const char *c = text; *c != '\0'; c++) {
        if (*c == '"' || *c == '\\') {
            dr_str_printf(out, "\\%c", *c);
        } else if ((unsigned char)*c < 0x20) {
            dr_str_printf(out, "\\u%04x", (unsigned)(unsigned char)*c);
        } else {
            dr_str_add_n(out, c, 1);
        }
    }
    dr_str_add(out, "\"");
}

/* A record that cannot be written costs the record, not the run. */
static void write_waiting(dr_journal *j)
{
    if (j->path.len == 0 || j->waiting.len == 0) {
        return;
    }
    FILE *f = fopen(dr_str_get(&j->path), "ae");
    bool ok = f != NULL && fwrite(j->waiting.data, 1, j->waiting.len, f) == j->waiting.len;
    int err = errno;
    if (f != NULL) {
        ok = fclose(f) == 0 && ok;
    }
    if (!ok) {
        dr_warn("%s: %s; what happens to this run is not recorded there", dr_str_get(&j->path),
                strerror(err));
    }
    dr_str_free(&j->waiting);
}

void dr_journal_open(dr_journal *j, const char *output_dir)
{
    if (output_dir == NULL || j->path.len > 0) {
        return;
    }
    dr_str dir = {0};
    dr_str_printf(&dir, "%s/.dreamrun", output_dir);
    if (dr_mkdirs(dr_str_get(&dir)) == DR_OK) {
        dr_str_printf(&j->path, "%s/events.jsonl", dr_str_get(&dir));
    }
    dr_error_clear();
    dr_str_free(&dir);
    write_waiting(j);
}

void dr_journal_add(dr_journal *j, const char *event, const char *fields)
{
    struct timespec now;
    struct tm utc;
    char date[32] = "";
    (void)clock_gettime(CLOCK_REALTIME, &now);
    if (gmtime_r(&now.tv_sec, &utc) != NULL) {
        (void)strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &utc);
    }
    dr_str_printf(&j->waiting, "{\"time\": \"%s.%03ldZ\", \"event\": \"%s\"%s%s}\n", date,
                  now.tv_nsec / 1000000, event, fields[0] != '\0' ? ", " : "", fields);
    write_waiting(j);
}

void dr_journal_close(dr_journal *j)
{
    write_waiting(j);
    dr_str_free(&j->waiting);
    dr_str_free(&j->path);
}
