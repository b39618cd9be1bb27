/*
 * base/thread_pool.h - threads that run tasks in the order they were submitted.
 *
 * Layer:    base.
 * Threads:  submit, wait and for from any thread; create and destroy from one.
 * Errors:   DR_NOMEM (no thread can be started). A task's failure belongs to the task.
 *
 * Results must not depend on which thread runs a task, nor on how many threads there are.
 */
#ifndef DR_BASE_THREAD_POOL_H
#define DR_BASE_THREAD_POOL_H

#include "dreamrun/status.h"

typedef struct dr_thread_pool dr_thread_pool;

typedef struct dr_task { /* owned by the caller; stays where it is until it was waited for */
    dr_status (*run)(void *arg);
    void *arg;
    /* private to the pool */
    struct dr_task *next;
    int state;
    dr_status status;
    dr_error_copy *error; /* of a failed task, until dr_thread_pool_wait takes it */
} dr_task;

/* n_threads 0 to 1024. Without threads every task runs inside dr_thread_pool_wait. */
DR_MUST_USE dr_status dr_thread_pool_create(int n_threads, dr_thread_pool **out);
/* All tasks must have been waited for. NULL is legal. */
void dr_thread_pool_destroy(dr_thread_pool *p);
int dr_thread_pool_threads(const dr_thread_pool *p);

/* Queues a task whose run and arg are set; the rest is overwritten. */
void dr_thread_pool_submit(dr_thread_pool *p, dr_task *t);
/*
 * Returns when the task is done, with its status and its error record. A task that no thread has
 * begun yet runs here. Each submitted task is waited for exactly once.
 */
DR_MUST_USE dr_status dr_thread_pool_wait(dr_thread_pool *p, dr_task *t);

/*
 * fn(arg, i) for every i below n, by the pool's threads and the caller; p NULL: by the caller
 * alone. When some fail, the failure of the lowest i is returned, with its record, as a plain loop
 * would; larger i may or may not have run.
 */
DR_MUST_USE dr_status dr_thread_pool_for(dr_thread_pool *p, size_t n,
                                         dr_status (*fn)(void *arg, size_t i), void *arg);

#endif
