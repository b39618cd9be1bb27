/*
 * Schedule and samplers against torch and diffusers (tests/golden/models_vectors.py). Betas
 * and alphas_cumprod are equal bit for bit; torch's square roots (through MKL) are off by one unit
 * in the last place at every fifth timestep, ours are correctly rounded. Samplers: measured at most
 * 4e-7 of the largest number after 12 steps (other order of the same f32 operations); the limit has
 * a factor of 5.
 */
#include "data/diffusion_vectors.h"
#include "diffusion/sampler.h"
#include "dr_test.h"
#include "golden_input.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const double sampler_limit = 2e-6;

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

/* Distance of two positive numbers, one given by its bits. */
static uint32_t ulps(float f, uint32_t bits)
{
    const uint32_t u = bits_of(f);
    return u > bits ? u - bits : bits - u;
}

static void schedule_equals_torch_bit_for_bit(void **state)
{
    (void)state;
    static dr_schedule s;
    dr_schedule_init(&s);
    for (int t = 0; t < DR_TRAIN_TIMESTEPS; t++) {
        assert_int_equal(bits_of(s.beta[t]), golden_betas[t]);
        assert_int_equal(bits_of(s.alphas_cumprod[t]), golden_alphas_cumprod[t]);
        assert_true(ulps(dr_schedule_sqrt_ac(&s, t), golden_sqrt_ac[t]) <= 1);
        assert_true(ulps(dr_schedule_sqrt_one_minus_ac(&s, t), golden_sqrt_one_minus_ac[t]) <= 1);
    }
    assert_panics((void)dr_schedule_sqrt_ac(&s, DR_TRAIN_TIMESTEPS));
    assert_panics((void)dr_schedule_sigma(&s, -1));
}

/* The published table (six digits and more), spec models.md 4.1. */
static void snr_and_sigma(void **state)
{
    (void)state;
    static const struct {
        int t;
        double snr, sigma;
    } rows[] = {{0, 1175.44031, 0.0291675329},   {1, 585.862183, 0.041314479},
                {100, 8.45386505, 0.343931824},  {500, 0.381850034, 1.6182797},
                {900, 0.0143542625, 8.34659958}, {999, 0.00468191318, 14.6146469}};
    static dr_schedule s;
    dr_schedule_init(&s);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_at_most(fabs((double)dr_schedule_snr(&s, rows[i].t) / rows[i].snr - 1.0), 1e-6);
        assert_at_most(fabs((double)dr_schedule_sigma(&s, rows[i].t) / rows[i].sigma - 1.0), 1e-6);
    }
}

/* noisy and v target rotate (latents, noise): undoing it gives both back */
static void targets_belong_to_noisy_latents(void **state)
{
    (void)state;
    static dr_schedule s;
    dr_schedule_init(&s);
    for (int t = 0; t < DR_TRAIN_TIMESTEPS; t += 111) {
        const dr_mix_factors x = dr_schedule_noisy(&s, t);
        const dr_mix_factors v = dr_schedule_target(&s, DR_PREDICT_V, t);
        const dr_mix_factors e = dr_schedule_target(&s, DR_PREDICT_EPSILON, t);
        assert_true(e.a == 0.0f && e.b == 1.0f);
        assert_true(v.a == -x.b && v.b == x.a);
        assert_at_most(fabs((double)(x.a * x.a + x.b * x.b) - 1.0), 1e-6);
    }
    dr_prediction p;
    assert_ok(dr_prediction_from_name("v_prediction", &p));
    assert_int_equal(p, DR_PREDICT_V);
    assert_string_equal(dr_prediction_name(DR_PREDICT_EPSILON), "epsilon");
    assert_error(dr_prediction_from_name("sample", &p), DR_UNSUPPORTED, "\"sample\"");
}

static void fill_f32(const char *key, float *out)
{
    double wide[GOLDEN_SAMPLE];
    dr_golden_fill(key, GOLDEN_SAMPLE, DR_GOLDEN_UNIT, wide);
    for (int k = 0; k < GOLDEN_SAMPLE; k++) {
        out[k] = (float)wide[k];
    }
}

static double largest(const double *v)
{
    double most = 1.0;
    for (int k = 0; k < GOLDEN_SAMPLE; k++) {
        most = fmax(most, fabs(v[k]));
    }
    return most;
}

static void fill_of_call(const char *what, int i, float *out)
{
    char key[40];
    (void)snprintf(key, sizeof key, "sampler.%s.%d", what, i);
    fill_f32(key, out);
}

/* All calls of a case; returns the error of the worst number, relative to the largest. */
static double walk(size_t c, dr_sampler *s, float *x)
{
    const double size = largest(golden_samplers[c].final);
    double worst = 0.0;
    for (int i = 0; i < s->n_calls; i++) {
        float output[GOLDEN_SAMPLE];
        float noise[GOLDEN_SAMPLE];
        float scaled[GOLDEN_SAMPLE];
        assert_at_most(fabs((double)s->timestep[i] - golden_samplers[c].timesteps[i]), 2e-4);
        dr_sampler_scale_input(s, i, x, scaled);
        worst = fmax(worst, fabs((double)scaled[0] - golden_samplers[c].scaled[i]) / size);
        fill_of_call("output", i, output);
        fill_of_call("noise", i, noise);
        dr_sampler_step(s, i, output, dr_sampler_wants_noise(s, i) ? noise : NULL, x);
    }
    for (int k = 0; k < GOLDEN_SAMPLE; k++) {
        worst = fmax(worst, fabs((double)x[k] - golden_samplers[c].final[k]) / size);
    }
    return worst;
}

