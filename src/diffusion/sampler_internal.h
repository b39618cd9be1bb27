/*
 * diffusion/sampler_internal.h - the families of samplers. Private to diffusion.
 *
 * init fills timestep, input_sigma, sigma, ..., n_calls and init_noise_sigma; step is
 * dr_sampler_step.
 */
#ifndef DR_DIFFUSION_SAMPLER_INTERNAL_H
#define DR_DIFFUSION_SAMPLER_INTERNAL_H

#include "diffusion/sampler.h"

/* ddim, pndm: on timesteps */
void dr_timestep_sampler_init(dr_sampler *s);
void dr_ddim_step(dr_sampler *s, int i, const float *out, float *x);
void dr_pndm_step(dr_sampler *s, int i, const float *out, float *x);
/* lms, euler, euler_a, heun, dpm_2, dpm_2_a: on sigmas */
void dr_sigma_sampler_init(dr_sampler *s);
void dr_sigma_sampler_step(dr_sampler *s, int i, const float *out, const float *noise, float *x);
/* dpmsolver, dpmsolver++, dpmsingle: on log(alpha / sigma) */
void dr_dpm_solver_init(dr_sampler *s);
void dr_dpm_solver_step(dr_sampler *s, int i, const float *out, float *x);

/*
 * alphas_cumprod of a timestep. A schedule of zero terminal SNR ends in 0, where sigmas have no
 * value: diffusers then takes 2^-24.
 */
double dr_sampler_ac(const dr_sampler *s, int t);
/* sigma of a training timestep, and between two of them, in f32 as numpy.interp gives it */
float dr_sampler_sigma(const dr_sampler *s, double t);
/* The timestep of a sigma: linear in log(sigma) between training timesteps. */
double dr_sampler_timestep(const dr_sampler *s, double sigma);
/* sigma[0 .. n_steps-1] from the largest to the smallest as Karras et al. space them. */
void dr_sampler_karras(dr_sampler *s, double largest, double smallest);
/* numpy.linspace(0, last, n)[j] */
double dr_linspace(double last, int n, int j);
/* A place for the newest output; the older ones move on. */
float *dr_sampler_push(dr_sampler *s);

#endif
