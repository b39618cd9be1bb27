/*
 * Whether all ranks still hold the same weights (spec launcher.md 4, silent data corruption).
 */
#include "ops/optimizer_ops.h"
#include "train/run_alarms.h"

#include <stdlib.h>
#include <string.h>

enum { PARTS = DR_CHECKSUM_PARTS };

typedef struct weight { /* one tensor that every rank holds */
    const char *network, *name;
    const dr_tensor *values;
} weight;

typedef struct weights {
    weight *at;
    size_t n;
} weights;

static void add_set(weights *w, const char *network, const dr_params *set)
{
    for (size_t i = 0; i < set->n; i++) {
        const dr_param *p = set->at[i];
        w->at[w->n++] = (weight){network, p->name, &p->value};
        if (p->master.data != p->value.data) {
            w->at[w->n++] = (weight){network, p->name, &p->master};
        }
    }
}

/* What the networks read, and what an optimizer steps on where that is another memory. */
static void list_weights(const dr_run *r, weights *w)
{
    const dr_network *net = &r->net;
    const size_t in_lora = net->lora != NULL ? net->lora->set[0].n + net->lora->set[1].n : 0;
    w->at = dr_xcalloc(2 * (net->text_params.n + net->unet_params.n + in_lora), sizeof *w->at);
    w->n = 0;
    add_set(w, "text encoder", &net->text_params);
    add_set(w, "U-Net", &net->unet_params);
    for (int part = 0; net->lora != NULL && part < 2; part++) {
        add_set(w, "LoRA", &net->lora->set[part]);
    }
}

/* sums (w->n, PARTS) on the host; not written on a dry context. */
static dr_status sum_weights(dr_context *cx, const weights *w, double *sums)
{
    const dr_frame f = dr_frame_begin(cx);
    const dr_tensor all = dr_new_typed(cx, f, DR_F64, 2, DR_DIMS((int64_t)w->n, PARTS));
    dr_status st = dr_zero(cx, &all);
    for (size_t i = 0; st == DR_OK && i < w->n; i++) {
        dr_tensor one = dr_tensor_of((double *)all.data + i * PARTS, DR_F64, 1, DR_DIMS(PARTS));
        st = dr_checksum(cx, &(dr_checksum_args){.x = w->at[i].values, .out = &one});
    }
    if (st == DR_OK) {
        st = dr_download(cx, &all, sums);
    }
    dr_frame_end(cx, f);
    return st;
}

/* The rank whose hash most ranks have, the first of equals. */
static int common_rank(const dr_xxh3 *hash, int world, int *n_equal)
{
    int best = 0;
    *n_equal = 0;
    for (int r = 0; r < world; r++) {
        int n = 0;
        for (int q = 0; q < world; q++) {
            n += dr_xxh3_equal(hash[q], hash[r]) ? 1 : 0;
        }
        if (n > *n_equal) {
            best = r;
            *n_equal = n;
        }
    }
    return best;
}

/* The first tensor in which two ranks differ, and how many do. */
static const weight *first_difference(const weights *w, const double *a, const double *b, size_t *n)
{
    const weight *first = NULL;
    *n = 0;
    for (size_t i = 0; i < w->n; i++) {
        if (memcmp(a + i * PARTS, b + i * PARTS, PARTS * sizeof *a) != 0) {
            first = first != NULL ? first : &w->at[i];
            ++*n;
        }
    }
    DR_CHECK(first != NULL, "equal checksums with unequal hashes");
    return first;
}

/* all: every rank's sums. */
static dr_status name_difference(const dr_run *r, const weights *w, const dr_xxh3 *hash,
                                 const double *all)
{
    const int world = dr_dist_world(r->dist);
    int n_equal = 0;
    const int common = common_rank(hash, world, &n_equal);
    int odd = 0;
    while (dr_xxh3_equal(hash[odd], hash[common])) {
        odd++;
    }
    size_t n = 0;
    const size_t row = w->n * PARTS;
    const weight *first =
        first_difference(w, all + (size_t)odd * row, all + (size_t)common * row, &n);
    DR_FAIL(DR_NUMERIC,
            "step %lld: rank %d has other weights than rank %d%s: %zu of %zu tensors differ, the "
            "first is %s of the %s. After step %lld all ranks were equal: a memory, a GPU or a "
            "link is at fault. Check it, then go on with --resume from a state of that step or "
            "before",
            (long long)r->step, odd, common,
            n_equal > 1 ? " and most others" : " (which of them is right cannot be told)", n, w->n,
            first->name, first->network, (long long)r->equal_at_step);
}

/* mine: this rank's sums. */
static dr_status compare(dr_run *r, const weights *w, const double *mine)
{
    const size_t world = (size_t)dr_dist_world(r->dist);
    const size_t bytes = w->n * PARTS * sizeof *mine;
    const dr_xxh3 own = dr_xxh3_bytes(mine, bytes);
    dr_xxh3 *hash = dr_xcalloc(world, sizeof *hash);
    dr_status st = dr_dist_allgather(r->dist, &own, hash, sizeof own);
    bool equal = true;
    for (size_t q = 1; q < world; q++) {
        equal = equal && dr_xxh3_equal(hash[0], hash[q]);
    }
    if (st == DR_OK && !equal) {
        double *all = dr_xcalloc(world, bytes);
        st = dr_dist_allgather(r->dist, mine, all, bytes);
        if (st == DR_OK) {
            st = name_difference(r, w, hash, all);
        }
        free(all);
    }
    free(hash);
    return st;
}

dr_status dr_run_plan_rank_check(const dr_run *r, dr_context *dry)
{
    weights w;
    list_weights(r, &w);
    const dr_status st = sum_weights(dry, &w, NULL);
    free(w.at);
    return st;
}

dr_status dr_run_check_ranks(dr_run *r, bool saving)
{
    const int64_t every = r->c->check_ranks_every;
    if (dr_dist_world(r->dist) == 1 || every == 0 || r->equal_at_step == r->step ||
        (!saving && r->step % every != 0 && r->step != r->n_steps)) {
        return DR_OK;
    }
    dr_context cx;
    weights w;
    dr_context_init(&cx, r->backend, r->pool, r->c->threads);
    list_weights(r, &w);
    double *sums = dr_xcalloc(w.n * PARTS, sizeof *sums);
    dr_status st = dr_dist_agree(r->dist, sum_weights(&cx, &w, sums));
    if (st == DR_OK) {
        st = compare(r, &w, sums);
    }
    free(sums);
    free(w.at);
    r->equal_at_step = st == DR_OK ? r->step : r->equal_at_step;
    return st;
}
