#define _GNU_SOURCE /* pipe2 */
#include "launcher/supervise.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* --- start ---------------------------------------------------------------------------------------
 */

/* In the child: never returns. What fails is written to the pipe as an errno. */
static void become(const char *const *argv, const char *const *env, const sigset_t *mask,
                   pid_t parent, int report)
{
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    (void)setpgid(0, 0); /* ^C reaches the launcher alone, which passes it on */
    if (null < 0 || dup2(null, STDIN_FILENO) < 0 || prctl(PR_SET_PDEATHSIG, SIGTERM) != 0 ||
        sigprocmask(SIG_SETMASK, mask, NULL) != 0) {
        goto failed;
    }
    if (getppid() != parent) { /* it died before PDEATHSIG was set */
        _exit(128 + SIGTERM);
    }
    /* execve takes char *const * for historical reasons and changes nothing */
    (void)execve(argv[0], (char *const *)(uintptr_t)argv, (char *const *)(uintptr_t)env);
failed:;
    int code = errno;
    ssize_t n = write(report, &code, sizeof code);
    _exit(n == (ssize_t)sizeof code ? 127 : 126);
}

static dr_status start(const char *const *argv, const char *const *env, const sigset_t *mask,
                       pid_t *out)
{
    int report[2];
    if (pipe2(report, O_CLOEXEC) != 0) {
        DR_FAIL(DR_IO, "pipe: %s", strerror(errno));
    }
    pid_t parent = getpid();
    (void)fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        become(argv, env, mask, parent, report[1]);
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

static void reap_everything(void)
{
    while (kill_orphans() > 0) {
        while (waitpid(-1, NULL, 0) < 0 && errno == EINTR) {
        }
    }
}

/* --- waiting
 * -------------------------------------------------------------------------------------- */

static struct timespec timespec_of(double s)
{
    double left = s > 0.0 ? s : 0.0;
    struct timespec t = {.tv_sec = (time_t)left};
    t.tv_nsec = (long)((left - (double)t.tv_sec) * 1e9);
    return t;
}

/* Takes the child's end, if it came; orphans that end meanwhile are taken too. */
static bool has_ended(pid_t child, int *status)
{
    int s = 0;
    pid_t pid = 0;
    bool ended = false;
    while ((pid = waitpid(-1, &s, WNOHANG)) > 0) {
        if (pid == child) {
            *status = s;
            ended = true;
        }
    }
    return ended;
}

static void wait_for_end(pid_t child, const sigset_t *signals, double grace_s, dr_supervised *r)
{
    double deadline = 0.0;
    int status = 0;
    while (!has_ended(child, &status)) {
        struct timespec t = timespec_of(r->signal != 0 ? deadline - dr_now_s() : 3600.0);
        int sig = sigtimedwait(signals, NULL, &t);
        bool stop = sig == SIGINT || sig == SIGTERM || sig == SIGHUP || sig == SIGUSR1;
        bool late = r->signal != 0 && (stop || dr_now_s() >= deadline);
        if (late && !r->killed) {
            r->killed = true;
            (void)kill(-child, SIGKILL);
        } else if (stop && r->signal == 0) {
            r->signal = sig;
            deadline = dr_now_s() + grace_s;
            (void)kill(child, SIGUSR1); /* mpirun hands it on; TERM would leave the ranks 1 s */
        }
        if (r->killed) {
            deadline = dr_now_s() + 3600.0; /* only the child's end is awaited now */
        }
    }
    r->exit_code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

dr_status dr_supervise(const char *const *argv, const char *const *env, double grace_s,
                       dr_supervised *out)
{
    sigset_t signals;
    sigset_t before;
    (void)sigemptyset(&signals);
    static const int watched[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGCHLD};
    for (size_t i = 0; i < sizeof watched / sizeof *watched; i++) {
        (void)sigaddset(&signals, watched[i]);
    }
    if (sigprocmask(SIG_BLOCK, &signals, &before) != 0) {
        DR_FAIL(DR_IO, "sigprocmask: %s", strerror(errno));
    }
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1);
    dr_supervised result = {0};
    pid_t child = 0;
    dr_status st = start(argv, env, &before, &child);
    if (st == DR_OK) {
        wait_for_end(child, &signals, grace_s, &result);
        reap_everything();
        *out = result;
    }
    (void)prctl(PR_SET_CHILD_SUBREAPER, 0);
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    return st;
}
