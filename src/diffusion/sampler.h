/*
 * diffusion/sampler.h - DDIM and Euler sampling on host arrays of latents.
 *
 * Layer:    diffusion.
 * Source:   diffusers DDIMScheduler (leading spacing, steps_offset 1, set_alpha_to_one false,
 *           clip_sample false, eta 0) and EulerDiscreteScheduler (linspace spacing).
 * Use:      latents = noise * init_noise_sigma; for each step i: the model sees
 *           dr_sampler_scale_input(latents) at timestep[i]; dr_sampler_step moves the latents on.
 */
#ifndef DR_DIFFUSION_SAMPLER_H
#define DR_DIFFUSION_SAMPLER_H

#include "diffusion/schedule.h"

typedef enum dr_sampler_kind { DR_SAMPLER_DDIM, DR_SAMPLER_EULER } dr_sampler_kind;

typedef struct dr_sampler {
    dr_sampler_kind kind;
    dr_prediction prediction;
    const dr_schedule *schedule; /* not owned */
    int n_steps;
    float timestep[DR_TRAIN_TIMESTEPS];  /* what the model gets; whole numbers for DDIM */
    float sigma[DR_TRAIN_TIMESTEPS + 1]; /* Euler: noise per step, 0 at the end */
    float init_noise_sigma;
} dr_sampler;

/* "ddim", "euler"; DR_INVALID for another name. */
DR_MUST_USE dr_status dr_sampler_kind_from_name(const char *name, dr_sampler_kind *out);
/* DR_INVALID unless 1 <= n_steps <= 999 (DDIM) or 1000 (Euler). */
DR_MUST_USE dr_status dr_sampler_init(dr_sampler *s, dr_sampler_kind kind, dr_prediction prediction,
                                      int n_steps, const dr_schedule *schedule);
/* out = what the model gets for latents x before step i; out may be x. */
void dr_sampler_scale_input(const dr_sampler *s, int i, const float *x, float *out, size_t n);
/* x becomes the latents after step i; model_output as predicted for the scaled input. */
void dr_sampler_step(const dr_sampler *s, int i, const float *model_output, float *x, size_t n);
/* Classifier-free guidance: out = uncond + scale (cond - uncond); out may be either input. */
void dr_guide(const float *uncond, const float *cond, float scale, float *out, size_t n);

#endif
