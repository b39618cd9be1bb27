/*
 * Loss weights and noise of the objective against sd-scripts' formulas in torch
 * (tests/golden/objective_vectors.py). f32 on both sides; torch's square roots may be off by one
 * unit in the last place, weights by a few.
 */
#include "diffusion/objective.h"
#include "dr_test.h"
#include "objective_vectors.h"

#include <math.h>
#include <string.h>

#define LIMIT 1e-6

static void assert_near(double got, double want)
{
    assert_at_most(fabs(got - want), LIMIT * fmax(1.0, fabs(want)));
}

static void weights_of_the_loss(void **state)
{
    (void)state;
    dr_schedule s;
    dr_schedule_init(&s);
    for (size_t i = 0; i < sizeof weights / sizeof *weights; i++) {
        for (int k = 0; k < N_TIMES; k++) {
            assert_near((double)dr_objective_weight(&weights[i].o, &s, times[k]),
                        weights[i].weight[k]);
        }
    }
}

static void thresholds(void **state)
{
    (void)state;
    dr_schedule s;
    dr_schedule_init(&s);
    for (size_t i = 0; i < sizeof hubers / sizeof *hubers; i++) {
        for (int k = 0; k < N_TIMES; k++) {
            assert_near((double)dr_objective_huber_c(&hubers[i].o, &s, times[k]), hubers[i].c[k]);
        }
    }
}

static void zero_terminal_snr(void **state)
{
    (void)state;
    dr_schedule s;
    dr_schedule_init(&s);
    dr_schedule_zero_terminal_snr(&s);
    for (int k = 0; k < N_TIMES; k++) {
        assert_near((double)s.alphas_cumprod[times[k]], zero_terminal_ac[k]);
    }
    assert_true(s.alphas_cumprod[999] == 0.0f && s.beta[999] == 1.0f);
    const dr_objective snr = {.huber_schedule = DR_HUBER_SNR, .huber_c = 0.1};
    assert_near((double)dr_objective_huber_c(&snr, &s, 999), 0.1);
}

static void same_array(const float *got, const float *want, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        assert_near((double)got[i], (double)want[i]);
    }
}

static void shaped_noise(void **state)
{
    (void)state;
    enum { N = H * W * C };
    float got[N];
    dr_objective o = {.noise_offset = 0.1};
    memcpy(got, noise, sizeof got);
    dr_objective_offset_noise(&o, 0.5f, latents, offset, H * W, C, got);
    same_array(got, with_offset, N);
    o.adaptive_noise_scale = -0.3; /* reaches the clamp in some channels */
    memcpy(got, noise, sizeof got);
    dr_objective_offset_noise(&o, 0.5f, latents, offset, H * W, C, got);
    same_array(got, with_adaptive, N);
    o = (dr_objective){.noise_offset = 0.2, .noise_offset_random = true};
    memcpy(got, noise, sizeof got);
    dr_objective_offset_noise(&o, 0.5f, latents, offset, H * W, C, got);
    same_array(got, with_offset, N);
    o = (dr_objective){.multires_discount = 0.3};
    memcpy(got, noise, sizeof got);
    dr_objective_add_level(&o, 2, level, LH, LW, H, W, C, got);
    same_array(got, with_level, N);
    memcpy(got, noise, sizeof got);
    dr_objective_unit_deviation(got, N);
    same_array(got, with_unit_deviation, N);
}

static void sizes_of_levels(void **state)
{
    (void)state;
    assert_int_equal(dr_objective_level_size(64, 2.5, 0), 64);
    assert_int_equal(dr_objective_level_size(64, 2.5, 1), 25);
    assert_int_equal(dr_objective_level_size(64, 2.5, 4), 1);
    assert_int_equal(dr_objective_level_size(64, 2.5, 9), 1);
}

static void range_of_timesteps(void **state)
{
    (void)state;
    static const struct {
        int min, max, first, count;
    } rows[] = {{0, 0, 0, 1000},    {100, 0, 100, 900}, {0, 300, 0, 300},
                {200, 201, 200, 1}, {500, 400, 400, 1}, {300, 300, 300, 1}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int first = -1;
        int count = -1;
        const dr_objective o = {.min_timestep = rows[i].min, .max_timestep = rows[i].max};
        dr_objective_timesteps(&o, &first, &count);
        assert_int_equal(first, rows[i].first);
        assert_int_equal(count, rows[i].count);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_of_the_loss), cmocka_unit_test(thresholds),
        cmocka_unit_test(zero_terminal_snr),   cmocka_unit_test(shaped_noise),
        cmocka_unit_test(sizes_of_levels),     cmocka_unit_test(range_of_timesteps),
    };
    return DR_TEST_MAIN("objective", tests);
}
