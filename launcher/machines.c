#define _GNU_SOURCE /* accept4 */
#include "launcher/machines.h"

#include "base/arena.h"
#include "base/clock.h"
#include "base/log.h"
#include "launcher/machine.h"
#include "launcher/meet.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_NEWCOMERS = 64 };

typedef struct newcomer {
    int fd;
    dr_wire_reader reader;
    int number; /* of its machine; -1: it has not said hello */
    dr_str hello;
    dr_strv words;
    char ip[16];
} newcomer;

typedef struct meeting {
    dr_machines *m;
    const char *token; /* $DREAMRUN_RUN_TOKEN */
    dr_strv words;     /* of our own job      */
    dr_str address;
    int listener;
    newcomer at[MAX_NEWCOMERS];
    int n;
} meeting;

/* --- who may join -------------------------------------------------------------------------------
 */

static void drop(meeting *g, int i, bool shut)
{
    newcomer *c = &g->at[i];
    if (shut) {
        (void)close(c->fd);
        dr_wire_reader_free(&c->reader);
    }
    dr_str_free(&c->hello);
    dr_strv_free(&c->words);
    *c = g->at[--g->n];
}

/* Tells a machine that it does not belong here. */
static void refuse(meeting *g, int i, const char *why)
{
    dr_str text = {0};
    newcomer *c = &g->at[i];
    dr_warn("machine %d at %s is refused: %s", c->number, c->ip, why);
    dr_str_printf(&text, "%d machine 0 refuses this machine: %s", dr_status_exit_code(DR_INVALID),
                  why);
    (void)dr_wire_send(c->fd, DR_WIRE_END, 0, dr_str_get(&text), text.len);
    dr_str_free(&text);
    drop(g, i, true);
}

/* Where the machine's words differ from ours, into why. */
static bool same_words(const meeting *g, const newcomer *c, dr_str *why)
{
    size_t n = g->words.n < c->words.n ? g->words.n : c->words.n;
    size_t i = 0;
    while (i < n && strcmp(g->words.at[i], c->words.at[i]) == 0) {
        i++;
    }
    if (i == g->words.n && i == c->words.n) {
        return true;
    }
    dr_str_printf(why,
                  "it was started with '%s' where machine 0 has '%s'; all machines need the "
                  "same command, in the same folder",
                  i < c->words.n ? c->words.at[i] : "nothing more",
                  i < g->words.n ? g->words.at[i] : "nothing more");
    return false;
}

/* "VERSION GPUS PORT SECRET HOST TOKEN" into a machine. */
static bool read_hello(const meeting *g, newcomer *c, dr_machine *out, dr_str *why)
{
    char *place = NULL;
    char *text = c->hello.data;
    const char *version = strtok_r(text, " ", &place);
    const char *gpus = strtok_r(NULL, " ", &place);
    const char *port = strtok_r(NULL, " ", &place);
    const char *secret = strtok_r(NULL, " ", &place);
    const char *host = strtok_r(NULL, " ", &place);
    int64_t n_gpus = 0;
    int64_t at = 0;
    if (host == NULL || !dr_parse_i64(gpus, &n_gpus) || !dr_parse_i64(port, &at) || at < 1 ||
        at > 65535 || n_gpus < 0 || n_gpus > 4096) {
        dr_str_add(why, "it says no hello of dreamrun's");
    } else if (strcmp(version, DREAMRUN_VERSION) != 0) {
        dr_str_printf(why, "it runs dreamrun %s, machine 0 " DREAMRUN_VERSION, version);
    } else if (strcmp(place, g->token) != 0) {
        dr_str_add(why, "its $DREAMRUN_RUN_TOKEN is not machine 0's");
    } else {
        out->n_gpus = (int)n_gpus;
        out->port = (int)at;
        (void)snprintf(out->secret, sizeof out->secret, "%s", secret);
        (void)snprintf(out->host, sizeof out->host, "%s", host);
        return true;
    }
    return false;
}

