#include "train/watchdog.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/note.h"
#include "dist/board.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { RECENT = 31 };               /* steps whose median is the usual time of one */
static const double least_s = 60.0; /* spec/launcher.md 2.2: 20 times the usual step, >= 60 s */
static const double per_step = 20.0;
static const double first_step = 5.0;      /* the first step loads kernels and touches all memory */
static const double first_steps_s = 600.0; /* while none or few steps show how long one takes */
static const double phase_s = 1800.0;      /* saving, caching: from one sign of life to the next */

static const char *const names[DR_DOES_COUNT] = {
    "prepares", "caches latents", "computes",     "waits for the others",
    "saves",    "validates",      "draws samples"};

static struct {
    dr_dist *dist;
    dr_board board;
    pthread_t thread;
    bool runs;
    bool looks;     /* at progress; else only at how long exchanges wait */
    bool all_here;  /* no rank is on another host */
    double fixed_s; /* 0: automatic */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stops;
    double alive_s; /* last progress */
    double step_s;  /* end of the last step, 0: none yet */
    double recent[RECENT];
    int n_recent;
} dog = {.lock = PTHREAD_MUTEX_INITIALIZER};

const char *dr_watchdog_name(dr_activity a)
{
    return names[a];
}

/* --- budgets (the lock is held) ----------------------------------------------------------------
 */

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;
    return (x > y) - (x < y);
}

static double usual_step_s(void)
{
    double sorted[RECENT];
    int n = dog.n_recent < RECENT ? dog.n_recent : RECENT;
    memcpy(sorted, dog.recent, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, ascending);
    return n >= 3 ? sorted[n / 2] : 0.0;
}

static double budget_s(dr_activity a)
{
    if (!dog.looks) {
        return INFINITY;
    }
    if (a != DR_DOES_STEP && a != DR_DOES_WAIT) {
        return phase_s;
    }
    if (dog.fixed_s > 0.0) {
        return dog.step_s > 0.0 ? dog.fixed_s : first_step * dog.fixed_s;
    }
    double usual = usual_step_s();
    if (usual <= 0.0) {
        return first_steps_s;
    }
    return per_step * usual > least_s ? per_step * usual : least_s;
}

/* --- the end ------------------------------------------------------------------------------------
 */

static void list_rank(dr_board_slot *s, bool full, dr_str *out)
{
    dr_str_printf(out, "%s%d", out->len == 0 ? "" : ", ", atomic_load(&s->rank));
    if (full) {
        dr_str_printf(out, " (%s, after step %lld)", names[atomic_load(&s->activity)],
                      (long long)atomic_load(&s->step));
    }
}

static void list_ranks(bool waiting, int64_t step, dr_str *out)
{
    for (int i = 0; i < dog.board.n; i++) {
        dr_board_slot *s = &dog.board.slots[i];
        dr_activity a = (dr_activity)atomic_load(&s->activity);
        bool waits = a == DR_DOES_WAIT && atomic_load(&s->step) >= step;
        if (waits == waiting) {
            list_rank(s, !waiting, out);
        }
    }
}

static int64_t newest_step(void)
{
    int64_t step = 0;
    for (int i = 0; i < dog.board.n; i++) {
        int64_t theirs = atomic_load(&dog.board.slots[i].step);
        step = theirs > step ? theirs : step;
    }
    return step;
}

static void describe_silence(double silent_s, dr_str *out)
{
    dr_str silent = {0};
    dr_str waiting = {0};
    const int64_t step = newest_step();
    list_ranks(false, step, &silent);
    list_ranks(true, step, &waiting);
    dr_str_printf(out, "no progress for %.1f s after step %lld: ", silent_s, (long long)step);
    if (silent.len > 0) {
        dr_str_printf(out, "silent: rank %s", dr_str_get(&silent));
    } else {
        dr_str_add(out, dog.all_here ? "all ranks wait for each other"
                                     : "all ranks of this host wait for another host");
    }
    if (silent.len > 0 && waiting.len > 0) {
        dr_str_printf(out, "; waiting for it: rank %s", dr_str_get(&waiting));
    }
    dr_str_free(&silent);
    dr_str_free(&waiting);
}

static void describe_overdue(const dr_overdue *o, dr_str *out)
{
    dr_str missing = {0};
    const int64_t mine = atomic_load(&dog.board.slots[dog.board.own].calls[o->lane]);
    for (int i = 0; i < dog.board.n; i++) {
        if (atomic_load(&dog.board.slots[i].calls[o->lane]) < mine) {
            list_rank(&dog.board.slots[i], true, &missing);
        }
    }
    dr_str_printf(out, "%s after step %lld waited %.1f s (--ddp_timeout): ", o->name,
                  (long long)newest_step(), o->waited_s);
    if (missing.len > 0) {
        dr_str_printf(out, "missing: rank %s", dr_str_get(&missing));
    } else {
        dr_str_add(out, dog.all_here ? "all ranks have come: the network between them fails"
                                     : "all ranks of this host have come, another host's have not");
    }
    dr_str_free(&missing);
}

/* Whether this rank is the first of its host that can speak: those that wait can. */
static bool speaks(void)
{
    for (int i = 0; i < dog.board.own; i++) {
        if (atomic_load(&dog.board.slots[i].activity) == DR_DOES_WAIT) {
            return false;
        }
    }
    return true;
}

