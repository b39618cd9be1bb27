#include "base/thread_pool.h"

#include "base/arena.h"
#include "base/profile.h"

#include <pthread.h>
#include <stdlib.h>

enum { MAX_THREADS = 1024 };
enum { QUEUED = 1, RUNNING, DONE };

struct dr_thread_pool {
    pthread_mutex_t mutex; /* guards everything below and the private part of tasks */
    pthread_cond_t work;   /* a task was queued, or the pool ends */
    pthread_cond_t done;   /* a task is done */
    dr_task *head, *tail;  /* queued tasks */
    bool ending;
    int n_threads;
    pthread_t *threads;
};

/* Takes t out of the queue. */
static void unlink_task(dr_thread_pool *p, dr_task *t)
{
    dr_task *before = NULL;
    dr_task *at = p->head;
    while (at != t) {
        before = at;
        at = at->next;
    }
    if (before == NULL) {
        p->head = t->next;
    } else {
        before->next = t->next;
    }
    if (p->tail == t) {
        p->tail = before;
    }
}

/* Runs a task that was just taken out of the queue. The mutex is held, but not meanwhile. */
static void run_task(dr_thread_pool *p, dr_task *t)
{
    dr_error_copy *error = NULL;
    t->state = RUNNING;
    (void)pthread_mutex_unlock(&p->mutex);
    dr_status st = t->run(t->arg);
    if (st != DR_OK) {
        error = dr_xcalloc(1, sizeof *error);
        dr_error_export(error);
    }
    (void)pthread_mutex_lock(&p->mutex);
    t->status = st;
    t->error = error;
    t->state = DONE;
    (void)pthread_cond_broadcast(&p->done);
}

static void *work(void *arg)
{
    dr_thread_pool *p = arg;
    dr_profile_thread("loader");
    (void)pthread_mutex_lock(&p->mutex);
    for (;;) {
        while (p->head == NULL && !p->ending) {
            (void)pthread_cond_wait(&p->work, &p->mutex);
        }
        if (p->head == NULL) {
            break;
        }
        dr_task *t = p->head;
        unlink_task(p, t);
        run_task(p, t);
    }
    (void)pthread_mutex_unlock(&p->mutex);
    return NULL;
}

dr_status dr_thread_pool_create(int n_threads, dr_thread_pool **out)
{
    DR_CHECK(n_threads >= 0 && n_threads <= MAX_THREADS, "%d threads", n_threads);
    dr_thread_pool *p = dr_xcalloc(1, sizeof *p);
    (void)pthread_mutex_init(&p->mutex, NULL);
    (void)pthread_cond_init(&p->work, NULL);
    (void)pthread_cond_init(&p->done, NULL);
    p->threads = dr_xcalloc((size_t)n_threads + 1, sizeof *p->threads);
    for (int i = 0; i < n_threads; i++) {
        if (pthread_create(&p->threads[i], NULL, work, p) != 0) {
            dr_thread_pool_destroy(p);
            DR_FAIL(DR_NOMEM, "cannot start thread %d of %d; use fewer, or raise ulimit -u", i + 1,
                    n_threads);
        }
        p->n_threads++;
    }
    *out = p;
    return DR_OK;
}

void dr_thread_pool_destroy(dr_thread_pool *p)
{
    if (p == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&p->mutex);
    DR_CHECK(p->head == NULL, "a thread pool ends with tasks in its queue");
    p->ending = true;
    (void)pthread_cond_broadcast(&p->work);
    (void)pthread_mutex_unlock(&p->mutex);
    for (int i = 0; i < p->n_threads; i++) {
        (void)pthread_join(p->threads[i], NULL);
    }
    (void)pthread_cond_destroy(&p->work);
    (void)pthread_cond_destroy(&p->done);
    (void)pthread_mutex_destroy(&p->mutex);
    free(p->threads);
    free(p);
}

int dr_thread_pool_threads(const dr_thread_pool *p)
{
    return p->n_threads;
}

void dr_thread_pool_submit(dr_thread_pool *p, dr_task *t)
{
    (void)pthread_mutex_lock(&p->mutex);
    t->next = NULL;
    t->state = QUEUED;
    t->status = DR_OK;
    t->error = NULL;
    if (p->tail == NULL) {
        p->head = t;
    } else {
        p->tail->next = t;
    }
    p->tail = t;
    (void)pthread_cond_signal(&p->work);
    (void)pthread_mutex_unlock(&p->mutex);
}

dr_status dr_thread_pool_wait(dr_thread_pool *p, dr_task *t)
{
    (void)pthread_mutex_lock(&p->mutex);
    DR_CHECK(t->state >= QUEUED && t->state <= DONE, "a task that was not submitted");
    if (t->state == QUEUED) {
        unlink_task(p, t);
        run_task(p, t);
    }
    while (t->state != DONE) {
        (void)pthread_cond_wait(&p->done, &p->mutex);
    }
    t->state = 0;
    (void)pthread_mutex_unlock(&p->mutex);
    if (t->error != NULL) {
        dr_error_import(t->error);
        free(t->error);
        t->error = NULL;
    }
    return t->status;
}

typedef struct loop { /* one dr_thread_pool_for */
    dr_status (*fn)(void *arg, size_t i);
    void *arg;
    pthread_mutex_t mutex; /* guards what follows */
    size_t next, end;      /* end: n, or the lowest i that failed */
    dr_status status;
    dr_error_copy error;
} loop;

static bool next_index(loop *l, size_t *i)
{
    (void)pthread_mutex_lock(&l->mutex);
    bool more = l->next < l->end;
    *i = l->next;
    l->next += more;
    (void)pthread_mutex_unlock(&l->mutex);
    return more;
}

static void note_failure(loop *l, size_t i, dr_status st)
{
    (void)pthread_mutex_lock(&l->mutex);
    if (i < l->end) {
        l->end = i;
        l->status = st;
        dr_error_export(&l->error);
    }
    (void)pthread_mutex_unlock(&l->mutex);
}

/* Indices are given out in ascending order, so every one below a failed one runs, too. */
static dr_status run_loop(void *arg)
{
    loop *l = arg;
    size_t i = 0;
    while (next_index(l, &i)) {
        dr_status st = l->fn(l->arg, i);
        if (st != DR_OK) {
            note_failure(l, i, st);
        }
    }
    return DR_OK;
}

dr_status dr_thread_pool_for(dr_thread_pool *p, size_t n, dr_status (*fn)(void *arg, size_t i),
                             void *arg)
{
    loop l = {.fn = fn, .arg = arg, .end = n};
    size_t n_helpers = p == NULL || n < 2 ? 0 : (size_t)p->n_threads;
    if (n_helpers > 0 && n_helpers >= n) {
        n_helpers = n - 1; /* the caller takes its share */
    }
    dr_task *tasks = dr_xcalloc(n_helpers + 1, sizeof *tasks);
    (void)pthread_mutex_init(&l.mutex, NULL);
    for (size_t i = 0; i < n_helpers; i++) {
        tasks[i] = (dr_task){.run = run_loop, .arg = &l};
        dr_thread_pool_submit(p, &tasks[i]);
    }
    dr_status st = run_loop(&l);
    for (size_t i = 0; i < n_helpers; i++) {
        DR_KEEP_FIRST(dr_thread_pool_wait(p, &tasks[i]), st);
    }
    (void)pthread_mutex_destroy(&l.mutex);
    free(tasks);
    if (l.status != DR_OK) {
        dr_error_import(&l.error);
        st = l.status;
    }
    return st;
}
