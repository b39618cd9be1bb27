#include "dr_test.h"

#include "base/clock.h"
#include "data/epoch_plan.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

typedef struct synthetic { /* a dataset without files */
    dr_dataset d;
    dr_dataset_image *images;
    dr_bucket *buckets;
} synthetic;

/* n images in n_buckets buckets, image i with 1 + i % max_repeats repeats. */
static void make_dataset(synthetic *s, size_t n, size_t n_buckets, uint32_t max_repeats)
{
    memset(s, 0, sizeof *s);
    s->images = dr_xcalloc(n, sizeof *s->images);
    s->buckets = dr_xcalloc(n_buckets, sizeof *s->buckets);
    for (size_t b = 0; b < n_buckets; b++) {
        s->buckets[b].size = (dr_size_px){256 + 64 * (int32_t)b, 1024 - 64 * (int32_t)b};
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t bucket = (uint32_t)((i * i + i / 3) % n_buckets);
        s->images[i].bucket = bucket;
        s->images[i].repeats = 1 + (uint32_t)(i % max_repeats);
        s->images[i].first_sample = s->d.n_samples;
        s->d.n_samples += s->images[i].repeats;
        s->buckets[bucket].n_images++;
        s->buckets[bucket].n_samples += s->images[i].repeats;
    }
    s->d.images = s->images;
    s->d.n_images = n;
    s->d.buckets = s->buckets;
    s->d.n_buckets = n_buckets;
    s->d.n_train_samples = s->d.n_samples;
}

static void free_dataset(synthetic *s)
{
    free(s->images);
    free(s->buckets);
}

static void check_leaf(const synthetic *s, const dr_leaf *leaf, uint32_t batch, unsigned char *seen)
{
    assert_true(leaf->n >= 1 && leaf->n <= batch);
    for (uint32_t i = 0; i < leaf->n; i++) {
        const dr_sample_ref *r = &leaf->samples[i];
        const dr_dataset_image *image = &s->images[r->image];
        assert_int_equal(image->bucket, leaf->bucket);
        assert_true(r->repeat < image->repeats);
        assert_int_equal(r->sample, image->first_sample + r->repeat);
        seen[r->sample]++;
    }
}

/* Every sample once, leaves of one bucket, counts right, as few mixed steps as the counts force. */
static void check_plan(const synthetic *s, const dr_epoch_plan *p, uint32_t batch,
                       uint32_t per_step)
{
    unsigned char *seen = dr_xcalloc(s->d.n_samples, 1);
    uint32_t leaves = 0;
    uint32_t short_steps = 0;
    uint32_t pure_full = 0;
    for (uint32_t i = 0; i < p->n_steps; i++) {
        const dr_step *step = &p->steps[i];
        uint64_t n = 0;
        bool same = true;
        assert_true(step->n_leaves >= 1 && step->n_leaves <= per_step);
        for (uint32_t k = 0; k < step->n_leaves; k++) {
            check_leaf(s, &step->leaves[k], batch, seen);
            n += step->leaves[k].n;
            same = same && step->leaves[k].bucket == step->leaves[0].bucket;
        }
        assert_int_equal(step->n_samples, n);
        assert_int_equal(step->one_bucket, same);
        leaves += step->n_leaves;
        short_steps += step->n_leaves < per_step;
        pure_full += same && step->n_leaves == per_step;
    }
    assert_true(short_steps <= 1);
    uint32_t want_leaves = 0;
    uint32_t want_pure = 0;
    for (size_t b = 0; b < s->d.n_buckets; b++) {
        uint32_t n = (s->buckets[b].n_samples + batch - 1) / batch;
        want_leaves += n;
        want_pure += n / per_step;
    }
    assert_int_equal(leaves, want_leaves);
    assert_int_equal(p->n_steps, (want_leaves + per_step - 1) / per_step);
    assert_int_equal(pure_full, want_pure);
    for (uint32_t i = 0; i < s->d.n_samples; i++) {
        assert_int_equal(seen[i], 1);
    }
    free(seen);
}

static void every_sample_is_seen_once(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 2, 3, 7, 40, 257};
    static const uint32_t counts[] = {1, 2, 3, 4, 8, 100};
    for (size_t i = 0; i < 6; i++) {
        for (size_t n_buckets = 1; n_buckets <= 7; n_buckets += 3) {
            synthetic s;
            make_dataset(&s, sizes[i], n_buckets, 5);
            for (size_t b = 0; b < 6; b++) {
                for (size_t l = 0; l < 6; l++) {
                    dr_epoch_plan_options o = {.seed = 42,
                                               .epoch = 1 + (uint32_t)(b + l),
                                               .batch_size = counts[b],
                                               .n_leaves = counts[l]};
                    dr_epoch_plan p;
                    assert_ok(dr_epoch_plan_build(&p, &s.d, &o));
                    check_plan(&s, &p, counts[b], counts[l]);
                    assert_int_equal(p.n_steps, dr_steps_per_epoch(&s.d, counts[b], counts[l]));
                    dr_epoch_plan_deinit(&p);
                }
            }
            free_dataset(&s);
        }
    }
}

