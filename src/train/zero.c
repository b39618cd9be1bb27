/*
 * --zero_stage 1: what each rank keeps of the optimizer's state, and how states and weights move
 * between ranks.
 *
 * Ranks keep consecutive whole tensors, about as many elements each. All ranks have all gradients
 * (their sum is that of the fixed tree, and clipping wants all of them), each steps on its own
 * tensors, and then the weights go around.
 */
#include "train/zero.h"

#include "dist/messages.h"
#include "dist/nccl.h"
#include "train/run_states.h"
#include "train/watchdog.h"

#include <stdlib.h>

enum { PIECE = 16 << 20 }; /* bytes of a message */

typedef enum request_kind { READ, WRITE, SHOW, HIDE, END } request_kind;

typedef struct request { /* of rank 0 */
    request_kind kind;
    uint64_t blob, at, bytes;
} request;

/* ---- who keeps what ----------------------------------------------------------------------------
 */

/* The parameter boundary nearest to element `want` of what is trained. */
static int64_t nearest_boundary(const dr_run *r, int64_t want)
{
    int64_t best = 0;
    for (int part = 0; part < 2; part++) {
        const dr_trained *t = &r->net.trained[part];
        for (size_t i = 0; t->set != NULL && i < t->set->n; i++) {
            const int64_t at = t->at + t->set->at[i]->offset;
            best = llabs(at - want) < llabs(best - want) ? at : best;
        }
    }
    return best;
}

static int keeper(const dr_run *r, int64_t at)
{
    int q = 0;
    while (q + 1 < dr_dist_world(r->dist) && r->zero_cut[q + 1] <= at) {
        q++;
    }
    return q;
}

void dr_zero_plan(dr_run *r)
{
    const int world = dr_dist_world(r->dist);
    if (r->c->zero_stage == 0 || world == 1) {
        return;
    }
    r->zero_cut = dr_arena_array(&r->arena, (size_t)world + 1, sizeof *r->zero_cut);
    for (int q = 1; q < world; q++) {
        r->zero_cut[q] = nearest_boundary(r, r->net.n_trained * q / world);
    }
    r->zero_cut[world] = r->net.n_trained;
    for (size_t g = 0; g < r->n_groups; g++) {
        dr_optim_group *group = &r->groups[g];
        int *owner = dr_arena_array(&r->arena, group->n, sizeof *owner);
        for (size_t i = 0; i < group->n; i++) {
            owner[i] = keeper(r, r->net.trained[r->group_part[g]].at + group->at[i]->offset);
        }
        group->owner = owner;
    }
}

/* ---- weights ------------------------------------------------------------------------------------
 */

/* Bytes of rank q's part of the trained weights. */
static char *part_of(const dr_run *r, int q, size_t *bytes)
{
    const dr_tensor all = dr_network_trained(&r->net);
    const size_t size = dr_dtype_size(all.dtype);
    *bytes = (size_t)(r->zero_cut[q + 1] - r->zero_cut[q]) * size;
    return (char *)all.data + (size_t)r->zero_cut[q] * size;
}

/* Parts are of whole tensors, whose places are multiples of 16 elements: any type is sent as
 * floats. */
static dr_status spread_by_nccl(const dr_run *r)
{
    const dr_data_plane *plane = r->c->plane;
    const int me = dr_dist_rank(r->dist);
    size_t mine = 0;
    const char *own = part_of(r, me, &mine);
    DR_TRY(plane->after_compute());
    DR_TRY(dr_nccl_group_begin(plane->nccl));
    for (int q = 0; q < dr_dist_world(r->dist); q++) {
        size_t n = 0;
        char *at = part_of(r, q, &n);
        if (q != me && mine > 0) {
            DR_TRY(dr_nccl_send(plane->nccl, (const float *)(const void *)own,
                                (int64_t)(mine / sizeof(float)), q, plane->stream));
        }
        if (q != me && n > 0) {
            DR_TRY(dr_nccl_recv(plane->nccl, (float *)(void *)at, (int64_t)(n / sizeof(float)), q,
                                plane->stream));
        }
    }
    DR_TRY(dr_nccl_group_end(plane->nccl));
    return plane->before_compute();
}

static dr_status spread_by_host(const dr_run *r)
{
    for (int q = 0; q < dr_dist_world(r->dist); q++) {
        size_t bytes = 0;
        char *at = part_of(r, q, &bytes);
        DR_TRY(dr_run_share(r, at, bytes, q));
    }
    return DR_OK;
}

/* Rates that only the rank that updates a group's first tensor knows. */
static dr_status spread_rates(dr_run *r)
{
    for (size_t g = 0; g < r->n_groups; g++) {
        double *rate = dr_optimizer_rate(r->optimizer, g);
        DR_TRY(dr_dist_bcast(r->dist, rate, sizeof *rate, r->groups[g].owner[0]));
    }
    return DR_OK;
}

