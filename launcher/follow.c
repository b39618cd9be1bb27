#define _GNU_SOURCE /* accept4, pipe2 */
#include "launcher/follow.h"

#include "base/arena.h"
#include "base/clock.h"
#include "base/log.h"
#include "launcher/meet.h"
#include "launcher/supervise.h"
#include "launcher/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct command { /* one at a time: the daemon of an attempt */
    int relay;           /* who asked for it; -1: none          */
    dr_wire_reader reader;
    bool known; /* it has shown our secret                     */
    dr_str line;
    pid_t child; /* 0: none                                     */
    int output;  /* of the child; -1: closed                    */
} command;

typedef struct follower {
    const dr_launch_plan *p;
    const dr_launch_facts *f;
    dr_str address; /* of machine 0 */
    int leader, listener, signals;
    dr_wire_reader reader;
    char secret[DR_WIRE_TOKEN];
    dr_strv env;
    command c;
    int n_asked; /* requests to stop that came here */
    double asked_s;
    bool over;
    int code;
    dr_str verdict;
} follower;

/* --- coming to machine 0 ------------------------------------------------------------------------
 */

static dr_status find_leader(follower *w)
{
    double timeout_s = dr_settings_start_timeout(&w->p->settings.options);
    double until = dr_now_s() + timeout_s;
    dr_str tcp = {0};
    dr_str_printf(&tcp, "tcp:%s", dr_str_get(&w->address));
    dr_info("machine %d of %d: coming to machine 0 at %s", w->p->machine_rank, w->p->n_machines,
            dr_str_get(&w->address));
    dr_status st = dr_wire_connect(dr_str_get(&tcp), &w->leader);
    while (st != DR_OK && dr_now_s() < until) {
        dr_error_clear();
        (void)poll(NULL, 0, 200); /* it may not have been started yet */
        st = dr_wire_connect(dr_str_get(&tcp), &w->leader);
    }
    dr_str_free(&tcp);
    if (st != DR_OK) {
        return dr_error_set(
            DR_DEVICE, __FILE__, __LINE__,
            "machine 0 did not answer within --start_timeout (%g s): %s; is dreamrun launch "
            "running there, with --machine_rank 0 and the same --main_process_ip and "
            "--main_process_port?",
            timeout_s, dr_error_message());
    }
    return DR_OK;
}

/* Listens for relays at the address that machine 0 sees; *port gets where. */
static dr_status open_listener(follower *w, int *port)
{
    struct sockaddr_in own;
    socklen_t n = sizeof own;
    dr_str address = {0};
    if (getsockname(w->leader, (struct sockaddr *)&own, &n) != 0) {
        DR_FAIL(DR_IO, "getsockname: %s", strerror(errno));
    }
    dr_status st = dr_wire_listen_at(&own.sin_addr, w->f->host, 0, &w->listener, &address);
    const char *colon = strrchr(dr_str_get(&address), ':');
    *port = colon != NULL ? (int)strtol(colon + 1, NULL, 10) : 0;
    dr_str_free(&address);
    return st;
}

/* GPUs that ranks may use here. */
static int count_gpus(const follower *w)
{
    const char *ids = dr_opt_str(&w->p->settings.options, DR_LAUNCH_gpu_ids);
    return ids != NULL && strcmp(ids, "all") != 0 ? dr_plan_gpu_ids(ids) : w->f->n_gpus;
}

static dr_status say_hello(follower *w, int argc, const char *const *argv)
{
    dr_strv words = {0};
    dr_str hello = {0};
    int port = 0;
    int number = w->p->machine_rank;
    DR_TRY(dr_wire_token(w->secret));
    DR_TRY(open_listener(w, &port));
    DR_TRY(dr_meet_words(w->p, w->f, argc, argv, &words));
    dr_str_printf(&hello, DREAMRUN_VERSION " %d %d %s %s %s", count_gpus(w), port, w->secret,
                  w->f->host, dr_meet_token(w->f));
    bool ok = dr_wire_send(w->leader, DR_WIRE_HELLO, number, dr_str_get(&hello), hello.len);
    for (size_t i = 0; ok && i < words.n; i++) {
        ok = dr_wire_send(w->leader, DR_WIRE_NOTE, number, words.at[i], strlen(words.at[i]));
    }
    (void)(ok && dr_wire_send(w->leader, DR_WIRE_END, number, "", 0));
    dr_str_free(&hello);
    dr_strv_free(&words);
    return DR_OK; /* that machine 0 went is seen when it is listened to */
}

/* --- commands -----------------------------------------------------------------------------------
 */

static void kill_command(const command *c)
{
    if (c->child > 0) {
        (void)kill(-c->child, SIGKILL);
        (void)kill(c->child, SIGKILL);
    }
}

static void forget_command(command *c)
{
    if (c->relay >= 0) {
        (void)close(c->relay);
    }
    if (c->output >= 0) {
        (void)close(c->output);
    }
    dr_wire_reader_free(&c->reader);
    dr_str_free(&c->line);
    *c = (command){.relay = -1, .output = -1};
}

