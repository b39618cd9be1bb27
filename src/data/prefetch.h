/*
 * data/prefetch.h - pictures decoded ahead of the step that needs them, by threads.
 *
 * Layer:    data.
 * Threads:  one thread adds and takes; the load function runs on the pool's threads.
 *
 * What dr_prefetch_take gives does not depend on threads, on what was added before or on timing: a
 * picture that was not added, or not reached, is loaded then and there.
 */
#ifndef DR_DATA_PREFETCH_H
#define DR_DATA_PREFETCH_H

#include "dreamrun/status.h"

typedef struct dr_prefetch dr_prefetch;

typedef struct dr_prefetch_job { /* what to load: one use of a picture */
    uint64_t image;
    uint64_t sample;
    uint32_t epoch;
    bool flip;
} dr_prefetch_job;

typedef struct dr_prefetch_config {
    int n_threads;  /* 0: nothing is loaded ahead */
    size_t n_ahead; /* pictures held at most, >= 1 unless n_threads is 0 */
    /* Writes n floats; may run on any thread, for several jobs at once. */
    dr_status (*load)(void *user, const dr_prefetch_job *job, float *pixels);
    void *user;
} dr_prefetch_config;

/* Errors: DR_NOMEM. */
DR_MUST_USE dr_status dr_prefetch_create(const dr_prefetch_config *c, dr_prefetch **out);
/* Waits for what is being loaded. NULL is legal. */
void dr_prefetch_destroy(dr_prefetch *p);

/* Whether anything is loaded ahead: n_threads is not 0. */
bool dr_prefetch_is_on(const dr_prefetch *p);
/* Announces a job of n floats, in the order of the takes; false: no place, ask again later. */
bool dr_prefetch_add(dr_prefetch *p, const dr_prefetch_job *job, size_t n);
/*
 * Writes the n floats of a job to out, from what was loaded ahead or by loading it now. Jobs that
 * were announced before it and never taken are dropped. Errors: those of load, at the step that
 * would have met them without a prefetch.
 */
DR_MUST_USE dr_status dr_prefetch_take(dr_prefetch *p, const dr_prefetch_job *job, size_t n,
                                       float *out);

#endif