static double check_sampler(size_t c, const dr_schedule *schedule)
{
    dr_sampler_options o = {.n_steps = golden_samplers[c].steps,
                            .karras = golden_samplers[c].karras,
                            .as_sd_scripts = golden_samplers[c].as_sd_scripts};
    static dr_sampler s;
    float x[GOLDEN_SAMPLE];
    assert_ok(dr_sampler_kind_from_name(golden_samplers[c].kind, &o.kind));
    assert_ok(dr_prediction_from_name(golden_samplers[c].prediction, &o.prediction));
    assert_ok(dr_sampler_init(&s, &o, schedule));
    assert_int_equal(s.n_calls, golden_samplers[c].calls);
    assert_at_most(fabs((double)s.init_noise_sigma / golden_samplers[c].init - 1.0), 1e-7);
    assert_ok(dr_sampler_begin(&s, GOLDEN_SAMPLE));
    fill_f32("sampler.noise", x);
    for (int k = 0; k < GOLDEN_SAMPLE; k++) {
        x[k] *= s.init_noise_sigma;
    }
    const double error = walk(c, &s, x);
    dr_sampler_deinit(&s);
    return error;
}

static void samplers_follow_diffusers(void **state)
{
    (void)state;
    static dr_schedule plain;
    static dr_schedule to_noise;
    dr_schedule_init(&plain);
    dr_schedule_init(&to_noise);
    dr_schedule_zero_terminal_snr(&to_noise);
    for (size_t c = 0; c < sizeof golden_samplers / sizeof *golden_samplers; c++) {
        const double error = check_sampler(c, golden_samplers[c].zero_snr ? &to_noise : &plain);
        if (error > sampler_limit) {
            fail_msg("%s %s, %d steps: %g", golden_samplers[c].kind, golden_samplers[c].prediction,
                     golden_samplers[c].steps, error);
        }
    }
}

static dr_status try_sampler(dr_sampler_kind kind, int n_steps, bool karras, bool as_sd_scripts)
{
    static dr_schedule schedule;
    static dr_sampler s;
    dr_schedule_init(&schedule);
    return dr_sampler_init(&s,
                           &(dr_sampler_options){.kind = kind,
                                                 .prediction = DR_PREDICT_V,
                                                 .n_steps = n_steps,
                                                 .karras = karras,
                                                 .as_sd_scripts = as_sd_scripts},
                           &schedule);
}

static void step_counts_are_checked(void **state)
{
    (void)state;
    assert_error(try_sampler(DR_SAMPLER_DDIM, 1000, false, false), DR_INVALID, "1 to 999");
    assert_ok(try_sampler(DR_SAMPLER_DDIM, 999, false, false));
    assert_ok(try_sampler(DR_SAMPLER_DDIM, 1000, false, true));
    assert_error(try_sampler(DR_SAMPLER_EULER, 0, false, true), DR_INVALID, "steps: 0");
    assert_ok(try_sampler(DR_SAMPLER_HEUN, 1000, false, true));
    assert_error(try_sampler(DR_SAMPLER_PNDM, 3, false, true), DR_INVALID, "4 to 1000 with pndm");
    assert_error(try_sampler(DR_SAMPLER_DPMSOLVER_PP, 1000, false, true), DR_INVALID, "1 to 999");
    assert_error(try_sampler(DR_SAMPLER_EULER_A, 9, true, true), DR_INVALID, "Karras");
}

static void names(void **state)
{
    (void)state;
    dr_sampler_kind kind;
    const char *const *name = (const char *const[]){
        "ddim",    "pndm",      "lms",       "euler",       "euler_a",   "heun",
        "dpm_2",   "dpm_2_a",   "dpmsolver", "dpmsolver++", "dpmsingle", "k_lms",
        "k_euler", "k_euler_a", "k_dpm_2",   "k_dpm_2_a",   NULL};
    for (; *name != NULL; name++) {
        assert_ok(dr_sampler_kind_from_name(*name, &kind));
    }
    assert_string_equal(dr_sampler_title(kind), "DPM2 a");
    assert_error(dr_sampler_kind_from_name("dpm", &kind), DR_INVALID, "\"dpm\"");
    assert_error(dr_sampler_kind_from_name("k_ddim", &kind), DR_INVALID, "\"k_ddim\"");
}

static void guidance_moves_away_from_unconditional(void **state)
{
    (void)state;
    const float uncond[3] = {1.0f, -2.0f, 0.5f};
    const float cond[3] = {2.0f, -2.0f, 0.0f};
    float out[3];
    dr_guide(uncond, cond, 7.5f, out, 3);
    assert_true(out[0] == 8.5f && out[1] == -2.0f && out[2] == -3.25f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schedule_equals_torch_bit_for_bit),
        cmocka_unit_test(snr_and_sigma),
        cmocka_unit_test(targets_belong_to_noisy_latents),
        cmocka_unit_test(samplers_follow_diffusers),
        cmocka_unit_test(step_counts_are_checked),
        cmocka_unit_test(names),
        cmocka_unit_test(guidance_moves_away_from_unconditional),
    };
    return DR_TEST_MAIN("diffusion", tests);
}
