#define _GNU_SOURCE /* pipe2 */
#include "launcher/supervise.h"

#include "base/arena.h"
#include "base/clock.h"

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

/* --- start ---------------------------------------------------------------------------------------
 */

/* In the child: never returns. What fails is written to the pipe as an errno. */
static void become(const char *const *argv, const char *const *env, const sigset_t *mask,
                   pid_t parent, int report, int output)
{
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    (void)setpgid(0, 0); /* ^C reaches the launcher alone, which passes it on */
    if (null < 0 || dup2(null, STDIN_FILENO) < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 ||
        (output >= 0 && (dup2(output, STDOUT_FILENO) < 0 || dup2(output, STDERR_FILENO) < 0)) ||
        sigprocmask(SIG_SETMASK, mask, NULL) != 0) {
        goto failed;
    }
    if (getppid() != parent) { /* it died before PDEATHSIG was set */
        _exit(128 + SIGKILL);
    }
    /* execve takes char *const * for historical reasons and changes nothing */
    (void)execve(argv[0], (char *const *)(uintptr_t)argv, (char *const *)(uintptr_t)env);
failed:;
    int code = errno;
    ssize_t n = write(report, &code, sizeof code);
    _exit(n == (ssize_t)sizeof code ? 127 : 126);
}

/* output: what the command prints goes there; -1: it keeps ours. */
static dr_status start(const char *const *argv, const char *const *env, const sigset_t *mask,
                       int output, pid_t *out)
{
    int report[2];
    if (pipe2(report, O_CLOEXEC) != 0) {
        DR_FAIL(DR_IO, "pipe: %s", strerror(errno));
    }
    pid_t parent = getpid();
    (void)fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        become(argv, env, mask, parent, report[1], output);
    }
    int failure = errno;
    (void)close(report[1]);
    ssize_t n = child < 0 ? 0 : read(report[0], &failure, sizeof failure);
    (void)close(report[0]);
    if (child < 0 || n > 0) {
        if (child > 0) {
            (void)waitpid(child, NULL, 0);
        }
        DR_FAIL(DR_IO, "%s cannot be started: %s", argv[0], strerror(failure));
    }
    *out = child;
    return DR_OK;
}

/* --- the end of everything
 * ------------------------------------------------------------------------ */

/* Kills the processes that were handed to us when their parents ended (we are their reaper). */
static int kill_orphans(void)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%ld/task/%ld/children", (long)getpid(),
                   (long)getpid());
    FILE *f = fopen(path, "re");
    int n = 0;
    long pid = 0;
    while (f != NULL && fscanf(f, "%ld", &pid) == 1) {
        n += kill((pid_t)pid, SIGKILL) == 0;
    }
    if (f != NULL) {
        (void)fclose(f);
    }
    return n;
}

void dr_kill_children(void)
{
    while (kill_orphans() > 0) {
        while (waitpid(-1, NULL, 0) < 0 && errno == EINTR) {
        }
    }
}

/* --- one attempt --------------------------------------------------------------------------------
 */

enum { STARTER_BYTES = 16384 };

typedef struct attempt {
    const dr_supervise_options *o;
    dr_supervised *r;
    pid_t child;
    int signals, output; /* signalfd; what the command prints, -1: not ours or closed */
    bool over;           /* the command has ended                                     */
    double started_s;
    double told_s;    /* when an agent had TERM, which is not acted upon yet; 0: none */
    double asked_s;   /* when it was first asked to stop                              */
    double stop_by_s; /* ranks are killed then; 0: nothing asked for it               */
    double kill_by_s; /* the command is killed then; 0: nothing asked for it          */
} attempt;

static const double end_s = 0.3;  /* from the first failure to the end of the other ranks */
static const double reap_s = 1.0; /* from the ranks' end to the command's                 */
static const double same_s = 0.5; /* requests to stop that lie closer together are one: scancel's
                                     reaches the ranks and this process, as base/stop.h      */
static const double told_wait_s = 1.0; /* Slurm's TERM to the other tasks of a step with a lost one
                                          may be heard of before the loss: so long it waits   */

static void kill_ranks(attempt *a)
{
    if (a->o->ranks != NULL) {
        (void)dr_ranks_signal(a->o->ranks, SIGKILL);
    }
    a->stop_by_s = 0.0;
    a->kill_by_s = dr_now_s() + (a->o->ranks != NULL ? reap_s : 0.0);
}

static void ask_to_stop(attempt *a)
{
    if (a->o->ranks != NULL) {
        (void)dr_ranks_signal(a->o->ranks, SIGUSR1);
    } else {
        (void)kill(a->child, SIGUSR1);
    }
}

