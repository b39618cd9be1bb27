/*
 * Sums of gradients on GPUs, all of it enqueued on the data plane's stream: finished buckets of the
 * last local leaf are merged and exchanged while backward goes on.
 *
 * Strict: all-to-all of every rank's partial sums of a slice, added in the order of the tree, then
 * all slices to all ranks (spec launcher.md 7.3); the same bits as on the host. Otherwise a rank
 * adds up what it has and NCCL's all-reduce does the rest.
 */
#include "base/clock.h"
#include "dist/messages.h"
#include "dist/reducer_internal.h"

enum { WAIT_SECONDS = 1800, SPINS = 2000 };

/* Adds the pending left sums to [begin, end) of the current leaf's gradients. */
static dr_status merge_leaf(dr_reducer *r, const dr_leaf_plan *p, int64_t begin, int64_t end)
{
    const dr_data_plane *plane = r->c.plane;
    for (int k = 0; k < p->n_merged; k++) {
        DR_TRY(plane->add(r->c.grads + begin, r->slots[p->merged[k]] + begin, end - begin));
    }
    if (p->store != DR_GRADS_SLOT) {
        DR_TRY(plane->copy(r->slots[p->store] + begin, r->c.grads + begin, end - begin));
    }
    return DR_OK;
}

static dr_status exchange_fast(dr_reducer *r, int64_t begin, int64_t end)
{
    const dr_data_plane *plane = r->c.plane;
    const dr_partials *mine = &r->rank[r->dist->rank];
    for (int k = 0; k < mine->n; k++) {
        if (mine->slot[k] != DR_GRADS_SLOT) {
            DR_TRY(plane->add(r->c.grads + begin, dr_reducer_slot(r, mine->slot[k]) + begin,
                              end - begin));
        }
    }
    return dr_nccl_all_reduce(plane->nccl, r->c.grads + begin, end - begin, plane->stream);
}

/* All ranks' partials of my slice (n numbers each) into recv, in rank order. */
static dr_status gather_partials(dr_reducer *r, int64_t begin, int64_t end, int64_t n)
{
    const dr_data_plane *plane = r->c.plane;
    const dr_partials *mine = &r->rank[r->dist->rank];
    float *to = r->recv;
    DR_TRY(dr_nccl_group_begin(plane->nccl));
    for (int q = 0; q < r->dist->world; q++) {
        const int64_t from = dr_reducer_slice(r, end - begin, q);
        const int64_t length = dr_reducer_slice(r, end - begin, q + 1) - from;
        for (int k = 0; k < mine->n && q != r->dist->rank && length > 0; k++) {
            const float *data = dr_reducer_slot(r, mine->slot[k]) + begin + from;
            DR_TRY(dr_nccl_send(plane->nccl, data, length, q, plane->stream));
        }
        for (int k = 0; k < r->rank[q].n; k++, to += n) {
            if (q != r->dist->rank && n > 0) {
                DR_TRY(dr_nccl_recv(plane->nccl, to, n, q, plane->stream));
            }
        }
    }
    return dr_nccl_group_end(plane->nccl);
}

static dr_status copy_own_partials(dr_reducer *r, int64_t at, int64_t n)
{
    const dr_partials *mine = &r->rank[r->dist->rank];
    float *to = r->recv;
    for (int q = 0; q < r->dist->rank; q++) {
        to += r->rank[q].n * n;
    }
    for (int k = 0; k < mine->n && n > 0; k++) {
        DR_TRY(r->c.plane->copy(to + k * n, dr_reducer_slot(r, mine->slot[k]) + at, n));
    }
    return DR_OK;
}

/* Adds what is in recv in tree order; *total is where the sum is. */
static dr_status sum_slice(dr_reducer *r, int64_t n, float **total)
{
    dr_tree_stack s;
    int merged[DR_TREE_MAX_PARTIALS];
    int at = 0;
    dr_tree_stack_init(&s, r->c.n_leaves);
    for (int q = 0; q < r->dist->world; q++) {
        for (int k = 0; k < r->rank[q].n; k++, at++) {
            const int n_merged = dr_tree_stack_push(&s, r->rank[q].node[k], at, merged);
            for (int i = 0; i < n_merged && n > 0; i++) {
                DR_TRY(r->c.plane->add(r->recv + at * n, r->recv + merged[i] * n, n));
            }
        }
    }
    DR_CHECK(s.n == 1, "reducer: %d sums are left of a tree of %lld leaves", s.n,
             (long long)r->c.n_leaves);
    *total = r->recv + s.slot[0] * n;
    return DR_OK;
}

/* My slice's total to everybody, everybody's to [begin, end) of the gradients. */
static dr_status spread_totals(dr_reducer *r, int64_t begin, int64_t end, const float *total)
{
    const dr_data_plane *plane = r->c.plane;
    const int me = r->dist->rank;
    const int64_t my_from = dr_reducer_slice(r, end - begin, me);
    const int64_t my_n = dr_reducer_slice(r, end - begin, me + 1) - my_from;
    DR_TRY(dr_nccl_group_begin(plane->nccl));
    for (int q = 0; q < r->dist->world; q++) {
        const int64_t from = dr_reducer_slice(r, end - begin, q);
        const int64_t n = dr_reducer_slice(r, end - begin, q + 1) - from;
        if (q != me && my_n > 0) {
            DR_TRY(dr_nccl_send(plane->nccl, total, my_n, q, plane->stream));
        }
        if (q != me && n > 0) {
            DR_TRY(dr_nccl_recv(plane->nccl, r->c.grads + begin + from, n, q, plane->stream));
        }
    }
    DR_TRY(dr_nccl_group_end(plane->nccl));
    return my_n > 0 ? plane->copy(r->c.grads + begin + my_from, total, my_n) : DR_OK;
}