/* Whether its place is free and its host is nobody else's. */
static bool has_place(const meeting *g, const newcomer *c, dr_str *why)
{
    const dr_machines *m = g->m;
    if (c->number < 1 || c->number >= m->n) {
        dr_str_printf(why, "--machine_rank %d is not one of 1 to %d", c->number, m->n - 1);
        return false;
    }
    if (m->at[c->number].here) {
        dr_str_printf(why, "--machine_rank %d is taken by %s (%s)", c->number,
                      m->at[c->number].host, m->at[c->number].ip);
        return false;
    }
    for (int i = 0; i < m->n; i++) {
        if (m->at[i].here && strcmp(m->at[i].ip, c->ip) == 0) {
            dr_str_printf(why,
                          "it is on the host of machine %d (%s); start one launch per host, "
                          "with all its ranks",
                          i, c->ip);
            return false;
        }
    }
    return true;
}

static void judge(meeting *g, int i)
{
    newcomer *c = &g->at[i];
    dr_machine found = {.here = true, .fd = c->fd};
    dr_str why = {0};
    if (!read_hello(g, c, &found, &why) || !has_place(g, c, &why) || !same_words(g, c, &why)) {
        refuse(g, i, dr_str_get(&why));
    } else {
        found.reader = c->reader;
        memcpy(found.ip, c->ip, sizeof found.ip);
        g->m->at[c->number] = found;
        dr_info("machine %d has come: %s (%s)", c->number, found.host, found.ip);
        drop(g, i, false);
    }
    dr_str_free(&why);
}

/* --- meeting ------------------------------------------------------------------------------------
 */

static void take_newcomer(meeting *g, int i)
{
    enum { MOST_WORDS = 4096 };
    newcomer *c = &g->at[i];
    dr_wire_frame f;
    bool broken = false;
    int got = dr_wire_fill(&c->reader, c->fd);
    while (dr_wire_next(&c->reader, &f, &broken)) {
        if (f.kind == DR_WIRE_HELLO && c->number < 0) {
            c->number = (int)(f.rank & 0xffff);
            dr_str_add(&c->hello, f.data);
        } else if (f.kind == DR_WIRE_NOTE && c->number >= 0 && c->words.n < MOST_WORDS) {
            dr_strv_push(&c->words, f.data);
        } else if (f.kind == DR_WIRE_END && c->number >= 0) {
            judge(g, i);
            return;
        } else {
            broken = true;
            break;
        }
    }
    if (broken || got < 0) {
        drop(g, i, true);
    }
}

static void take_connections(meeting *g)
{
    struct pollfd p = {.fd = g->listener, .events = POLLIN};
    while (g->n < MAX_NEWCOMERS && poll(&p, 1, 0) > 0) {
        struct sockaddr_in from;
        socklen_t n = sizeof from;
        int fd = accept4(g->listener, (struct sockaddr *)&from, &n, SOCK_CLOEXEC);
        if (fd < 0) {
            break;
        }
        dr_wire_watch_peer(fd);
        newcomer *c = &g->at[g->n++];
        *c = (newcomer){.fd = fd, .number = -1};
        (void)inet_ntop(AF_INET, &from.sin_addr, c->ip, sizeof c->ip);
    }
}

static int n_missing(const dr_machines *m, dr_str *which)
{
    int n = 0;
    for (int i = 0; i < m->n; i++) {
        if (!m->at[i].here) {
            dr_str_printf(which, "%s%d", n > 0 ? ", " : "", i);
            n++;
        }
    }
    return n;
}

/* Waits for something to come, or until the time; then takes it. */
static void wait_and_take(meeting *g, struct pollfd *p, double until_s)
{
    int n = 0;
    p[n++] = (struct pollfd){.fd = g->listener, .events = POLLIN};
    for (int i = 0; i < g->n; i++) {
        p[n++] = (struct pollfd){.fd = g->at[i].fd, .events = POLLIN};
    }
    n += dr_machines_poll(g->m, p + n, g->m->n);
    double left = until_s - dr_now_s();
    (void)poll(p, (nfds_t)n, left > 0.0 ? (int)(left * 1e3) + 1 : 0);
    take_connections(g);
    for (int i = g->n - 1; i >= 0; i--) {
        take_newcomer(g, i);
    }
    (void)dr_machines_take(g->m); /* a machine that was stopped while it waited just goes */
}

