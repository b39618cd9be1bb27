#include "dist/reducer.h"

#include "base/arena.h"
#include "base/profile.h"
#include "dist/reducer_internal.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_BUCKET_ELEMS = 4 << 20 };

/* Slots and additions of one rank's leaves; returns the number of slots needed. */
static int plan_rank(int64_t n_leaves, int64_t begin, int64_t end, dr_leaf_plan *leaf,
                     dr_partials *out)
{
    dr_tree_stack s;
    bool used[DR_REDUCER_MAX_SLOTS] = {false};
    int n_slots = 0;
    dr_tree_stack_init(&s, n_leaves);
    for (int64_t i = begin; i < end; i++) {
        dr_leaf_plan p = {.store = DR_GRADS_SLOT};
        int at = DR_GRADS_SLOT;
        p.n_merged = dr_tree_stack_push(&s, (dr_tree_node){.index = i}, at, p.merged);
        for (int k = 0; k < p.n_merged; k++) {
            used[p.merged[k]] = false;
        }
        if (i + 1 < end) { /* the gradients' memory is needed again */
            at = 0;
            while (used[at]) {
                at++;
            }
            DR_CHECK(at < DR_REDUCER_MAX_SLOTS, "reducer: %d partial sums", at);
            used[at] = true;
            n_slots = at + 1 > n_slots ? at + 1 : n_slots;
            s.slot[s.n - 1] = at;
            p.store = at;
        }
        if (leaf != NULL) {
            leaf[i - begin] = p;
        }
    }
    out->n = s.n;
    memcpy(out->node, s.node, sizeof out->node);
    memcpy(out->slot, s.slot, sizeof out->slot);
    return n_slots;
}

int64_t dr_reducer_bucket(const dr_reducer_config *c)
{
    int64_t want = c->bucket_elems > 0 ? c->bucket_elems : DEFAULT_BUCKET_ELEMS;
    return want < c->n_elems ? want : c->n_elems;
}

int64_t dr_reducer_slice(const dr_reducer *r, int64_t n, int q)
{
    return n * q / r->dist->world;
}

int dr_reducer_partials(const dr_reducer *r)
{
    int n = 0;
    for (int q = 0; q < r->dist->world; q++) {
        n += r->rank[q].n;
    }
    return n;
}

size_t dr_reducer_plan_bytes(const dr_dist *d, const dr_reducer_config *c)
{
    int64_t begin, end;
    dr_partials p;
    size_t floats = 0;
    int total = 0;
    for (int q = 0; q < d->world; q++) {
        dr_tree_share(c->n_leaves, d->world, q, &begin, &end);
        int n_slots = plan_rank(c->n_leaves, begin, end, NULL, &p);
        total += p.n;
        if (q == d->rank) {
            floats += (size_t)n_slots * (size_t)c->n_elems;
            floats +=
                d->world > 1 && c->plane == NULL ? (size_t)p.n * (size_t)dr_reducer_bucket(c) : 0;
        }
    }
    if (d->world > 1 && (c->plane == NULL || c->plane->strict)) {
        floats += (size_t)total * (size_t)(dr_reducer_bucket(c) / d->world + 1);
    }
    return floats * sizeof(float);
}

/* ---- exchange of one range (communication thread, or the caller when alone) ----------------- */

static void add_into(float *restrict sum, const float *restrict left, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        sum[i] = left[i] + sum[i];
    }
}

float *dr_reducer_slot(dr_reducer *r, int slot)
{
    return slot == DR_GRADS_SLOT ? r->c.grads : r->slots[slot];
}

/* Adds the pending left sums to [begin, end) of the current leaf's gradients. */
static void merge_leaf(dr_reducer *r, const dr_leaf_plan *p, int64_t begin, int64_t end)
{
    for (int k = 0; k < p->n_merged; k++) {
        add_into(r->c.grads + begin, r->slots[p->merged[k]] + begin, end - begin);
    }
    if (p->store != DR_GRADS_SLOT) {
        memcpy(r->slots[p->store] + begin, r->c.grads + begin,
               (size_t)(end - begin) * sizeof(float));
    }
}

/* Sums all ranks' partials of my slice (recv, n floats each) in tree order; returns the total. */
static float *sum_slice(dr_reducer *r, int64_t n)
{
    dr_tree_stack s;
    int merged[DR_TREE_MAX_PARTIALS];
    int at = 0;
    dr_tree_stack_init(&s, r->c.n_leaves);
    for (int q = 0; q < r->dist->world; q++) {
        for (int k = 0; k < r->rank[q].n; k++, at++) {
            int n_merged = dr_tree_stack_push(&s, r->rank[q].node[k], at, merged);
            for (int i = 0; i < n_merged; i++) {
                add_into(r->recv + (int64_t)at * n, r->recv + (int64_t)merged[i] * n, n);
            }
        }
    }
    DR_CHECK(s.n == 1, "reducer: %d sums are left of a tree of %lld leaves", s.n,
             (long long)r->c.n_leaves);
    return r->recv + (int64_t)s.slot[0] * n;
}

static const char exchange_name[] = "the exchange of gradients";

