#include "base/profile.h"

#include "base/arena.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

enum { MOST_SPANS = 1 << 18, NO_NUMBER = -1 };
static const double ns = 1e-9;

typedef struct span {
    const char *name, *group;
    int64_t begin, end, n;
} span;

typedef struct thread_spans { /* of one thread, alive until the process ends */
    pthread_mutex_t mutex;    /* the thread writes, the writer of the file reads */
    const char *name;
    int number; /* in order of first use; the main thread comes first */
    span *at;
    size_t n, cap;
    int64_t lost;
    struct thread_spans *next;
} thread_spans;

static atomic_bool on;
static pthread_mutex_t list_mutex = PTHREAD_MUTEX_INITIALIZER; /* guards first and n_threads */
static thread_spans *first;
static int n_threads;
static int64_t started_ns;
static double clocks_apart_s; /* wall clock minus monotonic clock */
static _Thread_local thread_spans *mine;

static int64_t read_ns(clockid_t clock)
{
    struct timespec t = {0};
    (void)clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static thread_spans *get_mine(void)
{
    if (mine == NULL) {
        mine = dr_xcalloc(1, sizeof *mine);
        (void)pthread_mutex_init(&mine->mutex, NULL);
        (void)pthread_mutex_lock(&list_mutex);
        mine->number = n_threads++;
        mine->next = first;
        first = mine;
        (void)pthread_mutex_unlock(&list_mutex);
    }
    return mine;
}

void dr_profile_start(void)
{
    (void)get_mine();
    (void)pthread_mutex_lock(&list_mutex);
    for (thread_spans *t = first; t != NULL; t = t->next) {
        (void)pthread_mutex_lock(&t->mutex);
        t->n = 0;
        t->lost = 0;
        (void)pthread_mutex_unlock(&t->mutex);
    }
    (void)pthread_mutex_unlock(&list_mutex);
    started_ns = read_ns(CLOCK_MONOTONIC);
    clocks_apart_s = (double)(read_ns(CLOCK_REALTIME) - started_ns) * ns;
    atomic_store(&on, true);
}

void dr_profile_stop(void)
{
    atomic_store(&on, false);
}

bool dr_profile_is_on(void)
{
    return atomic_load_explicit(&on, memory_order_relaxed);
}

double dr_profile_started_s(void)
{
    return (double)started_ns * ns + clocks_apart_s;
}

dr_span dr_span_begin(void)
{
    return dr_profile_is_on() ? read_ns(CLOCK_MONOTONIC) : 0;
}

void dr_span_end_n(dr_span s, const char *name, const char *group, int64_t n)
{
    if (s == 0 || !dr_profile_is_on()) {
        return;
    }
    const int64_t end = read_ns(CLOCK_MONOTONIC);
    thread_spans *t = get_mine();
    (void)pthread_mutex_lock(&t->mutex);
    if (t->n == t->cap && t->cap < MOST_SPANS) {
        t->cap = t->cap > 0 ? t->cap * 2 : 4096;
        t->at = dr_xrealloc(t->at, t->cap, sizeof *t->at);
    }
    if (t->n < t->cap) {
        t->at[t->n++] = (span){name, group, s, end, n};
    } else {
        t->lost++;
    }
    (void)pthread_mutex_unlock(&t->mutex);
}

void dr_span_end(dr_span s, const char *name, const char *group)
{
    dr_span_end_n(s, name, group, NO_NUMBER);
}

void dr_profile_thread(const char *name)
{
    if (!dr_profile_is_on()) {
        return;
    }
    thread_spans *t = get_mine();
    (void)pthread_mutex_lock(&t->mutex);
    t->name = name;
    (void)pthread_mutex_unlock(&t->mutex);
}

static void write_name(dr_str *out, const char *what, int pid, int tid, const char *name)
{
    dr_str_printf(out,
                  "{\"ph\": \"M\", \"name\": \"%s\", \"pid\": %d, \"tid\": %d, "
                  "\"args\": {\"name\": \"%s\"}},\n",
                  what, pid, tid, name);
}

/* Microseconds with three digits: whole nanoseconds, so that spans nest exactly. */
static void write_span(dr_str *out, int pid, int tid, const span *s, int64_t zero_ns)
{
    const long long from = s->begin - zero_ns;
    const long long length = s->end - s->begin;
    dr_str_printf(out,
                  "{\"ph\": \"X\", \"name\": \"%s\", \"cat\": \"%s\", \"pid\": %d, \"tid\": %d, "
                  "\"ts\": %lld.%03lld, \"dur\": %lld.%03lld",
                  s->name, s->group, pid, tid, from / 1000, from % 1000, length / 1000,
                  length % 1000);
    if (s->n != NO_NUMBER) {
        dr_str_printf(out, ", \"args\": {\"n\": %lld}", (long long)s->n);
    }
    dr_str_add(out, "},\n");
}

int64_t dr_profile_write(dr_str *out, int pid, double zero_s)
{
    char process[32];
    int64_t lost = 0;
    const double ahead_s = dr_profile_started_s() - zero_s; /* of the process that counts from 0 */
    const int64_t zero_ns = started_ns - (int64_t)(ahead_s / ns);
    (void)snprintf(process, sizeof process, "rank %d", pid);
    write_name(out, "process_name", pid, 0, process);
    (void)pthread_mutex_lock(&list_mutex);
    for (thread_spans *t = first; t != NULL; t = t->next) {
        (void)pthread_mutex_lock(&t->mutex);
        if (t->n > 0) {
            write_name(out, "thread_name", pid, t->number, t->name != NULL ? t->name : "thread");
        }
        for (size_t i = 0; i < t->n; i++) {
            write_span(out, pid, t->number, &t->at[i], zero_ns);
        }
        lost += t->lost;
        (void)pthread_mutex_unlock(&t->mutex);
    }
    (void)pthread_mutex_unlock(&list_mutex);
    return lost;
}
