#include "dr_test.h"

#include "data/prefetch.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { LENGTH = 8 };

static atomic_int n_loads;

static dr_status load(void *user, const dr_prefetch_job *job, float *pixels)
{
    (void)user;
    atomic_fetch_add(&n_loads, 1);
    if (job->image == 13) {
        DR_FAIL(DR_FORMAT, "picture 13 is damaged");
    }
    for (int i = 0; i < LENGTH; i++) {
        pixels[i] = (float)(job->image * 1000 + job->sample * 10) + (float)job->epoch / 2 +
                    (job->flip ? 0.25f : 0.0f) + (float)i * 100000;
    }
    return DR_OK;
}

static dr_prefetch *begin(int n_threads, size_t n_ahead)
{
    dr_prefetch *p = NULL;
    atomic_store(&n_loads, 0);
    assert_ok(dr_prefetch_create(
        &(dr_prefetch_config){.n_threads = n_threads, .n_ahead = n_ahead, .load = load}, &p));
    return p;
}

static dr_prefetch_job job(uint64_t image)
{
    return (dr_prefetch_job){
        .image = image, .sample = image % 7, .epoch = 3, .flip = image % 2 == 0};
}

static void expect(dr_prefetch *p, uint64_t image)
{
    float got[LENGTH];
    float want[LENGTH];
    dr_prefetch_job j = job(image);
    assert_ok(dr_prefetch_take(p, &j, LENGTH, got));
    assert_ok(load(NULL, &j, want));
    assert_memory_equal(got, want, sizeof got);
}

static void results_do_not_depend_on_threads_or_places(void **state)
{
    (void)state;
    for (int threads = 0; threads <= 6; threads += 3) {
        for (size_t ahead = 1; ahead <= 9; ahead += 4) {
            dr_prefetch *p = begin(threads, ahead);
            uint64_t announced = 100;
            for (uint64_t i = 100; i < 160; i++) {
                for (; announced < 160; announced++) {
                    dr_prefetch_job j = job(announced);
                    if (!dr_prefetch_add(p, &j, LENGTH)) {
                        break;
                    }
                }
                assert_true(threads > 0 ? announced > i : announced == 100);
                expect(p, i);
            }
            assert_int_equal(atomic_load(&n_loads), 120); /* 60 of ours, 60 of expect */
            dr_prefetch_destroy(p);
        }
    }
}

static void a_failure_is_met_where_it_is_taken(void **state)
{
    (void)state;
    dr_prefetch *p = begin(2, 4);
    float got[LENGTH];
    for (uint64_t i = 12; i < 16; i++) {
        dr_prefetch_job j = job(i);
        assert_true(dr_prefetch_add(p, &j, LENGTH));
    }
    expect(p, 12);
    dr_prefetch_job bad = job(13);
    assert_error(dr_prefetch_take(p, &bad, LENGTH, got), DR_FORMAT, "picture 13 is damaged");
    expect(p, 14);
    assert_error(dr_prefetch_take(p, &bad, LENGTH, got), DR_FORMAT, "picture 13 is damaged");
    dr_prefetch_destroy(p); /* with picture 15 not taken */
}

static void skipped_and_unannounced_jobs_do_no_harm(void **state)
{
    (void)state;
    dr_prefetch *p = begin(2, 4);
    for (uint64_t i = 20; i < 24; i++) {
        dr_prefetch_job j = job(i);
        assert_true(dr_prefetch_add(p, &j, LENGTH));
    }
    dr_prefetch_job full = job(24);
    assert_false(dr_prefetch_add(p, &full, LENGTH));
    expect(p, 99); /* never announced */
    expect(p, 22); /* 20 and 21 are dropped */
    assert_true(dr_prefetch_add(p, &full, LENGTH));
    expect(p, 23);
    expect(p, 24);
    expect(p, 20);
    dr_prefetch_destroy(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(results_do_not_depend_on_threads_or_places),
        cmocka_unit_test(a_failure_is_met_where_it_is_taken),
        cmocka_unit_test(skipped_and_unannounced_jobs_do_no_harm),
    };
    return DR_TEST_MAIN("prefetch", tests);
}