static dr_status wait_for_all(meeting *g, double timeout_s)
{
    struct pollfd *p = dr_xcalloc((size_t)g->m->n + MAX_NEWCOMERS + 1, sizeof *p);
    double until = dr_now_s() + timeout_s;
    dr_str which = {0};
    int missing = n_missing(g->m, &which);
    while (missing > 0 && dr_now_s() < until) {
        wait_and_take(g, p, until);
        dr_str_free(&which);
        missing = n_missing(g->m, &which);
    }
    dr_status st = DR_OK;
    if (missing > 0) {
        st = dr_error_set(DR_DEVICE, __FILE__, __LINE__,
                          "after --start_timeout (%g s) %d of %d machines had come to %s; missing: "
                          "--machine_rank %s; start the same command there with that number",
                          timeout_s, g->m->n - missing, g->m->n, dr_str_get(&g->address),
                          dr_str_get(&which));
    }
    dr_str_free(&which);
    free(p);
    return st;
}

/* --- names and networks ------------------------------------------------------------------------
 */

/* Ranks name their host by its own name, where two machines do not have the same. */
static void welcome_all(dr_machines *m)
{
    for (int i = 0; i < m->n; i++) {
        dr_machine *a = &m->at[i];
        int same = 0;
        for (int k = 0; k < m->n; k++) {
            same += strcmp(a->host, m->at[k].host) == 0;
        }
        (void)snprintf(a->label, sizeof a->label, same > 1 && i > 0 ? "%s@%s" : "%s", a->host,
                       a->ip);
        if (i > 0) {
            dr_str text = {0};
            dr_str_printf(&text, "welcome %s", a->label);
            (void)dr_wire_send(a->fd, DR_WIRE_NOTE, i, dr_str_get(&text), text.len);
            dr_str_free(&text);
        }
    }
}

/* The network of machine 0's address, when all others are in it: MPI is to use no other, such as
 * the bridges of containers, which every host has under the same addresses. */
static void find_network(dr_machines *m)
{
    struct ifaddrs *all = NULL;
    if (getifaddrs(&all) != 0) {
        return;
    }
    for (const struct ifaddrs *a = all; a != NULL; a = a->ifa_next) {
        struct sockaddr_in own;
        struct sockaddr_in mask;
        if (a->ifa_addr == NULL || a->ifa_netmask == NULL || a->ifa_addr->sa_family != AF_INET) {
            continue;
        }
        memcpy(&own, a->ifa_addr, sizeof own);
        memcpy(&mask, a->ifa_netmask, sizeof mask);
        bool all_in = own.sin_addr.s_addr == m->ip.s_addr;
        for (int i = 1; all_in && i < m->n; i++) {
            struct in_addr of = {0};
            all_in = inet_pton(AF_INET, m->at[i].ip, &of) == 1 &&
                     ((of.s_addr ^ m->ip.s_addr) & mask.sin_addr.s_addr) == 0;
        }
        if (all_in) {
            char text[16];
            struct in_addr net = {m->ip.s_addr & mask.sin_addr.s_addr};
            (void)snprintf(m->network, sizeof m->network, "%s/%d",
                           inet_ntop(AF_INET, &net, text, sizeof text),
                           __builtin_popcount(mask.sin_addr.s_addr));
            break;
        }
    }
    freeifaddrs(all);
}

/* --- life ---------------------------------------------------------------------------------------
 */

static bool is_own_address(struct in_addr ip)
{
    struct ifaddrs *all = NULL;
    bool found = getifaddrs(&all) != 0; /* not known: listening will tell */
    for (const struct ifaddrs *a = all; a != NULL && !found; a = a->ifa_next) {
        struct sockaddr_in own;
        if (a->ifa_addr != NULL && a->ifa_addr->sa_family == AF_INET) {
            memcpy(&own, a->ifa_addr, sizeof own);
            found = own.sin_addr.s_addr == ip.s_addr;
        }
    }
    freeifaddrs(all);
    return found;
}

static dr_status open_meeting(meeting *g, const dr_launch_plan *p)
{
    dr_str address = {0};
    const char *host = dr_opt_str(&p->settings.options, DR_LAUNCH_main_process_ip);
    int port = dr_meet_port(p);
    DR_TRY(dr_wire_resolve(host, &g->m->ip));
    if (!is_own_address(g->m->ip)) {
        DR_FAIL(DR_INVALID,
                "--main_process_ip: %s is no address of this host, where machine 0 has to "
                "listen; give one of its own, the same on all machines",
                host);
    }
    dr_status st = dr_wire_listen_at(&g->m->ip, host, port, &g->listener, &address);
    dr_str_free(&address);
    if (st != DR_OK) {
        char owner[96];
        dr_machine_port_owner(port, owner, sizeof owner);
        return dr_error_set(DR_DEVICE, __FILE__, __LINE__,
                            "--main_process_port: %s%s; give another one, the same on all machines",
                            dr_error_message(), owner);
    }
    return DR_OK;
}

