#include "dr_test.h"

#include "base/philox.h"

#include <math.h>

/* Known answers of the Random123 distribution (kat_vectors, philox4x32 10). */
static void block_function_matches_published_vectors(void **state)
{
    (void)state;
    uint32_t out[4];
    dr_philox4x32((uint32_t[4]){0}, (uint32_t[2]){0}, out);
    assert_int_equal(out[0], 0x6627e8d5u);
    assert_int_equal(out[1], 0xe169c58du);
    assert_int_equal(out[2], 0xbc57ac4cu);
    assert_int_equal(out[3], 0x9b00dbd8u);
    dr_philox4x32((uint32_t[4]){0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u},
                  (uint32_t[2]){0xa4093822u, 0x299f31d0u}, out);
    assert_int_equal(out[0], 0xd16cfe09u);
    assert_int_equal(out[1], 0x94fdccebu);
    assert_int_equal(out[2], 0x5001e420u);
    assert_int_equal(out[3], 0x24126ea1u);
}

static void normals_have_mean_0_and_variance_1(void **state)
{
    (void)state;
    enum { N = 200001 };
    static float x[N];
    dr_philox p;
    dr_philox_init(&p, 42, DR_RANDOM_NOISE, 3, 77);
    dr_philox_normal(&p, x, N);
    double sum = 0.0;
    double squares = 0.0;
    for (int i = 0; i < N; i++) {
        sum += (double)x[i];
        squares += (double)x[i] * (double)x[i];
    }
    assert_at_most(fabs(sum / N), 4.0 / sqrt(N)); /* 4 standard errors */
    assert_at_most(fabs(squares / N - 1.0), 4.0 * sqrt(2.0 / N));
}

static void streams_differ_by_every_part_of_the_key(void **state)
{
    (void)state;
    dr_philox a, b;
    dr_philox_init(&a, 1, DR_RANDOM_NOISE, 1, 1);
    uint32_t first = dr_philox_u32(&a);
    const struct {
        uint64_t seed;
        dr_purpose purpose;
        uint32_t time;
        uint64_t item;
    } keys[] = {{2, DR_RANDOM_NOISE, 1, 1},
                {1, DR_RANDOM_VAE, 1, 1},
                {1, DR_RANDOM_NOISE, 2, 1},
                {1, DR_RANDOM_NOISE, 1, 1ull << 32 | 1}};
    for (size_t i = 0; i < 4; i++) {
        dr_philox_init(&b, keys[i].seed, keys[i].purpose, keys[i].time, keys[i].item);
        assert_int_not_equal(dr_philox_u32(&b), first);
    }
}

static void permutation_holds_every_index_once(void **state)
{
    (void)state;
    uint32_t order[1000];
    char seen[1000] = {0};
    dr_philox p;
    dr_philox_init(&p, 7, DR_RANDOM_SHUFFLE, 0, 0);
    dr_philox_permutation(&p, order, 1000);
    for (int i = 0; i < 1000; i++) {
        assert_in_range(order[i], 0, 999);
        assert_int_equal(seen[order[i]]++, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(block_function_matches_published_vectors),
        cmocka_unit_test(normals_have_mean_0_and_variance_1),
        cmocka_unit_test(streams_differ_by_every_part_of_the_key),
        cmocka_unit_test(permutation_holds_every_index_once),
    };
    return DR_TEST_MAIN("philox", tests);
}