static void end_run(const dr_str *text)
{
    if (!speaks()) { /* another rank of this host says the same; its end ends this one */
        const struct timespec pause = {.tv_nsec = 300000000};
        (void)nanosleep(&pause, NULL);
    }
    dr_note("hang %s", dr_str_get(text));
    dr_log_write(DR_LOG_ERROR, "%s", dr_str_get(text));
    _exit(dr_status_exit_code(DR_HANG));
}

/* A process that was stopped (Ctrl-Z) or not given the CPU finds that time has passed for
 * everybody: that is not held against the run. */
static void forgive_gap(double looked_s, double waited_s)
{
    static const double slack_s = 1.0;
    double gap = dr_now_s() - looked_s - waited_s;
    if (gap > slack_s) {
        dog.alive_s += gap;
        dr_dist_forgive(dog.dist, gap);
    }
}

static void *watch(void *unused)
{
    (void)pthread_mutex_lock(&dog.lock);
    while (!dog.stops) {
        double looked_s = dr_now_s();
        dr_activity a = (dr_activity)atomic_load(&dog.board.slots[dog.board.own].activity);
        double silent_s = dr_now_s() - dog.alive_s;
        double left_s = budget_s(a) - silent_s;
        dr_str text = {0};
        dr_overdue late;
        if (left_s <= 0.0) {
            describe_silence(silent_s, &text);
        } else if (dr_dist_overdue(dog.dist, &late)) {
            describe_overdue(&late, &text);
        }
        if (text.len > 0) {
            (void)pthread_mutex_unlock(&dog.lock);
            end_run(&text);
        }
        struct timespec until;
        (void)clock_gettime(CLOCK_MONOTONIC, &until);
        double wait_s = left_s < 0.5 ? left_s + 0.01 : 0.5;
        until.tv_nsec += (long)(wait_s * 1e9);
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        (void)pthread_cond_timedwait(&dog.wake, &dog.lock, &until);
        forgive_gap(looked_s, wait_s);
    }
    (void)pthread_mutex_unlock(&dog.lock);
    return unused;
}

/* --- life ---------------------------------------------------------------------------------------
 */

static dr_status start_thread(void)
{
    pthread_condattr_t attr;
    int err = pthread_condattr_init(&attr);
    if (err == 0) {
        err = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    }
    if (err == 0) {
        err = pthread_cond_init(&dog.wake, &attr);
    }
    if (err == 0) {
        err = pthread_create(&dog.thread, NULL, watch, NULL);
    }
    if (err != 0) {
        DR_FAIL(DR_NOMEM, "the watchdog's thread cannot be started: %s", strerror(err));
    }
    return DR_OK;
}

dr_status dr_watchdog_start(dr_dist *d, double wait_limit_s)
{
    const char *text = getenv("DREAMRUN_HANG_TIMEOUT");
    dog.looks = text != NULL && strcmp(text, "0") != 0;
    if (!dog.looks && wait_limit_s <= 0.0) {
        return DR_OK;
    }
    dr_status st = DR_OK;
    dog.fixed_s = 0.0;
    if (dog.looks && strcmp(text, "auto") != 0 &&
        (!dr_parse_f64(text, &dog.fixed_s) || dog.fixed_s < 0.0)) {
        st = dr_error_set(DR_INVALID, __FILE__, __LINE__,
                          "DREAMRUN_HANG_TIMEOUT: found '%s', expected auto or seconds", text);
    }
    DR_TRY(dr_dist_agree(d, st));
    DR_TRY(dr_board_open(d, &dog.board));
    dr_dist_limit_waits(d, &dog.board, wait_limit_s);
    dog.dist = d;
    dog.stops = false;
    dog.all_here = dr_dist_world(d) == dr_dist_local_world(d);
    dog.n_recent = 0;
    dog.step_s = 0.0;
    dog.alive_s = dr_now_s();
    st = start_thread();
    dog.runs = st == DR_OK;
    return dr_dist_agree(d, st);
}

void dr_watchdog_stop(void)
{
    if (!dog.runs) {
        return;
    }
    (void)pthread_mutex_lock(&dog.lock);
    dog.stops = true;
    (void)pthread_cond_signal(&dog.wake);
    (void)pthread_mutex_unlock(&dog.lock);
    (void)pthread_join(dog.thread, NULL);
    (void)pthread_cond_destroy(&dog.wake);
    dr_dist_limit_waits(dog.dist, NULL, 0.0);
    dr_board_close(&dog.board);
    dog.runs = false;
}

void dr_watchdog_does(dr_activity a)
{
    if (!dog.runs) {
        return;
    }
    (void)pthread_mutex_lock(&dog.lock);
    if (a != DR_DOES_WAIT) { /* waiting is part of the step */
        dog.alive_s = dr_now_s();
    }
    atomic_store(&dog.board.slots[dog.board.own].activity, (int)a);
    (void)pthread_mutex_unlock(&dog.lock);
}

void dr_watchdog_step(int64_t step)
{
    if (!dog.runs) {
        return;
    }
    (void)pthread_mutex_lock(&dog.lock);
    double now = dr_now_s();
    if (dog.step_s > 0.0) {
        dog.recent[dog.n_recent++ % RECENT] = now - dog.step_s;
    }
    dog.step_s = now;
    dog.alive_s = now;
    atomic_store(&dog.board.slots[dog.board.own].step, step);
    (void)pthread_mutex_unlock(&dog.lock);
}

void dr_watchdog_alive(void)
{
    if (!dog.runs) {
        return;
    }
    (void)pthread_mutex_lock(&dog.lock);
    dog.alive_s = dr_now_s();
    (void)pthread_mutex_unlock(&dog.lock);
}