static dr_status gather(meeting *g, const dr_launch_plan *p, const dr_launch_facts *f, int argc,
                        const char *const *argv)
{
    dr_machine *own = &g->m->at[0];
    DR_TRY(dr_meet_words(p, f, argc, argv, &g->words));
    DR_TRY(open_meeting(g, p));
    own->here = true;
    own->n_gpus = f->n_gpus;
    (void)snprintf(own->host, sizeof own->host, "%s", f->host);
    (void)inet_ntop(AF_INET, &g->m->ip, own->ip, sizeof own->ip);
    dr_info("machine 0 of %d waits for the others at %s", g->m->n, dr_str_get(&g->address));
    DR_TRY(wait_for_all(g, dr_settings_start_timeout(&p->settings.options)));
    welcome_all(g->m);
    find_network(g->m);
    return DR_OK;
}

dr_status dr_machines_gather(dr_machines *m, const dr_launch_plan *p, const dr_launch_facts *f,
                             int argc, const char *const *argv)
{
    meeting g = {.m = m, .token = dr_meet_token(f), .listener = -1};
    *m = (dr_machines){.n = (int)dr_opt_int(&p->settings.options, DR_LAUNCH_num_machines)};
    m->at = dr_xcalloc((size_t)m->n, sizeof *m->at);
    for (int i = 0; i < m->n; i++) {
        m->at[i].fd = -1;
    }
    dr_meet_address(p, &g.address);
    dr_status st = gather(&g, p, f, argc, argv);
    while (g.n > 0) {
        drop(&g, 0, true);
    }
    if (g.listener >= 0) {
        (void)close(g.listener);
    }
    dr_strv_free(&g.words);
    dr_str_free(&g.address);
    return st;
}

void dr_machines_end(dr_machines *m, int code, const char *text)
{
    dr_str end = {0};
    dr_str_printf(&end, "%d %s", code, text);
    for (int i = 0; i < m->n && m->at != NULL; i++) {
        if (m->at[i].fd >= 0) {
            (void)dr_wire_send(m->at[i].fd, DR_WIRE_END, 0, dr_str_get(&end), end.len);
            (void)close(m->at[i].fd);
        }
        dr_wire_reader_free(&m->at[i].reader);
    }
    dr_str_free(&end);
    free(m->at);
    *m = (dr_machines){0};
}

/* --- while the job runs -------------------------------------------------------------------------
 */

int dr_machines_poll(const dr_machines *m, struct pollfd *p, int cap)
{
    int n = 0;
    for (int i = 0; i < m->n && n < cap; i++) {
        if (m->at[i].fd >= 0) {
            p[n++] = (struct pollfd){.fd = m->at[i].fd, .events = POLLIN};
        }
    }
    return n;
}

int dr_machines_take(dr_machines *m)
{
    int sig = 0;
    for (int i = 0; i < m->n; i++) {
        dr_machine *a = &m->at[i];
        dr_wire_frame f;
        bool broken = false;
        int got = 0;
        while (a->fd >= 0 && (got = dr_wire_fill(&a->reader, a->fd)) > 0) {
            while (dr_wire_next(&a->reader, &f, &broken)) {
                if (f.kind == DR_WIRE_NOTE && dr_str_starts(f.data, "signal ")) {
                    sig = (int)strtol(f.data + strlen("signal "), NULL, 10);
                }
            }
        }
        if (a->fd >= 0 && (got < 0 || broken)) {
            (void)close(a->fd);
            a->fd = -1;
            a->here = false;
            dr_warn("machine %d (%s) is gone", i, a->host);
        }
    }
    return sig > 0 && sig < 64 ? sig : 0;
}

void dr_machines_addresses(const dr_machines *m, dr_str *out)
{
    for (int i = 1; i < m->n; i++) {
        if (m->at[i].here) {
            dr_str_printf(out, "%s%s=%d:%s", out->len > 0 ? "," : "", m->at[i].ip, m->at[i].port,
                          m->at[i].secret);
        }
    }
}
