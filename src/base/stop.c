#include "base/stop.h"

#include "base/clock.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

static atomic_bool takes_notes;
static atomic_int requested;

static void stop_set(sigset_t *set)
{
    (void)sigemptyset(set);
    (void)sigaddset(set, SIGINT);
    (void)sigaddset(set, SIGTERM);
    (void)sigaddset(set, SIGUSR1);
}

/* As if nobody had blocked it. */
static void end_by(int sig)
{
    sigset_t one;
    (void)signal(sig, SIG_DFL);
    (void)sigemptyset(&one);
    (void)sigaddset(&one, sig);
    (void)pthread_sigmask(SIG_UNBLOCK, &one, NULL);
    (void)raise(sig);
}

static void *watch(void *unused)
{
    sigset_t set;
    int sig = 0;
    double first_at = 0.0;
    stop_set(&set);
    while (sigwait(&set, &sig) == 0) {
        if (!atomic_load(&takes_notes)) {
            end_by(sig);
        } else if (atomic_load(&requested) == 0) {
            first_at = dr_now_s();
            atomic_store(&requested, sig);
        } else if (sig != SIGUSR1 && dr_now_s() - first_at > 0.5) {
            _exit(128 + sig);
        }
    }
    return unused;
}

dr_status dr_stop_watch(void)
{
    sigset_t set;
    pthread_t thread;
    stop_set(&set);
    int err = pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (err == 0) {
        err = pthread_create(&thread, NULL, watch, NULL);
    }
    if (err == 0) {
        err = pthread_detach(thread);
    }
    if (err != 0) {
        DR_FAIL(DR_IO, "the thread that waits for signals cannot be started: %s", strerror(err));
    }
    return DR_OK;
}

void dr_stop_take_notes(bool on)
{
    atomic_store(&takes_notes, on);
}

int dr_stop_signal(void)
{
    return atomic_load(&requested);
}

const char *dr_stop_signal_name(int sig)
{
    return sig == SIGINT    ? "SIGINT"
           : sig == SIGTERM ? "SIGTERM"
           : sig == SIGUSR1 ? "SIGUSR1"
                            : "a signal";
}
