#include "data/epoch_plan.h"

#include "base/philox.h"

#include <stdlib.h>
#include <string.h>

/* The item number of the stream that permutes the steps; bucket numbers are 32 bits. */
#define STEP_ORDER_ITEM UINT64_MAX

static uint32_t ceil_div(uint32_t a, uint32_t b)
{
    return a / b + (a % b != 0);
}

uint32_t dr_bucket_batch(const dr_bucket *b, uint32_t batch_size)
{
    return b->batch_size > 0 ? b->batch_size : batch_size;
}

static uint32_t leaves_of(const dr_bucket *b, uint32_t batch_size)
{
    return ceil_div(b->n_samples, dr_bucket_batch(b, batch_size));
}

static uint32_t count_leaves(const dr_dataset *d, uint32_t batch_size)
{
    uint32_t n = 0;
    for (size_t i = 0; i < d->n_buckets; i++) {
        n += leaves_of(&d->buckets[i], batch_size);
    }
    return n;
}

uint32_t dr_steps_per_epoch(const dr_dataset *dataset, uint32_t batch_size, uint32_t n_leaves)
{
    DR_CHECK(batch_size >= 1 && n_leaves >= 1, "batch size %lu, %lu leaves",
             (unsigned long)batch_size, (unsigned long)n_leaves);
    return ceil_div(count_leaves(dataset, batch_size), n_leaves);
}

static void shuffle_samples(dr_philox *random, dr_sample_ref *at, uint32_t n)
{
    for (uint32_t i = n; i > 1; i--) {
        uint32_t j = dr_philox_below(random, i);
        dr_sample_ref t = at[i - 1];
        at[i - 1] = at[j];
        at[j] = t;
    }
}

/* All samples, bucket after bucket, in canonical order inside each; first[b] is where b starts. */
static void deal_samples(const dr_dataset *d, dr_sample_ref *samples, uint32_t *first)
{
    uint32_t at = 0;
    for (size_t b = 0; b < d->n_buckets; b++) {
        first[b] = at;
        at += d->buckets[b].n_samples;
    }
    for (size_t i = 0; i < d->n_images; i++) {
        const dr_dataset_image *image = &d->images[i];
        for (uint32_t r = 0; r < image->repeats; r++) {
            samples[first[image->bucket]++] =
                (dr_sample_ref){(uint32_t)i, r, image->first_sample + r};
        }
    }
    for (size_t b = 0; b < d->n_buckets; b++) {
        first[b] -= d->buckets[b].n_samples;
    }
}

typedef struct bucket_rank { /* for ordering buckets by the cost of one leaf */
    int64_t area;            /* of a full batch */
    uint32_t bucket;
} bucket_rank;

static int compare_ranks(const void *a, const void *b)
{
    const bucket_rank *x = a;
    const bucket_rank *y = b;
    if (x->area != y->area) {
        return x->area < y->area ? -1 : 1;
    }
    return (x->bucket > y->bucket) - (x->bucket < y->bucket);
}

/* Buckets by area: leaves that share a step then cost about the same. */
static void rank_buckets(const dr_dataset *d, uint32_t batch_size, bucket_rank *ranks)
{
    for (size_t b = 0; b < d->n_buckets; b++) {
        dr_size_px size = d->buckets[b].size;
        int64_t n = dr_bucket_batch(&d->buckets[b], batch_size);
        ranks[b] = (bucket_rank){size.w * n * size.h, (uint32_t)b};
    }
    qsort(ranks, d->n_buckets, sizeof *ranks, compare_ranks);
}

typedef struct cutter { /* cuts buckets into leaves */
    const dr_dataset *d;
    const dr_epoch_plan_options *o;
    dr_epoch_plan *plan;
    const uint32_t *first;
    const bucket_rank *ranks;
    uint32_t n_leaves; /* so far */
} cutter;

/* Appends leaves [from, to) of a bucket. */
static void cut_leaves(cutter *c, uint32_t bucket, uint32_t from, uint32_t to)
{
    uint32_t n = c->d->buckets[bucket].n_samples;
    uint32_t batch = dr_bucket_batch(&c->d->buckets[bucket], c->o->batch_size);
    for (uint32_t i = from; i < to; i++) {
        uint32_t start = i * batch;
        c->plan->leaves[c->n_leaves++] =
            (dr_leaf){.samples = c->plan->samples + c->first[bucket] + start,
                      .n = n - start < batch ? n - start : batch,
                      .bucket = bucket};
    }
}