static dr_status exchange(dr_reducer *r, int64_t begin, int64_t end)
{
    dr_dist *d = r->dist;
    const dr_partials *mine = &r->rank[d->rank];
    int *send_n = r->counts;
    int *send_at = send_n + d->world;
    int *recv_n = send_at + d->world;
    int *recv_at = recv_n + d->world;
    int64_t n = end - begin;
    int64_t my_n = dr_reducer_slice(r, n, d->rank + 1) - dr_reducer_slice(r, n, d->rank);
    int64_t sent = 0;
    int64_t received = 0;
    for (int q = 0; q < d->world; q++) {
        int64_t from = dr_reducer_slice(r, n, q);
        int64_t len = dr_reducer_slice(r, n, q + 1) - from;
        send_at[q] = (int)sent;
        send_n[q] = (int)(len * mine->n);
        recv_at[q] = (int)received;
        recv_n[q] = (int)(my_n * r->rank[q].n);
        for (int k = 0; k < mine->n; k++) {
            memcpy(r->send + sent, dr_reducer_slot(r, mine->slot[k]) + begin + from,
                   (size_t)len * sizeof(float));
            sent += len;
        }
        received += recv_n[q];
    }
    DR_MPI_WAIT(d, DR_WAIT_GRADIENTS, exchange_name,
                MPI_Alltoallv(r->send, send_n, send_at, MPI_FLOAT, r->recv, recv_n, recv_at,
                              MPI_FLOAT, d->gradients));
    const float *total = sum_slice(r, my_n);
    for (int q = 0; q < d->world; q++) {
        recv_at[q] = (int)dr_reducer_slice(r, n, q);
        recv_n[q] = (int)(dr_reducer_slice(r, n, q + 1) - recv_at[q]);
    }
    DR_MPI_WAIT(d, DR_WAIT_GRADIENTS, exchange_name,
                MPI_Allgatherv(total, (int)my_n, MPI_FLOAT, r->c.grads + begin, recv_n, recv_at,
                               MPI_FLOAT, d->gradients));
    return DR_OK;
}

int64_t dr_reducer_bucket_begin(const dr_reducer *r, int64_t end)
{
    return end > dr_reducer_bucket(&r->c) ? end - dr_reducer_bucket(&r->c) : 0;
}

static bool bucket_is_ready(const dr_reducer *r)
{
    return r->have > 0 && dr_reducer_bucket_begin(r, r->have) >= r->want;
}

static void *communicate(void *arg)
{
    dr_reducer *r = arg;
    dr_profile_thread("gradients");
    (void)pthread_mutex_lock(&r->lock);
    for (;;) {
        while (!r->stop && !bucket_is_ready(r)) {
            (void)pthread_cond_wait(&r->changed, &r->lock);
        }
        if (r->stop) {
            break;
        }
        int64_t end = r->have;
        int64_t begin = dr_reducer_bucket_begin(r, end);
        dr_status st = r->status;
        (void)pthread_mutex_unlock(&r->lock);
        if (st == DR_OK) {
            const dr_span span = dr_span_begin();
            merge_leaf(r, &r->leaf[r->n_local - 1], begin, end);
            st = exchange(r, begin, end);
            if (st != DR_OK) {
                dr_error_export(&r->error);
            }
            dr_span_end_n(span, "bucket", "reduce", begin);
        }
        (void)pthread_mutex_lock(&r->lock);
        r->status = st;
        r->have = begin;
        (void)pthread_cond_broadcast(&r->changed);
    }
    (void)pthread_mutex_unlock(&r->lock);
    return NULL;
}

/* ---- the compute thread's side --------------------------------------------------------------- */

static dr_status allocate(dr_reducer *r)
{
    dr_dist *d = r->dist;
    if (r->c.plane != NULL) {
        return dr_gpu_reducer_allocate(r);
    }
    for (int i = 0; i < r->n_slots; i++) {
        DR_TRY(dr_try_calloc((size_t)r->c.n_elems, sizeof(float), (void **)&r->slots[i]));
    }
    if (d->world == 1) {
        return DR_OK;
    }
    size_t bucket = (size_t)dr_reducer_bucket(&r->c);
    size_t slice = bucket / (size_t)d->world + 1;
    DR_TRY(dr_try_calloc((size_t)r->rank[d->rank].n * bucket, sizeof(float), (void **)&r->send));
    DR_TRY(dr_try_calloc((size_t)dr_reducer_partials(r) * slice, sizeof(float), (void **)&r->recv));
    r->counts = dr_xcalloc((size_t)d->world * 4, sizeof(int));
    if ((size_t)r->rank[d->rank].n * bucket > INT_MAX ||
        (size_t)dr_reducer_partials(r) * slice > INT_MAX) {
        DR_FAIL(DR_INVALID, "gradient buckets of %zu elements are too large for %d ranks", bucket,
                d->world);
    }
    if (pthread_create(&r->thread, NULL, communicate, r) != 0) {
        DR_FAIL(DR_NOMEM, "cannot start the communication thread");
    }
    r->has_thread = true;
    return DR_OK;
}

