#define _GNU_SOURCE /* accept4 */
#include "launcher/ranks.h"

#include "base/arena.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_NEWCOMERS = 64 };

typedef struct dr_newcomer {
    int fd;
    dr_wire_reader reader;
} dr_newcomer;

void dr_ranks_init(dr_ranks *r, int n, int listener, const char *token, dr_console *console)
{
    *r = (dr_ranks){
        .n = n, .listener = listener, .token = token, .console = console, .first_failed = -1};
    r->at = dr_xcalloc((size_t)n + 1, sizeof *r->at);
    r->newcomers = dr_xcalloc(MAX_NEWCOMERS, sizeof *r->newcomers);
    for (int i = 0; i < n; i++) {
        r->at[i].fd = -1;
    }
}

void dr_ranks_deinit(dr_ranks *r)
{
    for (int i = 0; i < r->n; i++) {
        if (r->at[i].fd >= 0) {
            (void)close(r->at[i].fd);
        }
        dr_wire_reader_free(&r->at[i].reader);
    }
    for (int i = 0; i < r->n_newcomers; i++) {
        (void)close(r->newcomers[i].fd);
        dr_wire_reader_free(&r->newcomers[i].reader);
    }
    free(r->newcomers);
    free(r->at);
    free(r->state);
    free(r->output_dir);
    free(r->hang);
    *r = (dr_ranks){.listener = -1, .first_failed = -1};
}

int dr_ranks_signal(dr_ranks *r, int sig)
{
    char text[16];
    int reached = 0;
    int n = snprintf(text, sizeof text, "%d", sig);
    for (int i = 0; i < r->n; i++) {
        if (r->at[i].fd >= 0 && !r->at[i].ended) {
            reached += dr_wire_send(r->at[i].fd, DR_WIRE_SIGNAL, i, text, (size_t)n);
        }
    }
    return reached;
}

int dr_ranks_poll_size(const dr_ranks *r)
{
    return r->n + MAX_NEWCOMERS + 1;
}

int dr_ranks_poll(const dr_ranks *r, struct pollfd *p, int cap)
{
    int n = 0;
    if (r->listener >= 0 && n < cap) {
        p[n++] = (struct pollfd){.fd = r->listener, .events = POLLIN};
    }
    for (int i = 0; i < r->n_newcomers && n < cap; i++) {
        p[n++] = (struct pollfd){.fd = r->newcomers[i].fd, .events = POLLIN};
    }
    for (int i = 0; i < r->n && n < cap; i++) {
        if (r->at[i].fd >= 0) {
            p[n++] = (struct pollfd){.fd = r->at[i].fd, .events = POLLIN};
        }
    }
    return n;
}

/* --- frames -------------------------------------------------------------------------------------
 */

static void set_text(char **slot, const char *text)
{
    dr_str copy = {0};
    dr_str_add(&copy, text);
    free(*slot);
    *slot = copy.data;
}

static void take_note(dr_ranks *r, dr_rank_view *v, const char *note)
{
    const char *rest = strchr(note, ' ');
    rest = rest != NULL ? rest + 1 : "";
    if (strcmp(note, "joined") == 0) {
        r->n_joined += !v->joined;
        v->joined = true;
    } else if (dr_str_starts(note, "step ")) {
        int64_t step = strtoll(rest, NULL, 10);
        r->step = step > r->step ? step : r->step;
    } else if (dr_str_starts(note, "state ")) {
        char *path = NULL;
        r->state_step = strtoll(rest, &path, 10);
        set_text(&r->state, *path == ' ' ? path + 1 : path);
    } else if (dr_str_starts(note, "output_dir ")) {
        set_text(&r->output_dir, rest);
    } else if (dr_str_starts(note, "hang ") && r->hang == NULL) {
        set_text(&r->hang, rest);
    } else if (dr_str_starts(note, "signal ")) {
        r->stop_signal = (int)strtol(rest, NULL, 10);
    }
}

static void take_end(dr_ranks *r, int rank, int code, int sig)
{
    dr_rank_view *v = &r->at[rank];
    if (v->ended) {
        return;
    }
    v->ended = true;
    v->code = code;
    v->signal = sig;
    r->n_ended++;
    bool saved = code == dr_status_exit_code(DR_CANCELLED);
    if (code != 0 && !saved && r->first_failed < 0) {
        r->first_failed = rank;
    }
}