dr_status dr_zero_spread(dr_run *r)
{
    if (r->zero_cut == NULL) {
        return DR_OK;
    }
    const dr_data_plane *plane = r->c->plane;
    DR_TRY(plane != NULL && plane->nccl != NULL ? spread_by_nccl(r) : spread_by_host(r));
    return r->c->optimizer.kind == DR_OPTIM_ADAFACTOR ? spread_rates(r) : DR_OK;
}

/* ---- states: rank 0 asks, the others serve ------------------------------------------------------
 */

static dr_status ask(const dr_run *r, int rank, request q)
{
    return dr_dist_send(r->dist, rank, &q, sizeof q);
}

static dr_status receive(const dr_run *r, int from, void *data, size_t bytes)
{
    int sender = -1;
    size_t found = 0;
    DR_TRY(dr_dist_wait(r->dist, from, &sender, &found));
    DR_CHECK(found == bytes, "a message of %zu bytes in place of %zu", found, bytes);
    return dr_dist_receive(r->dist, from, data, bytes);
}

dr_status dr_zero_read(const dr_run *r, size_t i, size_t at, void *data, size_t bytes)
{
    dr_optim_blob blob;
    dr_optimizer_blob(r->optimizer, i, &blob);
    if (blob.owner == dr_dist_rank(r->dist)) {
        return r->backend->device->download(data, (const char *)blob.data + at, bytes);
    }
    for (size_t done = 0; done < bytes; done += PIECE) {
        const size_t n = bytes - done < PIECE ? bytes - done : PIECE;
        DR_TRY(ask(r, blob.owner, (request){READ, i, at + done, n}));
        DR_TRY(receive(r, blob.owner, (char *)data + done, n));
    }
    return DR_OK;
}

dr_status dr_zero_write(const dr_run *r, size_t i, const void *data)
{
    dr_optim_blob blob;
    dr_optimizer_blob(r->optimizer, i, &blob);
    const size_t bytes = (size_t)blob.n * dr_dtype_size(blob.dtype);
    if (blob.owner == dr_dist_rank(r->dist)) {
        return r->backend->device->upload(blob.data, data, bytes);
    }
    for (size_t done = 0; done < bytes; done += PIECE) {
        const size_t n = bytes - done < PIECE ? bytes - done : PIECE;
        DR_TRY(ask(r, blob.owner, (request){WRITE, i, done, n}));
        DR_TRY(dr_dist_send(r->dist, blob.owner, (const char *)data + done, n));
    }
    return DR_OK;
}

static dr_status ask_all(const dr_run *r, request_kind kind)
{
    for (int q = 1; r->zero_cut != NULL && q < dr_dist_world(r->dist); q++) {
        DR_TRY(ask(r, q, (request){.kind = kind}));
    }
    return DR_OK;
}

dr_status dr_zero_show_weights(dr_run *r, bool on)
{
    DR_TRY(ask_all(r, on ? SHOW : HIDE));
    return dr_run_show_weights(r, on);
}

dr_status dr_zero_end(const dr_run *r, dr_status st)
{
    const dr_status end = ask_all(r, END);
    return st != DR_OK ? st : end;
}

static dr_status serve_one(dr_run *r, const request *q, void *piece)
{
    const dr_device *device = r->backend->device;
    dr_optim_blob blob;
    DR_CHECK(q->bytes <= PIECE, "a request of %llu bytes", (unsigned long long)q->bytes);
    dr_optimizer_blob(r->optimizer, (size_t)q->blob, &blob);
    char *at = (char *)blob.data + q->at;
    if (q->kind == READ) {
        DR_TRY(device->download(piece, at, q->bytes));
        return dr_dist_send(r->dist, 0, piece, q->bytes);
    }
    DR_TRY(receive(r, 0, piece, q->bytes));
    return device->upload(at, piece, q->bytes);
}

dr_status dr_zero_serve(dr_run *r)
{
    if (r->zero_cut == NULL) {
        return DR_OK;
    }
    void *piece = dr_xcalloc(1, PIECE);
    request q = {.kind = READ};
    dr_status st = DR_OK;
    while (st == DR_OK && q.kind != END) {
        st = receive(r, 0, &q, sizeof q);
        dr_watchdog_alive();
        if (st == DR_OK && (q.kind == SHOW || q.kind == HIDE)) {
            st = dr_run_show_weights(r, q.kind == SHOW);
        } else if (st == DR_OK && q.kind != END) {
            st = serve_one(r, &q, piece);
        }
    }
    free(piece);
    if (st != DR_OK) { /* rank 0 waits for an answer */
        dr_dist_abort(r->dist, st);
    }
    return DR_OK;
}