static void take_stop(attempt *a, int sig)
{
    bool saves = (a->o->save_signals >> (unsigned)sig & 1U) != 0;
    if (a->r->signal != 0 && dr_now_s() < a->asked_s + same_s) {
        return;
    }
    if (a->r->signal != 0 || !saves) {
        a->r->killed = true;
        a->r->signal = a->r->signal != 0 ? a->r->signal : sig;
        kill_ranks(a);
        return;
    }
    a->r->signal = sig;
    a->asked_s = dr_now_s();
    a->stop_by_s = dr_now_s() + a->o->grace_s;
    ask_to_stop(a);
}

/* Takes the command's end, if it came; orphans that end meanwhile are taken too. */
static void take_ends(attempt *a)
{
    int s = 0;
    pid_t pid = 0;
    while ((pid = waitpid(-1, &s, WNOHANG)) > 0) {
        if (pid == a->child) {
            a->over = true;
            a->r->exit_code = WIFSIGNALED(s) ? 128 + WTERMSIG(s) : WEXITSTATUS(s);
        }
    }
}

/* ^Z: the ranks stand still while this process does, and their time does not count. */
static void suspend(attempt *a)
{
    sigset_t one;
    double began = dr_now_s();
    (void)sigemptyset(&one);
    (void)sigaddset(&one, SIGTSTP);
    (void)dr_ranks_signal(a->o->ranks, SIGSTOP);
    (void)kill(getpid(), SIGTSTP);
    (void)sigprocmask(SIG_UNBLOCK, &one, NULL); /* stops here, until SIGCONT */
    (void)sigprocmask(SIG_BLOCK, &one, NULL);
    (void)dr_ranks_signal(a->o->ranks, SIGCONT);
    double *const times[] = {&a->started_s, &a->told_s, &a->stop_by_s, &a->kill_by_s};
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        *times[i] += *times[i] > 0.0 ? dr_now_s() - began : 0.0;
    }
}

static void take_signals(attempt *a)
{
    struct signalfd_siginfo info;
    while (read(a->signals, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGTSTP) {
            suspend(a);
        } else if (info.ssi_signo != SIGCHLD) {
            take_stop(a, (int)info.ssi_signo);
        }
    }
    take_ends(a);
}

/* ^C on another machine is one here. */
static void take_machines(attempt *a)
{
    int sig = a->o->machines != NULL ? dr_machines_take(a->o->machines) : 0;
    if (sig != 0) {
        take_stop(a, sig);
    }
}

/* mpirun's and srun's own words: kept for the case that no rank has any. */
static void take_output(attempt *a)
{
    char data[4096];
    ssize_t n = 0;
    while (a->output >= 0 && (n = read(a->output, data, sizeof data)) > 0) {
        if (a->o->show_starter) {
            (void)fwrite(data, 1, (size_t)n, stderr);
        }
        if (a->r->starter.len < STARTER_BYTES) {
            dr_str_add_n(&a->r->starter, data, (size_t)n);
        }
    }
    if (n == 0 && a->output >= 0) {
        (void)close(a->output);
        a->output = -1;
    }
}

/* Slurm signals the ranks, not us. */
static void hear_stop(attempt *a, int sig)
{
    if (sig != SIGTERM) {
        take_stop(a, sig);
    } else if (a->told_s <= 0.0) {
        a->told_s = dr_now_s();
    }
}

static void take_ranks(attempt *a)
{
    dr_ranks *r = a->o->ranks;
    int seen = r->n_seen;
    dr_ranks_take(r);
    if (r->stop_signal != 0) {
        int sig = r->stop_signal;
        r->stop_signal = 0;
        /* TERM after a failure is the end of its step; USR1 asks, even where it ended a rank that
         * had not begun */
        if (a->r->signal == 0 && (sig == SIGUSR1 || r->first_failed < 0)) {
            hear_stop(a, sig);
        }
    }
    if (r->n_seen > seen && a->r->signal != 0) { /* came after the request */
        ask_to_stop(a);
    }
    if (r->first_failed >= 0 && a->kill_by_s <= 0.0 &&
        (a->stop_by_s <= 0.0 || a->stop_by_s > dr_now_s() + end_s)) {
        a->stop_by_s = dr_now_s() + end_s;
    }
    if (r->n_ended == r->n && a->kill_by_s <= 0.0) {
        a->kill_by_s = dr_now_s() + reap_s + end_s;
    }
}

static void take_time(attempt *a)
{
    double now = dr_now_s();
    dr_ranks *r = a->o->ranks;
    bool starting = r != NULL && r->n_joined < r->n && r->first_failed < 0 && r->n_ended == 0;
    if (starting && !a->r->start_timed_out && a->kill_by_s <= 0.0 &&
        now >= a->started_s + a->o->start_timeout_s) {
        a->r->start_timed_out = true;
        kill_ranks(a);
    }
    if (a->told_s > 0.0 && now >= a->told_s + told_wait_s) {
        if (a->r->signal == 0 && r->first_failed < 0) {
            take_stop(a, SIGTERM);
        }
        a->told_s = 0.0;
    }
    if (a->stop_by_s > 0.0 && now >= a->stop_by_s) {
        a->r->killed = a->r->killed || r == NULL || r->first_failed < 0;
        kill_ranks(a);
    }
    if (a->kill_by_s > 0.0 && now >= a->kill_by_s) {
        (void)kill(-a->child, SIGKILL);
        a->kill_by_s = now + 3600.0; /* only its end is awaited now */
    }
}

