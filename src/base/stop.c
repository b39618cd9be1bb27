#include "base/stop.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const int signals[] = {SIGINT, SIGTERM, SIGUSR1};
enum { N_SIGNALS = sizeof signals / sizeof *signals };

static struct sigaction before[N_SIGNALS];
static bool installed;
static volatile sig_atomic_t requested;
static struct timespec first_at;

static void take_note(int sig)
{
    const int saved = errno;
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    if (requested == 0) {
        first_at = now;
        requested = sig;
    } else if (sig != SIGUSR1) {
        const double since = (double)(now.tv_sec - first_at.tv_sec) +
                             1e-9 * (double)(now.tv_nsec - first_at.tv_nsec);
        if (since > 0.5) {
            _exit(128 + sig);
        }
    }
    errno = saved;
}

dr_status dr_stop_install(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = take_note;
    action.sa_flags = SA_RESTART;
    (void)sigemptyset(&action.sa_mask);
    for (int i = 0; i < N_SIGNALS; i++) {
        (void)sigaddset(&action.sa_mask, signals[i]);
    }
    requested = 0;
    for (int i = 0; i < N_SIGNALS; i++) {
        if (sigaction(signals[i], &action, &before[i]) != 0) {
            DR_FAIL(DR_IO, "sigaction: %s", strerror(errno));
        }
    }
    installed = true;
    return DR_OK;
}

void dr_stop_restore(void)
{
    for (int i = 0; installed && i < N_SIGNALS; i++) {
        (void)sigaction(signals[i], &before[i], NULL);
    }
    installed = false;
}

int dr_stop_signal(void)
{
    return requested;
}

const char *dr_stop_signal_name(int sig)
{
    return sig == SIGINT    ? "SIGINT"
           : sig == SIGTERM ? "SIGTERM"
           : sig == SIGUSR1 ? "SIGUSR1"
                            : "a signal";
}
