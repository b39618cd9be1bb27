#include "launcher/console.h"

#include "base/arena.h"
#include "base/file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { LONGEST_LINE = 65536 };

typedef struct stream {
    dr_str line; /* bytes of a line that has not ended */
    FILE *log;   /* NULL: none                         */
    char *path;  /* of the log                         */
} stream;

typedef struct rank_output {
    stream at[2]; /* stdout, stderr */
    dr_str error, last;
} rank_output;

struct dr_console {
    int n;
    bool quiet;
    rank_output *ranks;
};

/* --- specification of files ---------------------------------------------------------------------
 */

static bool parse_streams(const char *text, size_t n, int *out)
{
    *out = n == 1 && text[0] >= '0' && text[0] <= '3' ? text[0] - '0' : -1;
    return *out >= 0;
}

dr_status dr_console_tee(const char *spec, int rank, int *streams)
{
    bool good = parse_streams(spec, strlen(spec), streams);
    if (good) {
        return DR_OK;
    }
    *streams = 0;
    good = spec[0] != '\0';
    for (const char *p = spec; good && *p != '\0';) {
        char *end = NULL;
        long of = strtol(p, &end, 10);
        int value = 0;
        good = end != p && *end == ':' && parse_streams(end + 1, strcspn(end + 1, ","), &value);
        if (good && of == rank) {
            *streams = value;
        }
        p = good ? end + 2 : p;
        p += *p == ',';
    }
    if (!good) {
        DR_FAIL(DR_INVALID,
                "--tee: found '%s', expected 0 (none), 1 (stdout), 2 (stderr), 3 (both) or "
                "RANK:N,RANK:N",
                spec);
    }
    return DR_OK;
}

/* --- life ---------------------------------------------------------------------------------------
 */

static dr_status open_log(stream *s, const char *dir, int rank, const char *ending)
{
    dr_str path = {0};
    dr_str_printf(&path, "%s/rank_%d.%s", dir, rank, ending);
    s->path = path.data;
    s->log = fopen(s->path, "we");
    if (s->log == NULL) {
        DR_FAIL(DR_OUTPUT, "%s: cannot create: %s", s->path, strerror(errno));
    }
    return DR_OK;
}

static dr_status open_logs(dr_console *c, const dr_console_options *o)
{
    dr_str dir = {0};
    dr_str_printf(&dir, "%s/%d", o->log_dir, o->attempt);
    dr_status st = dr_mkdirs(dr_str_get(&dir));
    for (int r = 0; st == DR_OK && r < c->n; r++) {
        int streams = 0;
        st = dr_console_tee(o->tee, r, &streams);
        if (st == DR_OK && (streams & 1) != 0) {
            st = open_log(&c->ranks[r].at[0], dr_str_get(&dir), r, "out");
        }
        if (st == DR_OK && (streams & 2) != 0) {
            st = open_log(&c->ranks[r].at[1], dr_str_get(&dir), r, "err");
        }
    }
    dr_str_free(&dir);
    return st;
}

dr_status dr_console_create(const dr_console_options *o, dr_console **out)
{
    dr_console *c = dr_xcalloc(1, sizeof *c);
    c->n = o->n_ranks;
    c->quiet = o->quiet;
    c->ranks = dr_xcalloc((size_t)c->n, sizeof *c->ranks);
    dr_status st = o->log_dir != NULL ? open_logs(c, o) : DR_OK;
    if (st != DR_OK) {
        dr_console_destroy(c);
        return st;
    }
    *out = c;
    return DR_OK;
}

void dr_console_destroy(dr_console *c)
{
    for (int i = 0; c != NULL && i < 2 * c->n; i++) {
        stream *s = &c->ranks[i / 2].at[i % 2];
        if (s->log != NULL) {
            (void)fclose(s->log);
        }
        dr_str_free(&s->line);
        free(s->path);
    }
    for (int r = 0; c != NULL && r < c->n; r++) {
        dr_str_free(&c->ranks[r].error);
        dr_str_free(&c->ranks[r].last);
    }
    if (c != NULL) {
        free(c->ranks);
    }
    free(c);
}

/* --- lines --------------------------------------------------------------------------------------
 */

/* A line of a rank without its "[rank N] ". */
static const char *untagged(const char *line)
{
    const char *end = dr_str_starts(line, "[rank ") ? strstr(line, "] ") : NULL;
    return end != NULL ? end + 2 : line;
}

/* The message behind "error: " of a line, with "[rank N] " or "dreamrun: rank N: " before it; NULL.
 */
static const char *error_in(const char *line)
{
    const char *at = untagged(line);
    return dr_str_starts(at, "error: ") ? at + strlen("error: ") : NULL;
}

static void remember(dr_str *s, const char *text)
{
    dr_str_free(s);
    dr_str_add(s, text);
}

static void end_line(dr_console *c, int rank, bool err)
{
    rank_output *r = &c->ranks[rank];
    dr_str *line = &r->at[err].line;
    const char *text = dr_str_get(line);
    const char *carriage = strrchr(text, '\r'); /* of a progress line only the last state counts */
    text = carriage != NULL && carriage[1] != '\0' ? carriage + 1 : text;
    if (err && text[0] != '\0') {
        const char *error = error_in(text);
        if (error != NULL && r->error.len == 0) {
            remember(&r->error, error);
        }
        if (!dr_str_starts(untagged(text), "warning: ")) { /* no cause of an end */
            remember(&r->last, text);
        }
    }
    if (rank > 0 && !c->quiet) {
        FILE *to = err ? stderr : stdout;
        if (dr_str_starts(text, "[rank ")) {
            (void)fprintf(to, "%s\n", text);
        } else {
            (void)fprintf(to, "[rank %d] %s\n", rank, text);
        }
        (void)fflush(to);
    }
    dr_str_free(line);
}

void dr_console_take(dr_console *c, int rank, bool err, const char *data, size_t n)
{
    if (rank < 0 || rank >= c->n) {
        return;
    }
    stream *s = &c->ranks[rank].at[err];
    if (s->log != NULL) {
        (void)fwrite(data, 1, n, s->log);
        (void)fflush(s->log);
    }
    if (rank == 0) {
        FILE *to = err ? stderr : stdout;
        (void)fwrite(data, 1, n, to);
        (void)fflush(to);
    }
    while (n > 0) {
        const char *end = memchr(data, '\n', n);
        size_t part = end != NULL ? (size_t)(end - data) : n;
        dr_str_add_n(&s->line, data, part);
        if (end != NULL || s->line.len > LONGEST_LINE) {
            end_line(c, rank, err);
        }
        part += end != NULL;
        data += part;
        n -= part;
    }
}

void dr_console_flush(dr_console *c)
{
    for (int i = 0; i < 2 * c->n; i++) {
        if (c->ranks[i / 2].at[i % 2].line.len > 0) {
            end_line(c, i / 2, i % 2 != 0);
        }
    }
}

const char *dr_console_error(const dr_console *c, int rank)
{
    for (int r = 0; r < c->n; r++) {
        if ((rank < 0 || r == rank) && c->ranks[r].error.len > 0) {
            return dr_str_get(&c->ranks[r].error);
        }
    }
    return "";
}

const char *dr_console_words(const dr_console *c, int rank)
{
    const char *error = dr_console_error(c, rank);
    return error[0] != '\0' ? error : dr_str_get(&c->ranks[rank].last);
}

const char *dr_console_log(const dr_console *c, int rank)
{
    return c->ranks[rank].at[1].path;
}