/* Leaves in the order of unshuffled steps: whole steps of one bucket, then what is left over. */
static void order_leaves(cutter *c)
{
    uint32_t per_step = c->o->n_leaves;
    for (size_t b = 0; b < c->d->n_buckets; b++) {
        uint32_t n = leaves_of(&c->d->buckets[b], c->o->batch_size);
        cut_leaves(c, (uint32_t)b, 0, n - n % per_step);
    }
    for (size_t i = 0; i < c->d->n_buckets; i++) {
        uint32_t b = c->ranks[i].bucket;
        uint32_t n = leaves_of(&c->d->buckets[b], c->o->batch_size);
        cut_leaves(c, b, n - n % per_step, n);
    }
}

static void group_steps(dr_epoch_plan *plan, uint32_t per_step)
{
    for (uint32_t s = 0; s < plan->n_steps; s++) {
        uint32_t from = s * per_step;
        uint32_t left = plan->n_leaves - from;
        dr_step *step = &plan->steps[s];
        *step = (dr_step){.leaves = plan->leaves + from,
                          .n_leaves = left < per_step ? left : per_step,
                          .one_bucket = true};
        for (uint32_t i = 0; i < step->n_leaves; i++) {
            step->n_samples += step->leaves[i].n;
            step->one_bucket = step->one_bucket && step->leaves[i].bucket == step->leaves[0].bucket;
        }
    }
}

static void shuffle_steps(dr_epoch_plan *plan, const dr_epoch_plan_options *o)
{
    dr_philox random;
    dr_philox_init(&random, o->seed, DR_RANDOM_SHUFFLE, o->epoch, STEP_ORDER_ITEM);
    for (uint32_t i = plan->n_steps; i > 1; i--) {
        uint32_t j = dr_philox_below(&random, i);
        dr_step t = plan->steps[i - 1];
        plan->steps[i - 1] = plan->steps[j];
        plan->steps[j] = t;
    }
}

static void fill_plan(dr_epoch_plan *plan, const dr_dataset *d, const dr_epoch_plan_options *o,
                      uint32_t *first, bucket_rank *ranks)
{
    deal_samples(d, plan->samples, first);
    for (size_t b = 0; b < d->n_buckets; b++) {
        dr_philox random;
        dr_philox_init(&random, o->seed, DR_RANDOM_SHUFFLE, o->epoch, b);
        shuffle_samples(&random, plan->samples + first[b], d->buckets[b].n_samples);
    }
    rank_buckets(d, o->batch_size, ranks);
    cutter c = {.d = d, .o = o, .plan = plan, .first = first, .ranks = ranks};
    order_leaves(&c);
    DR_CHECK(c.n_leaves == plan->n_leaves, "%lu leaves cut, %lu counted", (unsigned long)c.n_leaves,
             (unsigned long)plan->n_leaves);
    group_steps(plan, o->n_leaves);
    shuffle_steps(plan, o);
}

static dr_status allocate(dr_epoch_plan *plan)
{
    void *p = NULL;
    DR_TRY(dr_try_calloc(plan->n_samples, sizeof *plan->samples, &p));
    plan->samples = p;
    DR_TRY(dr_try_calloc(plan->n_leaves, sizeof *plan->leaves, &p));
    plan->leaves = p;
    DR_TRY(dr_try_calloc(plan->n_steps, sizeof *plan->steps, &p));
    plan->steps = p;
    return DR_OK;
}

dr_status dr_epoch_plan_build(dr_epoch_plan *plan, const dr_dataset *dataset,
                              const dr_epoch_plan_options *o)
{
    DR_CHECK(o->epoch >= 1 && dataset->n_samples >= 1, "epoch %lu of %lu samples",
             (unsigned long)o->epoch, (unsigned long)dataset->n_samples);
    *plan = (dr_epoch_plan){.n_steps = dr_steps_per_epoch(dataset, o->batch_size, o->n_leaves),
                            .n_leaves = count_leaves(dataset, o->batch_size),
                            .n_samples = dataset->n_samples};
    dr_status st = allocate(plan);
    if (st != DR_OK) {
        dr_epoch_plan_deinit(plan);
        return st;
    }
    uint32_t *first = dr_xcalloc(dataset->n_buckets, sizeof *first);
    bucket_rank *ranks = dr_xcalloc(dataset->n_buckets, sizeof *ranks);
    fill_plan(plan, dataset, o, first, ranks);
    free(first);
    free(ranks);
    return DR_OK;
}