dr_status dr_reducer_create(dr_dist *d, const dr_reducer_config *c, dr_reducer **out)
{
    if (c->n_leaves < d->world) {
        DR_FAIL(DR_INVALID,
                "%lld shards cannot be shared by %d ranks: give --virtual_shards at "
                "least the number of ranks",
                (long long)c->n_leaves, d->world);
    }
    dr_reducer *r = dr_xcalloc(1, sizeof *r);
    r->dist = d;
    r->c = *c;
    (void)pthread_mutex_init(&r->lock, NULL);
    (void)pthread_cond_init(&r->changed, NULL);
    r->rank = dr_xcalloc((size_t)d->world, sizeof *r->rank);
    for (int q = 0; q < d->world; q++) {
        int64_t begin, end;
        dr_tree_share(c->n_leaves, d->world, q, &begin, &end);
        dr_leaf_plan *leaf = NULL;
        if (q == d->rank) {
            r->first_leaf = begin;
            r->n_local = end - begin;
            leaf = r->leaf = dr_xcalloc((size_t)r->n_local, sizeof *leaf);
        }
        int n_slots = plan_rank(c->n_leaves, begin, end, leaf, &r->rank[q]);
        r->n_slots = q == d->rank ? n_slots : r->n_slots;
    }
    dr_status st = allocate(r);
    if (st != DR_OK) {
        dr_reducer_destroy(r);
        return st;
    }
    *out = r;
    return DR_OK;
}

void dr_reducer_destroy(dr_reducer *r)
{
    if (r == NULL) {
        return;
    }
    if (r->has_thread) {
        (void)pthread_mutex_lock(&r->lock);
        r->stop = true;
        (void)pthread_cond_broadcast(&r->changed);
        (void)pthread_mutex_unlock(&r->lock);
        (void)pthread_join(r->thread, NULL);
    }
    if (r->c.plane != NULL) {
        dr_gpu_reducer_free(r);
    } else {
        for (int i = 0; i < r->n_slots; i++) {
            free(r->slots[i]);
        }
        free(r->recv);
    }
    free(r->send);
    free(r->counts);
    free(r->leaf);
    free(r->rank);
    (void)pthread_cond_destroy(&r->changed);
    (void)pthread_mutex_destroy(&r->lock);
    free(r);
}

void dr_reducer_leaves(const dr_reducer *r, int64_t *first, int64_t *n)
{
    *first = r->first_leaf;
    *n = r->n_local;
}

void dr_reducer_begin_step(dr_reducer *r)
{
    r->i_leaf = 0;
    r->ready = r->c.n_elems;
    (void)pthread_mutex_lock(&r->lock);
    r->want = r->c.n_elems;
    r->have = r->c.n_elems;
    (void)pthread_mutex_unlock(&r->lock);
}

/* Hands everything above `ready` to the communication thread. */
static void publish(dr_reducer *r)
{
    (void)pthread_mutex_lock(&r->lock);
    r->want = r->ready;
    (void)pthread_cond_broadcast(&r->changed);
    (void)pthread_mutex_unlock(&r->lock);
}

void dr_reducer_ready(dr_reducer *r, int64_t begin, int64_t end)
{
    DR_CHECK(r->i_leaf < r->n_local, "reducer: range [%lld, %lld) after the last leaf",
             (long long)begin, (long long)end);
    DR_CHECK(end == r->ready && 0 <= begin && begin <= end,
             "reducer: range [%lld, %lld) after %lld", (long long)begin, (long long)end,
             (long long)r->ready);
    r->ready = begin;
    if (r->c.plane != NULL) {
        dr_gpu_reducer_ready(r);
    } else if (r->has_thread && r->i_leaf == r->n_local - 1) {
        publish(r);
    }
}

void dr_reducer_end_leaf(dr_reducer *r)
{
    DR_CHECK(r->i_leaf < r->n_local, "reducer: leaf %lld of %lld", (long long)r->i_leaf + 1,
             (long long)r->n_local);
    bool last = r->i_leaf == r->n_local - 1;
    r->ready = 0;
    if (r->c.plane != NULL) {
        dr_gpu_reducer_end_leaf(r);
    } else if (last && r->has_thread) {
        publish(r);
    } else {
        merge_leaf(r, &r->leaf[r->i_leaf], 0, r->c.n_elems);
    }
    r->i_leaf++;
    r->ready = last ? 0 : r->c.n_elems;
}

dr_status dr_reducer_wait(dr_reducer *r)
{
    DR_CHECK(r->i_leaf == r->n_local, "reducer: %lld of %lld leaves are done", (long long)r->i_leaf,
             (long long)r->n_local);
    if (r->c.plane != NULL) {
        return dr_gpu_reducer_wait(r);
    }
    if (!r->has_thread) {
        return DR_OK;
    }
    (void)pthread_mutex_lock(&r->lock);
    while (r->have > 0) {
        (void)pthread_cond_wait(&r->changed, &r->lock);
    }
    dr_status st = r->status;
    (void)pthread_mutex_unlock(&r->lock);
    if (st != DR_OK) {
        dr_error_import(&r->error);
    }
    return st;
}