/* In the child: never returns. */
static void become(const char *line, const char *const *env, int output, pid_t parent)
{
    const char *const argv[] = {"/bin/sh", "-c", line, NULL};
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    sigset_t none;
    (void)sigemptyset(&none);
    (void)setpgid(0, 0); /* ^C is for the launch, which passes it on */
    if (null >= 0 && dup2(null, STDIN_FILENO) >= 0 && dup2(output, STDOUT_FILENO) >= 0 &&
        dup2(output, STDERR_FILENO) >= 0 && prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 &&
        sigprocmask(SIG_SETMASK, &none, NULL) == 0 && getppid() == parent) {
        (void)execve(argv[0], (char *const *)(uintptr_t)argv, (char *const *)(uintptr_t)env);
    }
    _exit(127);
}

/* The line with "exec" before its last command ("PATH=... ; export PATH ; orted ..."), so that the
 * shell becomes it and the kernel's signal at our death reaches it. */
static void add_exec(const char *line, dr_str *out)
{
    const char *last = line;
    char quote = '\0';
    for (const char *at = line; *at != '\0'; at++) {
        if (*at == '\\' && quote != '\'' && at[1] != '\0') {
            at++;
        } else if (quote != '\0') {
            quote = *at == quote ? '\0' : quote;
        } else if (*at == '"' || *at == '\'') {
            quote = *at;
        } else if (*at == ';') {
            last = at + 1;
        }
    }
    dr_str_add_n(out, line, (size_t)(last - line));
    dr_str_printf(out, " exec %s", last);
}

static dr_status start_command(follower *w)
{
    command *c = &w->c;
    int ends[2];
    dr_str line = {0};
    add_exec(dr_str_get(&c->line), &line);
    if (pipe2(ends, O_CLOEXEC) != 0 || fcntl(ends[0], F_SETFL, O_NONBLOCK) != 0) {
        DR_FAIL(DR_IO, "pipe: %s", strerror(errno));
    }
    const char **env = dr_xcalloc(w->env.n + 1, sizeof *env);
    for (size_t i = 0; i < w->env.n; i++) {
        env[i] = w->env.at[i];
    }
    pid_t parent = getpid();
    c->child = fork();
    if (c->child == 0) {
        become(dr_str_get(&line), env, ends[1], parent);
    }
    free(env);
    dr_str_free(&line);
    (void)close(ends[1]);
    c->output = ends[0];
    if (c->child < 0) {
        c->child = 0;
        DR_FAIL(DR_IO, "fork: %s", strerror(errno));
    }
    (void)setpgid(c->child, c->child);
    return DR_OK;
}

/* A relay that comes while an old one is here replaces it: a new attempt has begun. */
static void take_relay(follower *w)
{
    int fd = accept4(w->listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) {
        return;
    }
    dr_wire_watch_peer(fd);
    kill_command(&w->c);
    forget_command(&w->c);
    w->c.relay = fd;
}

static dr_status take_words(follower *w)
{
    command *c = &w->c;
    dr_wire_frame f;
    bool broken = false;
    int got = dr_wire_fill(&c->reader, c->relay);
    while (c->child == 0 && dr_wire_next(&c->reader, &f, &broken)) {
        if (f.kind == DR_WIRE_HELLO) {
            c->known = strcmp(f.data, w->secret) == 0;
        } else if (f.kind == DR_WIRE_OUT && c->known) {
            dr_str_add_n(&c->line, f.data, f.n);
        } else if (f.kind == DR_WIRE_END && c->known) {
            DR_TRY(start_command(w));
        } else {
            broken = true;
            break;
        }
    }
    if (broken || got < 0) { /* a stranger, or mpirun is over */
        kill_command(c);
        forget_command(c);
    }
    return DR_OK;
}

static void take_output(command *c)
{
    char data[4096];
    ssize_t n = 0;
    while (c->output >= 0 && (n = read(c->output, data, sizeof data)) > 0) {
        if (c->relay >= 0) {
            (void)dr_wire_send(c->relay, DR_WIRE_ERR, 0, data, (size_t)n);
        }
    }
    if (n == 0 && c->output >= 0) {
        (void)close(c->output);
        c->output = -1;
    }
}

static void take_ends(follower *w)
{
    int s = 0;
    pid_t pid = 0;
    while ((pid = waitpid(-1, &s, WNOHANG)) > 0) {
        if (pid == w->c.child && w->c.relay >= 0) {
            char text[16];
            int code = WIFSIGNALED(s) ? 128 + WTERMSIG(s) : WEXITSTATUS(s);
            take_output(&w->c);
            int n = snprintf(text, sizeof text, "%d", code);
            (void)dr_wire_send(w->c.relay, DR_WIRE_END, 0, text, (size_t)n);
        }
        if (pid == w->c.child) {
            w->c.child = 0;
            forget_command(&w->c);
        }
    }
}