void dr_epoch_plan_deinit(dr_epoch_plan *plan)
{
    free(plan->steps);
    free(plan->leaves);
    free(plan->samples);
    memset(plan, 0, sizeof *plan);
}

static const char *plural(uint32_t n, const char *many)
{
    return n == 1 ? "" : many;
}

/* "4", or "2 to 4" when datasets differ. */
static void add_batch_sizes(const dr_dataset *d, uint32_t batch_size, dr_str *out)
{
    uint32_t least = dr_bucket_batch(&d->buckets[0], batch_size);
    uint32_t most = least;
    for (size_t i = 1; i < d->n_buckets; i++) {
        uint32_t n = dr_bucket_batch(&d->buckets[i], batch_size);
        least = n < least ? n : least;
        most = n > most ? n : most;
    }
    if (least < most) {
        dr_str_printf(out, "%lu or ", (unsigned long)least);
    }
    dr_str_printf(out, "%lu", (unsigned long)most);
}

/* Steps whose leaves do not all have the same shape, and leaves that a last step lacks. */
static void add_imbalance(const dr_dataset *d, uint32_t batch_size, uint32_t per_step, dr_str *out)
{
    uint32_t short_leaves = 0;
    uint32_t rest = 0;
    for (size_t i = 0; i < d->n_buckets; i++) {
        const dr_bucket *b = &d->buckets[i];
        short_leaves += b->n_samples % dr_bucket_batch(b, batch_size) != 0;
        rest += leaves_of(b, batch_size) % per_step;
    }
    uint32_t missing = rest % per_step == 0 ? 0 : per_step - rest % per_step;
    if (short_leaves > 0) {
        dr_str_printf(out, "; %lu batch%s not full", (unsigned long)short_leaves,
                      short_leaves == 1 ? " is" : "es are");
    }
    if (d->n_buckets > 1 && rest > 0 && per_step > 1) {
        dr_str_printf(out, "; %lu batch%s left over share%s steps of mixed shapes",
                      (unsigned long)rest, plural(rest, "es"), rest == 1 ? "s" : "");
    }
    if (missing > 0) {
        dr_str_printf(out, "; one step has %lu batch%s fewer", (unsigned long)missing,
                      plural(missing, "es"));
    }
}

void dr_epoch_arithmetic(const dr_dataset *dataset, uint32_t batch_size, uint32_t virtual_shards,
                         uint32_t accumulation, dr_str *out)
{
    uint32_t leaves = count_leaves(dataset, batch_size);
    uint32_t per_step = virtual_shards * accumulation;
    uint32_t steps = dr_steps_per_epoch(dataset, batch_size, per_step);
    dr_str_printf(out, "one epoch: %lu samples", (unsigned long)dataset->n_samples);
    if (dataset->n_reg_samples > 0) {
        dr_str_printf(out, " (%lu training + %lu regularisation)",
                      (unsigned long)dataset->n_train_samples,
                      (unsigned long)dataset->n_reg_samples);
    }
    dr_str_printf(out, " in %zu bucket%s -> %lu batch%s of up to ", dataset->n_buckets,
                  plural((uint32_t)dataset->n_buckets, "s"), (unsigned long)leaves,
                  plural(leaves, "es"));
    add_batch_sizes(dataset, batch_size, out);
    dr_str_printf(out, " -> %lu step%s of up to %lu (%lu shard%s x %lu accumulated)",
                  (unsigned long)steps, plural(steps, "s"), (unsigned long)per_step,
                  (unsigned long)virtual_shards, plural(virtual_shards, "s"),
                  (unsigned long)accumulation);
    if (leaves < per_step) {
        dr_str_printf(out, "; only %lu of %lu batches of a step exist, the others stay empty",
                      (unsigned long)leaves, (unsigned long)per_step);
        return;
    }
    add_imbalance(dataset, batch_size, per_step, out);
}
