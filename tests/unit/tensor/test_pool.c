#include "dr_test.h"

#include "tensor/pool.h"

#include <stdint.h>

/* A walk with nested lifetimes; returns a hash of the offsets. */
static uint64_t walk(dr_pool *p, const char *base)
{
    uint64_t h = 0;
    dr_frame keep = dr_pool_frame_begin(p);
    for (size_t i = 1; i <= 20; i++) {
        dr_frame tmp = dr_pool_frame_begin(p);
        char *a = dr_pool_alloc(p, tmp, 100 * i);
        char *b = dr_pool_alloc(p, keep, 10 * i);
        char *c = dr_pool_alloc(p, tmp, 7);
        h = h * 31 + (uint64_t)(a - base) + (uint64_t)(b - base) * 3 + (uint64_t)(c - base) * 7;
        dr_pool_frame_end(p, tmp);
    }
    dr_pool_frame_end(p, keep);
    return h;
}

static void dry_walk_predicts_the_real_one(void **state)
{
    (void)state;
    dr_pool *dry = dr_pool_create_dry();
    dr_frame f = dr_pool_frame_begin(dry);
    const char *dry_base = dr_pool_alloc(dry, f, 0);
    dr_pool_frame_end(dry, f);
    uint64_t want = walk(dry, dry_base);
    size_t peak = dr_pool_peak_bytes(dry);
    assert_int_equal(dr_pool_used_bytes(dry), 0);
    dr_pool *real = NULL;
    assert_ok(dr_pool_create(&dr_host_device, peak, &real));
    f = dr_pool_frame_begin(real);
    const char *base = dr_pool_alloc(real, f, 0);
    dr_pool_frame_end(real, f);
    assert_true(walk(real, base) == want);
    assert_true(walk(real, base) == want);
    assert_int_equal(dr_pool_peak_bytes(real), peak);
    dr_pool_destroy(real);
    dr_pool_destroy(dry);
}

static void blocks_do_not_overlap_and_gaps_are_reused(void **state)
{
    (void)state;
    dr_pool *p = NULL;
    assert_ok(dr_pool_create(&dr_host_device, 64 * 3, &p));
    dr_frame a = dr_pool_frame_begin(p);
    dr_frame b = dr_pool_frame_begin(p);
    char *x = dr_pool_alloc(p, a, 64);
    char *y = dr_pool_alloc(p, b, 1);
    assert_int_equal(y - x, 64);
    dr_pool_frame_end(p, a);
    dr_frame c = dr_pool_frame_begin(p);
    assert_ptr_equal(dr_pool_alloc(p, c, 30), x);
    assert_int_equal((uintptr_t)x % 64, 0);
    assert_panics((void)dr_pool_alloc(p, c, 65));
    dr_pool_destroy(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dry_walk_predicts_the_real_one),
        cmocka_unit_test(blocks_do_not_overlap_and_gaps_are_reused),
    };
    return DR_TEST_MAIN("pool", tests);
}
