#include "data/prefetch.h"

#include "base/arena.h"
#include "base/profile.h"
#include "base/thread_pool.h"

#include <stdlib.h>
#include <string.h>

typedef struct slot {
    dr_prefetch *owner;
    dr_prefetch_job job;
    dr_task task;
    float *pixels; /* grows to the largest picture */
    size_t n, capacity;
} slot;

struct dr_prefetch {
    dr_prefetch_config c;
    dr_thread_pool *pool;
    slot *slots; /* ring of c.n_ahead */
    size_t first, n;
};

static dr_status load_slot(void *arg)
{
    slot *s = arg;
    const dr_span span = dr_span_begin();
    const dr_status st = s->owner->c.load(s->owner->c.user, &s->job, s->pixels);
    dr_span_end(span, "picture", "data");
    return st;
}

dr_status dr_prefetch_create(const dr_prefetch_config *c, dr_prefetch **out)
{
    DR_CHECK(c->load != NULL && (c->n_threads == 0 || c->n_ahead >= 1), "%d threads, %zu ahead",
             c->n_threads, c->n_ahead);
    dr_prefetch *p = dr_xcalloc(1, sizeof *p);
    p->c = *c;
    p->c.n_ahead = c->n_threads > 0 ? c->n_ahead : 0;
    p->slots = dr_xcalloc(p->c.n_ahead + 1, sizeof *p->slots);
    dr_status st = dr_thread_pool_create(c->n_threads, &p->pool);
    if (st != DR_OK) {
        dr_prefetch_destroy(p);
        return st;
    }
    *out = p;
    return DR_OK;
}

/* Waits for the oldest job; its place is free afterwards. */
static dr_status finish_first(dr_prefetch *p)
{
    dr_status st = dr_thread_pool_wait(p->pool, &p->slots[p->first].task);
    p->first = (p->first + 1) % p->c.n_ahead;
    p->n--;
    return st;
}

/* A job nobody needs any more, or whose failure nobody will meet. */
static void drop_first(dr_prefetch *p)
{
    if (finish_first(p) != DR_OK) {
        dr_error_clear();
    }
}

void dr_prefetch_destroy(dr_prefetch *p)
{
    if (p == NULL) {
        return;
    }
    dr_error_copy kept;
    dr_error_export(&kept); /* a failure that brought us here stays on record */
    while (p->n > 0) {
        drop_first(p);
    }
    dr_error_import(&kept);
    dr_thread_pool_destroy(p->pool);
    for (size_t i = 0; i < p->c.n_ahead; i++) {
        free(p->slots[i].pixels);
    }
    free(p->slots);
    free(p);
}

bool dr_prefetch_is_on(const dr_prefetch *p)
{
    return p->c.n_ahead > 0;
}

bool dr_prefetch_add(dr_prefetch *p, const dr_prefetch_job *job, size_t n)
{
    if (p->n == p->c.n_ahead) {
        return false;
    }
    slot *s = &p->slots[(p->first + p->n) % p->c.n_ahead];
    if (s->capacity < n) {
        s->pixels = dr_xrealloc(s->pixels, n, sizeof *s->pixels);
        s->capacity = n;
    }
    s->owner = p;
    s->job = *job;
    s->n = n;
    s->task = (dr_task){.run = load_slot, .arg = s};
    p->n++;
    dr_thread_pool_submit(p->pool, &s->task);
    return true;
}

static bool is_same(const dr_prefetch_job *a, const dr_prefetch_job *b)
{
    return a->image == b->image && a->sample == b->sample && a->epoch == b->epoch &&
           a->flip == b->flip;
}

static bool is_announced(const dr_prefetch *p, const dr_prefetch_job *job)
{
    for (size_t i = 0; i < p->n; i++) {
        if (is_same(&p->slots[(p->first + i) % p->c.n_ahead].job, job)) {
            return true;
        }
    }
    return false;
}

dr_status dr_prefetch_take(dr_prefetch *p, const dr_prefetch_job *job, size_t n, float *out)
{
    if (!is_announced(p, job)) {
        return p->c.load(p->c.user, job, out);
    }
    while (!is_same(&p->slots[p->first].job, job)) {
        drop_first(p);
    }
    const slot *s = &p->slots[p->first];
    DR_CHECK(s->n == n, "%zu floats announced, %zu taken", s->n, n);
    DR_TRY(finish_first(p));
    memcpy(out, s->pixels, n * sizeof *out);
    return DR_OK;
}