static bool is_same_plan(const dr_epoch_plan *a, const dr_epoch_plan *b)
{
    bool same = a->n_steps == b->n_steps && a->n_samples == b->n_samples;
    for (uint32_t i = 0; same && i < a->n_steps; i++) {
        same = a->steps[i].n_leaves == b->steps[i].n_leaves &&
               a->steps[i].leaves - a->leaves == b->steps[i].leaves - b->leaves;
    }
    return same && memcmp(a->samples, b->samples, a->n_samples * sizeof *a->samples) == 0;
}

static void plans_depend_on_seed_and_epoch_only(void **state)
{
    (void)state;
    synthetic s;
    make_dataset(&s, 100, 4, 3);
    dr_epoch_plan_options o = {.seed = 42, .epoch = 1, .batch_size = 2, .n_leaves = 4};
    dr_epoch_plan a, b;
    assert_ok(dr_epoch_plan_build(&a, &s.d, &o));
    assert_ok(dr_epoch_plan_build(&b, &s.d, &o));
    assert_true(is_same_plan(&a, &b));
    dr_epoch_plan_deinit(&b);
    o.epoch = 2;
    assert_ok(dr_epoch_plan_build(&b, &s.d, &o));
    assert_false(is_same_plan(&a, &b));
    dr_epoch_plan_deinit(&b);
    o.epoch = 1;
    o.seed = 43;
    assert_ok(dr_epoch_plan_build(&b, &s.d, &o));
    assert_false(is_same_plan(&a, &b));
    dr_epoch_plan_deinit(&b);
    dr_epoch_plan_deinit(&a);
    free_dataset(&s);
}

/* The sample order inside a bucket does not depend on how it is cut, so batch 4 x 1 leaf and
 * batch 1 x 4 leaves of a one-bucket dataset see the same samples in every step. */
static void leaves_times_batch_see_the_same_samples(void **state)
{
    (void)state;
    synthetic s;
    make_dataset(&s, 64, 1, 1);
    dr_epoch_plan_options o = {.seed = 1, .epoch = 3, .batch_size = 4, .n_leaves = 1};
    dr_epoch_plan a, b;
    assert_ok(dr_epoch_plan_build(&a, &s.d, &o));
    o.batch_size = 1;
    o.n_leaves = 4;
    assert_ok(dr_epoch_plan_build(&b, &s.d, &o));
    assert_int_equal(a.n_steps, b.n_steps);
    for (uint32_t i = 0; i < a.n_steps; i++) {
        for (uint32_t k = 0; k < 4; k++) {
            assert_int_equal(a.steps[i].leaves[0].samples[k].sample,
                             b.steps[i].leaves[k].samples[0].sample);
        }
    }
    dr_epoch_plan_deinit(&a);
    dr_epoch_plan_deinit(&b);
    free_dataset(&s);
}

static void arithmetic_is_explained(void **state)
{
    (void)state;
    synthetic s;
    make_dataset(&s, 3, 1, 3);
    dr_str text = {0};
    dr_epoch_arithmetic(&s.d, 4, 2, 3, &text);
    assert_string_equal(text.data,
                        "one epoch: 6 samples in 1 bucket -> 2 batches of up to 4 -> 1 step of up "
                        "to 6 (2 shards x 3 accumulated); only 2 of 6 batches of a step exist, the "
                        "others stay empty");
    dr_str_free(&text);
    free_dataset(&s);
}

/* A million pictures with 1 to 4 repeats: 2.5 million samples in under 2 s and 300 MB. The time is
 * processor time of this process; the limit is the design's, not a measurement. */
static void a_million_pictures_are_planned_quickly(void **state)
{
    (void)state;
    synthetic s;
    make_dataset(&s, 1000000, 17, 4);
    struct rusage before, after;
    dr_epoch_plan_options o = {.seed = 42, .epoch = 1, .batch_size = 1, .n_leaves = 1};
    dr_epoch_plan p;
    (void)getrusage(RUSAGE_SELF, &before);
    double start = dr_now_s();
    assert_ok(dr_epoch_plan_build(&p, &s.d, &o));
    double wall_s = dr_now_s() - start;
    (void)getrusage(RUSAGE_SELF, &after);
    double cpu_s = (double)(after.ru_utime.tv_sec - before.ru_utime.tv_sec) +
                   1e-6 * (double)(after.ru_utime.tv_usec - before.ru_utime.tv_usec);
    double memory_bytes = (double)p.n_samples * sizeof *p.samples +
                          (double)p.n_leaves * sizeof *p.leaves +
                          (double)p.n_steps * sizeof *p.steps;
    print_message("%lu samples: %.2f s processor, %.2f s wall, %.0f MB\n",
                  (unsigned long)p.n_samples, cpu_s, wall_s, memory_bytes / 1e6);
    assert_int_equal(p.n_samples, 2500000);
    assert_int_equal(p.n_steps, 2500000);
    assert_at_most(cpu_s, 2.0);
    assert_at_most(memory_bytes, 300e6);
    check_plan(&s, &p, 1, 1);
    dr_epoch_plan_deinit(&p);
    free_dataset(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_sample_is_seen_once),
        cmocka_unit_test(plans_depend_on_seed_and_epoch_only),
        cmocka_unit_test(leaves_times_batch_see_the_same_samples),
        cmocka_unit_test(arithmetic_is_explained),
        cmocka_unit_test(a_million_pictures_are_planned_quickly),
    };
    return DR_TEST_MAIN("epoch_plan", tests);
}
