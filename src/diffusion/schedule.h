/*
 * diffusion/schedule.h - Stable Diffusion's noise schedule: beta = linspace(sqrt(0.00085),
 * sqrt(0.012), 1000)^2, bit for bit as PyTorch computes it in f32.
 *
 * Layer:    diffusion.
 * Source:   spec/models.md 4.1; diffusers DDPMScheduler, beta_schedule "scaled_linear".
 */
#ifndef DR_DIFFUSION_SCHEDULE_H
#define DR_DIFFUSION_SCHEDULE_H

#include "dreamrun/status.h"

enum { DR_TRAIN_TIMESTEPS = 1000 };

typedef enum dr_prediction {
    DR_PREDICT_EPSILON, /* "epsilon": the noise                                  */
    DR_PREDICT_V        /* "v_prediction": sqrt(ac) noise - sqrt(1 - ac) latents */
} dr_prediction;

const char *dr_prediction_name(dr_prediction p);
/* prediction_type of scheduler_config.json; DR_UNSUPPORTED for another one. */
DR_MUST_USE dr_status dr_prediction_from_name(const char *name, dr_prediction *out);

typedef struct dr_schedule {
    float beta[DR_TRAIN_TIMESTEPS];
    float alphas_cumprod[DR_TRAIN_TIMESTEPS]; /* ac: product of 1 - beta up to and with t */
} dr_schedule;

void dr_schedule_init(dr_schedule *s);
/*
 * Changes s so that the last timestep is pure noise (ac 0): sqrt(ac) is shifted and stretched, its
 * first value stays. Lin et al. 2023, as sd-scripts has it; in f32 from there on.
 */
void dr_schedule_zero_terminal_snr(dr_schedule *s);
/* For timesteps 0 .. 999. */
float dr_schedule_sqrt_ac(const dr_schedule *s, int t);           /* sqrt(ac)          */
float dr_schedule_sqrt_one_minus_ac(const dr_schedule *s, int t); /* sqrt(1 - ac)      */
float dr_schedule_snr(const dr_schedule *s, int t);               /* (of the two)^2    */
float dr_schedule_sigma(const dr_schedule *s, int t);             /* sqrt((1 - ac)/ac) */

/* One sample's factors: a * latents + b * noise. */
typedef struct dr_mix_factors {
    float a, b;
} dr_mix_factors;
/* noisy latents: sqrt(ac), sqrt(1 - ac) */
dr_mix_factors dr_schedule_noisy(const dr_schedule *s, int t);
/* what the model is to predict: 0, 1 (epsilon); -sqrt(1 - ac), sqrt(ac) (v) */
dr_mix_factors dr_schedule_target(const dr_schedule *s, dr_prediction p, int t);

#endif
