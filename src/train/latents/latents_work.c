/*
 * Messages: a rank sends a report (what became of its batch, and the values; batch -1 when it has
 * none yet) and receives the entries of its next batch, or no entry: the end.
 */
#include "train/latents/latents_work.h"

#include "base/arena.h"
#include "dist/messages.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef struct report {  /* head of a rank's message; the values follow */
    int64_t batch;       /* -1: none */
    dr_error_copy error; /* status DR_OK: the values are there */
} report;

typedef struct office { /* rank 0 */
    dr_dist *dist;
    const dr_encode_work *w;
    pthread_mutex_t lock; /* of all below */
    size_t next;          /* first batch that nobody has */
    size_t n_open;        /* batches that somebody has */
    dr_error_copy error;  /* the first failure */
} office;

static size_t values_of(const dr_encode_work *w, dr_encode_batch b)
{
    return b.n > 0 ? b.n * w->n_values(w->user, b.entries[0]) : 0;
}

/* The next batch to whoever asks; false: there is none to give. */
static bool take(office *o, size_t *batch)
{
    (void)pthread_mutex_lock(&o->lock);
    bool some = o->error.status == DR_OK && o->next < o->w->n_batches;
    if (some) {
        *batch = o->next++;
        o->n_open++;
    }
    (void)pthread_mutex_unlock(&o->lock);
    return some;
}

/* Whether nothing is left to do or to wait for. */
static bool is_over(office *o)
{
    (void)pthread_mutex_lock(&o->lock);
    bool over = o->n_open == 0 && (o->error.status != DR_OK || o->next == o->w->n_batches);
    (void)pthread_mutex_unlock(&o->lock);
    return over;
}

/* Takes a batch back; st with the record of the calling thread. */
static void finish(office *o, size_t batch, dr_status st, const float *values)
{
    (void)pthread_mutex_lock(&o->lock);
    if (st == DR_OK && o->error.status == DR_OK) {
        st = o->w->accept(o->w->user, o->w->batches[batch], values);
    }
    if (st != DR_OK && o->error.status == DR_OK) {
        dr_error_export(&o->error);
    }
    o->n_open--;
    (void)pthread_mutex_unlock(&o->lock);
}

/* ---- the thread that answers the other ranks ---- */

static dr_status receive_report(office *o, int from, size_t bytes, char *buffer)
{
    report head;
    DR_TRY(dr_dist_receive(o->dist, from, buffer, bytes));
    memcpy(&head, buffer, sizeof head);
    if (head.batch >= 0) {
        if (head.error.status != DR_OK) {
            dr_error_import(&head.error);
        }
        finish(o, (size_t)head.batch, head.error.status,
               (const float *)(const void *)(buffer + sizeof head));
    }
    return DR_OK;
}

/* Gives rank r its next batch, or the end when all is done; *answered: it got one of the two. */
static dr_status answer(office *o, int r, int64_t *words, bool *answered, bool *ended)
{
    size_t batch = 0;
    *ended = false;
    *answered = take(o, &batch);
    if (*answered) {
        dr_encode_batch b = o->w->batches[batch];
        words[0] = (int64_t)batch;
        for (uint32_t i = 0; i < b.n; i++) {
            words[1 + i] = b.entries[i];
        }
        return dr_dist_send(o->dist, r, words, (1 + (size_t)b.n) * sizeof *words);
    }
    if (is_over(o)) {
        *answered = *ended = true;
        return dr_dist_send(o->dist, r, words, 0);
    }
    return DR_OK;
}

static dr_status serve(office *o, char *buffer, int64_t *words, bool *waiting)
{
    int world = dr_dist_world(o->dist);
    for (int n_ended = 0; n_ended < world - 1;) {
        int from = -1;
        size_t bytes = 0;
        DR_TRY(dr_dist_poll(o->dist, -1, &from, &bytes));
        if (from >= 0) {
            DR_TRY(receive_report(o, from, bytes, buffer));
            waiting[from] = true;
        } else {
            dr_dist_nap();
        }
        for (int r = 1; r < world; r++) {
            bool answered = false;
            bool ended = false;
            if (waiting[r]) {
                DR_TRY(answer(o, r, words, &answered, &ended));
                waiting[r] = !answered;
                n_ended += ended;
            }
        }
    }
    return DR_OK;
}

static void *serve_thread(void *user)
{
    office *o = user;
    char *buffer = dr_xcalloc(1, sizeof(report) + o->w->max_values * sizeof(float));
    int64_t *words = dr_xcalloc(1 + (size_t)o->w->max_entries, sizeof *words);
    bool *waiting = dr_xcalloc((size_t)dr_dist_world(o->dist), sizeof *waiting);
    dr_status st = serve(o, buffer, words, waiting);
    if (st != DR_OK) { /* the ranks cannot be reached: nobody could agree on anything */
        dr_dist_abort(o->dist, st);
    }
    free(buffer);
    free(words);
    free(waiting);
    return NULL;
}

static dr_status lead(dr_dist *d, const dr_encode_work *w)
{
    office o = {.dist = d, .w = w};
    pthread_t thread;
    bool others = dr_dist_world(d) > 1;
    (void)pthread_mutex_init(&o.lock, NULL);
    if (others && pthread_create(&thread, NULL, serve_thread, &o) != 0) {
        dr_dist_abort(d, dr_error_set(DR_NOMEM, __FILE__, __LINE__,
                                      "the thread that deals pictures cannot be started"));
    }
    float *values = dr_xcalloc(w->max_values, sizeof *values);
    for (size_t batch = 0; take(&o, &batch);) {
        finish(&o, batch, w->encode(w->user, w->batches[batch], values), values);
    }
    free(values);
    if (others) {
        (void)pthread_join(thread, NULL);
    }
    (void)pthread_mutex_destroy(&o.lock);
    if (o.error.status != DR_OK) {
        dr_error_import(&o.error);
    }
    return o.error.status;
}

/* ---- the other ranks ---- */

static dr_status follow(dr_dist *d, const dr_encode_work *w)
{
    report *head = dr_xcalloc(1, sizeof *head + w->max_values * sizeof(float));
    int64_t *words = dr_xcalloc(1 + (size_t)w->max_entries, sizeof *words);
    uint32_t *entries = dr_xcalloc(w->max_entries, sizeof *entries);
    size_t n_values = 0;
    size_t bytes = 0;
    int from = 0;
    dr_status st = DR_OK;
    head->batch = -1;
    do {
        st = dr_dist_send(d, 0, head, sizeof *head + n_values * sizeof(float));
        if (st == DR_OK) {
            st = dr_dist_wait(d, 0, &from, &bytes);
        }
        if (st == DR_OK) {
            st = dr_dist_receive(d, 0, words, bytes);
        }
        dr_encode_batch b = {entries, bytes > 0 ? (uint32_t)(bytes / sizeof *words - 1) : 0};
        for (uint32_t i = 0; i < b.n; i++) {
            entries[i] = (uint32_t)words[1 + i];
        }
        if (st == DR_OK && b.n > 0) {
            head->batch = words[0];
            dr_error_clear();
            bool good = w->encode(w->user, b, (float *)(head + 1)) == DR_OK;
            dr_error_export(&head->error);
            n_values = good ? values_of(w, b) : 0;
        }
    } while (st == DR_OK && bytes > 0);
    free(head);
    free(words);
    free(entries);
    return st;
}

dr_status dr_encode_all(dr_dist *d, const dr_encode_work *w)
{
    return dr_dist_rank(d) == 0 ? lead(d, w) : follow(d, w);
}
