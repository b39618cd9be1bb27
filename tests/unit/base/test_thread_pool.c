#include "dr_test.h"

#include "base/thread_pool.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum { N = 2000 };

typedef struct square {
    dr_task task;
    int in, out;
} square;

static dr_status run_square(void *arg)
{
    square *s = arg;
    if (s->in % 701 == 700) {
        DR_FAIL(DR_FORMAT, "square %d", s->in);
    }
    s->out = s->in * s->in;
    return DR_OK;
}

static void tasks_give_their_results_for_any_number_of_threads(void **state)
{
    (void)state;
    for (int threads = 0; threads <= 8; threads += 4) {
        dr_thread_pool *p = NULL;
        assert_ok(dr_thread_pool_create(threads, &p));
        assert_int_equal(dr_thread_pool_threads(p), threads);
        square *s = calloc(N, sizeof *s);
        for (int i = 0; i < N; i++) {
            s[i] = (square){.task = {.run = run_square, .arg = &s[i]}, .in = i};
            dr_thread_pool_submit(p, &s[i].task);
        }
        for (int i = N - 1; i >= 0; i--) { /* any order */
            char text[32];
            (void)snprintf(text, sizeof text, "square %d", i);
            if (i % 701 == 700) {
                assert_error(dr_thread_pool_wait(p, &s[i].task), DR_FORMAT, text);
            } else {
                assert_ok(dr_thread_pool_wait(p, &s[i].task));
                assert_int_equal(s[i].out, i * i);
            }
        }
        free(s);
        dr_thread_pool_destroy(p);
    }
}

typedef struct counting {
    atomic_int runs[N];
    size_t fails_from; /* indices from here on fail */
} counting;

static dr_status count(void *arg, size_t i)
{
    counting *c = arg;
    atomic_fetch_add(&c->runs[i], 1);
    if (i >= c->fails_from) {
        DR_FAIL(DR_IO, "index %zu", i);
    }
    return DR_OK;
}

static void a_loop_runs_every_index_once_and_reports_the_first_failure(void **state)
{
    (void)state;
    for (int threads = -1; threads <= 7; threads += 2) {
        dr_thread_pool *p = NULL;
        if (threads >= 0) {
            assert_ok(dr_thread_pool_create(threads, &p));
        }
        counting *c = calloc(1, sizeof *c);
        c->fails_from = N;
        assert_ok(dr_thread_pool_for(p, N, count, c));
        assert_ok(dr_thread_pool_for(p, 0, count, c));
        for (int i = 0; i < N; i++) {
            assert_int_equal(atomic_load(&c->runs[i]), 1);
        }
        c->fails_from = 1234;
        assert_error(dr_thread_pool_for(p, N, count, c), DR_IO, "index 1234");
        for (int i = 0; i < 1234; i++) {
            assert_int_equal(atomic_load(&c->runs[i]), 2);
        }
        free(c);
        dr_thread_pool_destroy(p);
    }
}

static dr_status count_inside(void *arg, size_t i)
{
    counting *c = arg;
    atomic_fetch_add(&c->runs[i], 1);
    return DR_OK;
}

typedef struct nest {
    dr_thread_pool *pool;
    counting *c;
} nest;

static dr_status run_nested(void *arg, size_t i)
{
    (void)i;
    nest *n = arg;
    return dr_thread_pool_for(n->pool, 50, count_inside, n->c);
}

static void loops_inside_loops_do_not_lock_up(void **state)
{
    (void)state;
    nest n = {.c = calloc(1, sizeof *n.c)};
    assert_ok(dr_thread_pool_create(3, &n.pool));
    assert_ok(dr_thread_pool_for(n.pool, 40, run_nested, &n));
    for (int i = 0; i < 50; i++) {
        assert_int_equal(atomic_load(&n.c->runs[i]), 40);
    }
    dr_thread_pool_destroy(n.pool);
    free(n.c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tasks_give_their_results_for_any_number_of_threads),
        cmocka_unit_test(a_loop_runs_every_index_once_and_reports_the_first_failure),
        cmocka_unit_test(loops_inside_loops_do_not_lock_up),
    };
    return DR_TEST_MAIN("thread_pool", tests);
}
