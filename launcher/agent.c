#define _GNU_SOURCE /* pipe2 */
#include "launcher/agent.h"

#include "base/clock.h"
#include "launcher/bind.h"
#include "launcher/supervise.h"
#include "launcher/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum { OUT, ERR, NOTES, N_PIPES };

typedef struct agent {
    int rank;
    pid_t parent;
    bool below_mpirun; /* its TERM means that the job is over; srun's, that we shall stop */
    int socket, signals;
    int pipes[N_PIPES]; /* our ends; -1: closed */
    pid_t child;
    dr_wire_reader reader;
    char note[4096]; /* a line that has not come whole yet */
    size_t n_note;
    double stopped_s;  /* since when a signal has stopped the child; 0: it runs */
    double patience_s; /* so long it may be stopped; 0: for ever */
    bool hung;         /* it was longer, and is killed */
} agent;

static int rank_number(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *text = getenv(names[i]);
        int64_t v = 0;
        if (text != NULL && dr_parse_i64(text, &v) && v >= 0 && v < 1 << 20) {
            return (int)v;
        }
    }
    return 0;
}

/* --- start --------------------------------------------------------------------------------------
 */

/* In the child: never returns. */
static void become(const char *const *argv, const int ends[N_PIPES], pid_t parent)
{
    char number[16];
    sigset_t none;
    (void)sigemptyset(&none);
    (void)setpgid(0, 0); /* signals to the agent's group are not meant for the rank */
    (void)snprintf(number, sizeof number, "%d", ends[NOTES]);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || dup2(ends[OUT], STDOUT_FILENO) < 0 ||
        dup2(ends[ERR], STDERR_FILENO) < 0 || fcntl(ends[NOTES], F_SETFD, 0) != 0 ||
        fcntl(ends[NOTES], F_SETFL, O_NONBLOCK) != 0 || setenv("DREAMRUN_NOTES", number, 1) != 0 ||
        sigprocmask(SIG_SETMASK, &none, NULL) != 0) {
        _exit(71);
    }
    if (getppid() != parent) { /* it died before PDEATHSIG was set */
        _exit(128 + SIGKILL);
    }
    (void)execv(argv[0], (char *const *)(uintptr_t)argv);
    (void)fprintf(stderr, "error: %s cannot be started: %s\n", argv[0], strerror(errno));
    _exit(71);
}

static dr_status start_child(agent *a, const char *const *argv)
{
    int theirs[N_PIPES];
    for (int i = 0; i < N_PIPES; i++) {
        int ends[2];
        if (pipe2(ends, O_CLOEXEC) != 0 || fcntl(ends[0], F_SETFL, O_NONBLOCK) != 0) {
            DR_FAIL(DR_IO, "pipe: %s", strerror(errno));
        }
        a->pipes[i] = ends[0];
        theirs[i] = ends[1];
    }
    pid_t parent = getpid();
    a->child = fork();
    if (a->child == 0) {
        become(argv, theirs, parent);
    }
    for (int i = 0; i < N_PIPES; i++) {
        (void)close(theirs[i]);
    }
    if (a->child < 0) {
        DR_FAIL(DR_IO, "fork: %s", strerror(errno));
    }
    (void)setpgid(a->child, a->child);
    return DR_OK;
}

static dr_status say_hello(agent *a)
{
    char host[256] = "?";
    dr_str text = {0};
    const char *token = getenv("DREAMRUN_TOKEN");
    const char *named = getenv("DREAMRUN_HOST"); /* where each machine has a launch of its own */
    (void)gethostname(host, sizeof host - 1);
    dr_str_printf(&text, "%s %s %ld", token != NULL ? token : "-", named != NULL ? named : host,
                  (long)a->child);
    bool ok = dr_wire_send(a->socket, DR_WIRE_HELLO, a->rank, dr_str_get(&text), text.len);
    dr_str_free(&text);
    if (!ok) {
        DR_FAIL(DR_IO, "rank %d: the launcher is gone", a->rank);
    }
    return DR_OK;
}