static dr_status exchange_strict(dr_reducer *r, int64_t begin, int64_t end)
{
    const int me = r->dist->rank;
    const int64_t my_from = dr_reducer_slice(r, end - begin, me);
    const int64_t n = dr_reducer_slice(r, end - begin, me + 1) - my_from;
    float *total = NULL;
    DR_TRY(gather_partials(r, begin, end, n));
    DR_TRY(copy_own_partials(r, begin + my_from, n));
    DR_TRY(sum_slice(r, n, &total));
    return spread_totals(r, begin, end, total);
}

static dr_status exchange_bucket(dr_reducer *r, int64_t begin, int64_t end)
{
    DR_TRY(r->c.plane->after_compute());
    DR_TRY(merge_leaf(r, &r->leaf[r->n_local - 1], begin, end));
    return r->c.plane->strict ? exchange_strict(r, begin, end) : exchange_fast(r, begin, end);
}

/* Until wait is called. */
static void keep(dr_reducer *r, dr_status st)
{
    r->status = st;
    if (st != DR_OK) {
        dr_error_export(&r->error);
    }
}

void dr_gpu_reducer_ready(dr_reducer *r)
{
    if (r->dist->world == 1 || r->i_leaf < r->n_local - 1) {
        return;
    }
    while (r->status == DR_OK && r->have > 0 && dr_reducer_bucket_begin(r, r->have) >= r->ready) {
        const int64_t begin = dr_reducer_bucket_begin(r, r->have);
        keep(r, exchange_bucket(r, begin, r->have));
        r->have = begin;
    }
}

static dr_status merge_whole_leaf(dr_reducer *r)
{
    const dr_leaf_plan *p = &r->leaf[r->i_leaf];
    if (p->n_merged == 0 && p->store == DR_GRADS_SLOT) {
        return DR_OK;
    }
    DR_TRY(r->c.plane->after_compute());
    DR_TRY(merge_leaf(r, p, 0, r->c.n_elems));
    return r->c.plane->before_compute(); /* the gradients are zeroed for the next leaf */
}

void dr_gpu_reducer_end_leaf(dr_reducer *r)
{
    if (r->dist->world > 1 && r->i_leaf == r->n_local - 1) {
        dr_gpu_reducer_ready(r);
    } else if (r->status == DR_OK) {
        keep(r, merge_whole_leaf(r));
    }
}

/* Looks at the stream and at NCCL until one of them has an answer. */
static dr_status poll(dr_reducer *r)
{
    const double limit_s = dr_dist_wait_limit(r->dist);
    const double wait_s = limit_s > 0.0 ? limit_s : WAIT_SECONDS;
    const double end = dr_now_s() + wait_s;
    bool done = false;
    for (int i = 0; !done; i++) {
        DR_TRY(r->c.plane->is_done(&done));
        DR_TRY(dr_nccl_poll(r->c.plane->nccl));
        if (!done && dr_now_s() > end) {
            dr_nccl_abort(r->c.plane->nccl);
            DR_FAIL(DR_HANG, "the exchange of gradients did not finish within %g s%s", wait_s,
                    limit_s > 0.0 ? " (--ddp_timeout)" : "");
        }
        if (!done && i > SPINS) {
            dr_dist_nap();
        }
    }
    return DR_OK;
}

/* A failure is everybody's: peers wait inside NCCL and cannot be asked. */
dr_status dr_gpu_reducer_wait(dr_reducer *r)
{
    dr_status st = r->status;
    if (st != DR_OK) {
        dr_error_import(&r->error);
    } else if (r->dist->world > 1) {
        st = r->c.plane->before_compute();
        if (st == DR_OK) {
            st = poll(r);
        }
    }
    if (st != DR_OK && r->dist->world > 1) {
        dr_dist_abort(r->dist, st);
    }
    return st;
}

dr_status dr_gpu_reducer_allocate(dr_reducer *r)
{
    const dr_device *device = r->c.plane->device;
    const size_t slice = (size_t)(dr_reducer_bucket(&r->c) / r->dist->world + 1) * sizeof(float);
    for (int i = 0; i < r->n_slots; i++) {
        DR_TRY(device->alloc((size_t)r->c.n_elems * sizeof(float), (void **)&r->slots[i]));
    }
    if (r->dist->world > 1 && r->c.plane->strict) {
        DR_TRY(device->alloc((size_t)dr_reducer_partials(r) * slice, (void **)&r->recv));
    }
    return DR_OK;
}

void dr_gpu_reducer_free(dr_reducer *r)
{
    for (int i = 0; i < r->n_slots; i++) {
        r->c.plane->device->free(r->slots[i]);
    }
    r->c.plane->device->free(r->recv);
}