/* --- what comes by ------------------------------------------------------------------------------
 */

/* The first two are passed on, as machine 0 counts; at the third this launch does not ask. */
static void take_signal(follower *w)
{
    static const double same_s = 0.5; /* closer together they are one, as supervise.c */
    struct signalfd_siginfo info;
    while (read(w->signals, &info, sizeof info) == (ssize_t)sizeof info) {
        char text[24];
        int sig = (int)info.ssi_signo;
        if (sig == SIGCHLD || (w->n_asked > 0 && dr_now_s() < w->asked_s + same_s)) {
            continue;
        }
        w->asked_s = dr_now_s();
        if (++w->n_asked > 2) {
            w->over = true;
            w->code = 128 + sig;
            dr_str_add(&w->verdict, "was left without waiting for machine 0");
            return;
        }
        int n = snprintf(text, sizeof text, "signal %d", sig);
        (void)dr_wire_send(w->leader, DR_WIRE_NOTE, w->p->machine_rank, text, (size_t)n);
    }
    take_ends(w);
}

static void take_welcome(follower *w, const char *label)
{
    dr_push_setting(&w->env, "DREAMRUN_HOST", label);
    dr_info("machine %d of %d is in; machine 0 starts its ranks and shows their output",
            w->p->machine_rank, w->p->n_machines);
}

static dr_status take_leader(follower *w)
{
    dr_wire_frame f;
    bool broken = false;
    int got = dr_wire_fill(&w->reader, w->leader);
    while (!w->over && dr_wire_next(&w->reader, &f, &broken)) {
        char *rest = NULL;
        if (f.kind == DR_WIRE_NOTE && dr_str_starts(f.data, "welcome ")) {
            take_welcome(w, f.data + strlen("welcome "));
        } else if (f.kind == DR_WIRE_END) {
            w->over = true;
            w->code = (int)strtol(f.data, &rest, 10);
            dr_str_add(&w->verdict, *rest == ' ' ? rest + 1 : rest);
        }
    }
    if (!w->over && (got < 0 || broken)) {
        DR_FAIL(DR_DEVICE,
                "machine 0 (%s) is gone without a word: its host, its network or its launch was "
                "lost; everything that it started here was ended",
                dr_str_get(&w->address));
    }
    return DR_OK;
}

static dr_status watch(follower *w)
{
    enum { LEADER, LISTENER, SIGNALS, RELAY, OUTPUT, N };
    while (!w->over) {
        struct pollfd p[N] = {
            [LEADER] = {.fd = w->leader, .events = POLLIN},
            [LISTENER] = {.fd = w->listener, .events = POLLIN},
            [SIGNALS] = {.fd = w->signals, .events = POLLIN},
            [RELAY] = {.fd = w->c.relay, .events = POLLIN},
            [OUTPUT] = {.fd = w->c.output, .events = POLLIN},
        };
        if (poll(p, N, -1) < 0) {
            continue;
        }
        if (p[OUTPUT].revents != 0) {
            take_output(&w->c);
        }
        if (p[RELAY].revents != 0) {
            DR_TRY(take_words(w));
        }
        if (p[LISTENER].revents != 0) {
            take_relay(w);
        }
        if (p[SIGNALS].revents != 0) {
            take_signal(w);
        }
        if (p[LEADER].revents != 0) {
            DR_TRY(take_leader(w));
        }
    }
    return DR_OK;
}

/* --- life ---------------------------------------------------------------------------------------
 */

static dr_status run(follower *w, int argc, const char *const *argv)
{
    for (size_t i = 0; i < w->p->env.n; i++) {
        dr_strv_push(&w->env, w->p->env.at[i]);
    }
    dr_meet_address(w->p, &w->address);
    DR_TRY(find_leader(w));
    w->signals = dr_watch_signals(false, NULL);
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
    DR_TRY(say_hello(w, argc, argv));
    return watch(w);
}

dr_status dr_follow(const dr_launch_plan *p, const dr_launch_facts *f, int argc,
                    const char *const *argv, int *code)
{
    follower w = {.p = p, .f = f, .leader = -1, .listener = -1, .signals = -1};
    w.c = (command){.relay = -1, .output = -1};
    dr_status st = run(&w, argc, argv);
    kill_command(&w.c);
    forget_command(&w.c);
    dr_kill_children();
    if (st == DR_OK) {
        (void)fprintf(stderr, "dreamrun: machine %d: %s\n", p->machine_rank,
                      w.verdict.len > 0 ? dr_str_get(&w.verdict) : "done");
    }
    const int fds[] = {w.leader, w.listener, w.signals};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++) {
        if (fds[i] >= 0) {
            (void)close(fds[i]);
        }
    }
    dr_wire_reader_free(&w.reader);
    dr_strv_free(&w.env);
    dr_str_free(&w.verdict);
    dr_str_free(&w.address);
    *code = w.code;
    return st;
}