/* --- what comes by ------------------------------------------------------------------------------
 */

static void kill_child(const agent *a)
{
    (void)kill(-a->child, SIGKILL);
    (void)kill(a->child, SIGKILL);
}

static void send_note_lines(agent *a)
{
    char *line = a->note;
    char *end = NULL;
    size_t left = a->n_note;
    while ((end = memchr(line, '\n', left)) != NULL) {
        (void)dr_wire_send(a->socket, DR_WIRE_NOTE, a->rank, line, (size_t)(end - line));
        left -= (size_t)(end + 1 - line);
        line = end + 1;
    }
    memmove(a->note, line, left);
    a->n_note = left < sizeof a->note ? left : 0; /* no line is that long */
}

/* Hands on what the pipe holds now. */
static void drain(agent *a, int i)
{
    char data[DR_WIRE_MAX];
    ssize_t n = 0;
    while (a->pipes[i] >= 0) {
        n = i == NOTES ? read(a->pipes[i], a->note + a->n_note, sizeof a->note - a->n_note)
                       : read(a->pipes[i], data, sizeof data);
        if (n > 0 && i == NOTES) {
            a->n_note += (size_t)n;
            send_note_lines(a);
        } else if (n > 0) {
            (void)dr_wire_send(a->socket, i == OUT ? DR_WIRE_OUT : DR_WIRE_ERR, a->rank, data,
                               (size_t)n);
        } else if (n == 0 || errno != EINTR) {
            break;
        }
    }
    if (n == 0 && a->pipes[i] >= 0) {
        (void)close(a->pipes[i]);
        a->pipes[i] = -1;
    }
}

/* What the launcher says; when it is gone, so is the rank. */
static void obey(agent *a)
{
    dr_wire_frame f;
    bool broken = false;
    if (dr_wire_fill(&a->reader, a->socket) < 0) {
        kill_child(a);
        (void)close(a->socket);
        a->socket = -1;
        return;
    }
    while (dr_wire_next(&a->reader, &f, &broken)) {
        int64_t sig = 0;
        if (f.kind == DR_WIRE_SIGNAL && dr_parse_i64(f.data, &sig) && sig > 0 && sig < 64) {
            (void)kill(a->child, (int)sig);
        }
    }
}

static void take_signal(agent *a)
{
    struct signalfd_siginfo info;
    char text[32];
    if (read(a->signals, &info, sizeof info) != (ssize_t)sizeof info || info.ssi_signo == SIGCHLD) {
        return;
    }
    int sig = (int)info.ssi_signo;
    if (sig != SIGUSR1 && (a->below_mpirun || getppid() != a->parent)) {
        kill_child(a);
        return;
    }
    int n = snprintf(text, sizeof text, "signal %d", sig);
    (void)dr_wire_send(a->socket, DR_WIRE_NOTE, a->rank, text, (size_t)n);
}

/* --- life ---------------------------------------------------------------------------------------
 */

/* A rank that was stopped cannot watch itself, and a lone one has no peers that do. */
static double stop_patience_s(void)
{
    static const double least_s = 60.0; /* of --hang_timeout auto */
    static const double later_s = 1.0;  /* the peers' watchdogs know more: they come first */
    const char *text = getenv("DREAMRUN_HANG_TIMEOUT");
    double s = 0.0;
    if (text == NULL || (strcmp(text, "auto") != 0 && (!dr_parse_f64(text, &s) || s <= 0.0))) {
        return 0.0;
    }
    return (s > 0.0 ? s : least_s) + later_s;
}

/* Whether the child has ended; notes when it is stopped and goes on. */
static bool has_ended(agent *a, int *status)
{
    while (waitpid(a->child, status, WNOHANG | WUNTRACED | WCONTINUED) == a->child) {
        if (WIFEXITED(*status) || WIFSIGNALED(*status)) {
            return true;
        }
        a->stopped_s = WIFSTOPPED(*status) ? dr_now_s() : 0.0;
    }
    return false;
}