static void take_frame(dr_ranks *r, int rank, const dr_wire_frame *f)
{
    char *end = NULL;
    switch ((dr_wire_kind)f->kind) {
    case DR_WIRE_OUT:
    case DR_WIRE_ERR:
        dr_console_take(r->console, rank, f->kind == DR_WIRE_ERR, f->data, f->n);
        break;
    case DR_WIRE_NOTE:
        take_note(r, &r->at[rank], f->data);
        break;
    case DR_WIRE_END: {
        int code = (int)strtol(f->data, &end, 10);
        take_end(r, rank, code, (int)strtol(end, NULL, 10));
        break;
    }
    case DR_WIRE_HELLO:
    case DR_WIRE_SIGNAL:
        break;
    }
}

static void take_rank(dr_ranks *r, int rank)
{
    dr_rank_view *v = &r->at[rank];
    dr_wire_frame f;
    bool broken = false;
    int got = 0;
    while (v->fd >= 0 && (got = dr_wire_fill(&v->reader, v->fd)) > 0) {
        while (dr_wire_next(&v->reader, &f, &broken)) {
            take_frame(r, rank, &f);
        }
        if (broken) {
            got = -1;
            break;
        }
    }
    if (v->fd >= 0 && got < 0) {
        (void)close(v->fd);
        v->fd = -1;
        if (!v->ended) {
            v->lost = true;
            take_end(r, rank, 128 + SIGKILL, SIGKILL);
        }
    }
}

int dr_ranks_open(const dr_ranks *r)
{
    int n = 0;
    for (int i = 0; i < r->n; i++) {
        n += r->at[i].seen && !r->at[i].ended;
    }
    return n;
}

void dr_ranks_give_up(dr_ranks *r)
{
    int before = r->first_failed;
    int first = -1;
    for (int i = 0; i < r->n; i++) {
        dr_rank_view *v = &r->at[i];
        if (v->seen && !v->ended) {
            v->lost = true;
            take_end(r, i, 128 + SIGKILL, SIGKILL);
            first = first < 0 ? i : first;
        }
    }
    if (first >= 0 && before >= 0 && strcmp(r->at[first].host, r->at[before].host) != 0) {
        r->first_failed = first;
    }
}

/* --- newcomers ----------------------------------------------------------------------------------
 */

static void drop_newcomer(dr_ranks *r, int i, bool shut)
{
    if (shut) {
        (void)close(r->newcomers[i].fd);
        dr_wire_reader_free(&r->newcomers[i].reader);
    }
    r->newcomers[i] = r->newcomers[--r->n_newcomers];
}

/* "TOKEN HOST PID"; false: it is none of ours. */
static bool welcome(dr_ranks *r, const dr_newcomer *c, dr_wire_frame *f)
{
    char *place = NULL;
    const char *token = strtok_r(f->data, " ", &place);
    const char *host = strtok_r(NULL, " ", &place);
    if (f->kind != DR_WIRE_HELLO || f->rank >= (uint32_t)r->n || token == NULL || host == NULL ||
        strcmp(token, r->token) != 0 || r->at[f->rank].seen) {
        return false;
    }
    dr_rank_view *v = &r->at[f->rank];
    v->fd = c->fd;
    v->reader = c->reader;
    v->seen = true;
    r->n_seen++;
    (void)snprintf(v->host, sizeof v->host, "%s", host);
    return true;
}

static void take_newcomer(dr_ranks *r, int i)
{
    dr_wire_frame f;
    bool broken = false;
    dr_newcomer *c = &r->newcomers[i];
    int got = dr_wire_fill(&c->reader, c->fd);
    if (dr_wire_next(&c->reader, &f, &broken)) {
        int rank = (int)f.rank;
        bool ours = welcome(r, c, &f);
        drop_newcomer(r, i, !ours);
        if (ours) {
            while (dr_wire_next(&r->at[rank].reader, &f, &broken)) { /* came with the hello */
                take_frame(r, rank, &f);
            }
        }
    } else if (broken || got < 0) {
        drop_newcomer(r, i, true);
    }
}

void dr_ranks_take(dr_ranks *r)
{
    struct pollfd p = {.fd = r->listener, .events = POLLIN};
    while (r->listener >= 0 && r->n_newcomers < MAX_NEWCOMERS && poll(&p, 1, 0) > 0) {
        int fd = accept4(r->listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0) {
            break;
        }
        r->newcomers[r->n_newcomers++] = (dr_newcomer){.fd = fd};
    }
    for (int i = r->n_newcomers - 1; i >= 0; i--) {
        take_newcomer(r, i);
    }
    for (int i = 0; i < r->n; i++) {
        take_rank(r, i);
    }
}