/* Milliseconds to the next thing that time alone brings. */
static int patience_ms(const attempt *a)
{
    double now = dr_now_s();
    double until = now + 3600.0;
    const double times[] = {a->stop_by_s, a->kill_by_s,
                            a->told_s > 0.0 ? a->told_s + told_wait_s : 0.0,
                            a->o->ranks != NULL && a->o->ranks->n_joined < a->o->ranks->n
                                ? a->started_s + a->o->start_timeout_s
                                : 0.0};
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        until = times[i] > 0.0 && times[i] < until ? times[i] : until;
    }
    return until <= now ? 0 : (int)((until - now) * 1e3) + 1;
}

/* What agents sent before they ended; those of other hosts may take a moment. */
static void take_last_words(dr_ranks *r, struct pollfd *p, int cap)
{
    double until = dr_now_s() + reap_s;
    dr_ranks_take(r);
    (void)dr_ranks_signal(r, SIGKILL);
    while (dr_ranks_open(r) > 0 && dr_now_s() < until) {
        int n = dr_ranks_poll(r, p, cap);
        (void)poll(p, (nfds_t)n, (int)((until - dr_now_s()) * 1e3) + 1);
        dr_ranks_take(r);
    }
    dr_ranks_give_up(r);
}

static void watch(attempt *a)
{
    int cap = 2 + (a->o->ranks != NULL ? dr_ranks_poll_size(a->o->ranks) : 0) +
              (a->o->machines != NULL ? a->o->machines->n : 0);
    struct pollfd *p = dr_xcalloc((size_t)cap, sizeof *p);
    while (!a->over) {
        p[0] = (struct pollfd){.fd = a->signals, .events = POLLIN};
        p[1] = (struct pollfd){.fd = a->output, .events = POLLIN};
        int n = 2 + (a->o->ranks != NULL ? dr_ranks_poll(a->o->ranks, p + 2, cap - 2) : 0);
        n += a->o->machines != NULL ? dr_machines_poll(a->o->machines, p + n, cap - n) : 0;
        (void)poll(p, (nfds_t)n, patience_ms(a));
        take_output(a);
        if (a->o->ranks != NULL) {
            take_ranks(a);
        }
        take_machines(a);
        take_signals(a);
        take_time(a);
    }
    take_output(a);
    take_machines(a);
    if (a->o->ranks != NULL) {
        take_last_words(a->o->ranks, p, cap);
        if (a->told_s > 0.0 && a->r->signal == 0 && a->o->ranks->first_failed < 0) {
            a->r->signal = SIGTERM;
        }
    }
    free(p);
}

static dr_status run(attempt *a, const char *const *argv, const char *const *env,
                     const sigset_t *before)
{
    int ends[2] = {-1, -1};
    if (a->o->ranks != NULL &&
        (pipe2(ends, O_CLOEXEC) != 0 || fcntl(ends[0], F_SETFL, O_NONBLOCK) != 0)) {
        DR_FAIL(DR_IO, "pipe: %s", strerror(errno));
    }
    dr_status st = start(argv, env, before, ends[1], &a->child);
    if (ends[1] >= 0) {
        (void)close(ends[1]);
    }
    a->output = ends[0];
    if (st == DR_OK) {
        a->started_s = dr_now_s();
        watch(a);
        dr_kill_children();
    }
    if (a->output >= 0) {
        (void)close(a->output);
    }
    return st;
}

int dr_watch_signals(bool stops, sigset_t *before)
{
    static const int watched[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGCHLD};
    sigset_t set;
    (void)sigemptyset(&set);
    if (stops) {
        (void)sigaddset(&set, SIGTSTP);
    }
    for (size_t i = 0; i < sizeof watched / sizeof *watched; i++) {
        (void)sigaddset(&set, watched[i]);
    }
    if (sigprocmask(SIG_BLOCK, &set, before) != 0) {
        return -1;
    }
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

dr_status dr_supervise(const char *const *argv, const char *const *env,
                       const dr_supervise_options *o, dr_supervised *out)
{
    sigset_t before;
    dr_supervised result = {0};
    attempt a = {.o = o, .r = &result};
    a.signals = dr_watch_signals(o->ranks != NULL, &before);
    if (a.signals < 0) {
        DR_FAIL(DR_IO, "signals cannot be watched: %s", strerror(errno));
    }
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
    dr_status st = run(&a, argv, env, &before);
    (void)close(a.signals);
    if (st == DR_OK) {
        *out = result;
    }
    (void)prctl(PR_SET_CHILD_SUBREAPER, 0);
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    return st;
}