static void end_stopped_child(agent *a)
{
    char text[128];
    if (a->patience_s > 0.0 && a->stopped_s > 0.0 && !a->hung &&
        dr_now_s() - a->stopped_s >= a->patience_s) {
        int n = snprintf(text, sizeof text,
                         "hang no progress for %.1f s: rank %d is stopped by a signal",
                         dr_now_s() - a->stopped_s, a->rank);
        (void)dr_wire_send(a->socket, DR_WIRE_NOTE, a->rank, text, (size_t)n);
        a->hung = true;
        kill_child(a);
    }
}

static int wait_for_child(agent *a)
{
    int status = 0;
    a->patience_s = stop_patience_s();
    while (!has_ended(a, &status)) {
        end_stopped_child(a);
        struct pollfd p[N_PIPES + 2];
        for (int i = 0; i < N_PIPES; i++) {
            p[i] = (struct pollfd){.fd = a->pipes[i], .events = POLLIN};
        }
        p[N_PIPES] = (struct pollfd){.fd = a->signals, .events = POLLIN};
        p[N_PIPES + 1] = (struct pollfd){.fd = a->socket, .events = POLLIN};
        if (poll(p, N_PIPES + 2, a->stopped_s > 0.0 ? 100 : -1) < 0) {
            continue;
        }
        for (int i = 0; i < N_PIPES; i++) {
            if (p[i].revents != 0) {
                drain(a, i);
            }
        }
        if (p[N_PIPES].revents != 0) {
            take_signal(a);
        }
        if (p[N_PIPES + 1].revents != 0) {
            obey(a);
        }
    }
    for (int i = 0; i < N_PIPES; i++) {
        drain(a, i);
    }
    return status;
}

static void report_end(agent *a, int status)
{
    char text[32];
    int sig = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + sig;
    int n = a->hung ? snprintf(text, sizeof text, "%d 0", dr_status_exit_code(DR_HANG))
                    : snprintf(text, sizeof text, "%d %d", code, sig);
    (void)dr_wire_send(a->socket, DR_WIRE_END, a->rank, text, (size_t)n);
}

/* Ends as the rank did, so that mpirun and srun see it. */
static int end_as(int status)
{
    if (!WIFSIGNALED(status)) {
        return WEXITSTATUS(status);
    }
    int sig = WTERMSIG(status);
    sigset_t one;
    (void)signal(sig, SIG_DFL);
    (void)sigemptyset(&one);
    (void)sigaddset(&one, sig);
    (void)prctl(PR_SET_DUMPABLE, 0); /* the rank has dumped its core already */
    (void)sigprocmask(SIG_UNBLOCK, &one, NULL);
    (void)raise(sig);
    return 128 + sig;
}

dr_status dr_agent_run(const char *const *argv, int *code)
{
    const char *address = getenv("DREAMRUN_SUPERVISOR");
    agent a = {.rank = rank_number(),
               .below_mpirun = getenv("OMPI_COMM_WORLD_SIZE") != NULL,
               .socket = -1};
    a.parent = getppid();
    dr_bind_rank();
    if (address == NULL) {
        (void)execv(argv[0], (char *const *)(uintptr_t)argv);
        DR_FAIL(DR_IO, "%s cannot be started: %s", argv[0], strerror(errno));
    }
    /* TERM, not KILL: there is time to kill the rank and to say so */
    if (prctl(PR_SET_PDEATHSIG, SIGTERM) != 0 || getppid() != a.parent) {
        DR_FAIL(DR_IO, "rank %d: what started it is gone", a.rank);
    }
    dr_status st = dr_wire_connect(address, &a.socket);
    if (st != DR_OK) {
        return dr_error_prefix(st, "rank %d: the launcher cannot be reached", a.rank);
    }
    a.signals = dr_watch_signals(false, NULL);
    DR_TRY(start_child(&a, argv));
    DR_TRY(say_hello(&a));
    int status = wait_for_child(&a);
    report_end(&a, status);
    (void)close(a.socket);
    dr_wire_reader_free(&a.reader);
    *code = a.hung ? dr_status_exit_code(DR_HANG) : end_as(status);
    return DR_OK;
}
