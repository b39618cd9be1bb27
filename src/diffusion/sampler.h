/*
 * diffusion/sampler.h - the sixteen names of --sample_sampler, on host arrays of latents.
 *
 * Layer:    diffusion.
 * Threads:  a sampler belongs to one thread; its numbers depend on no threads.
 * Source:   diffusers' schedulers of the same names; tests/interop/sample_peers.py compares.
 *
 * Use: dr_sampler_begin; latents = noise * init_noise_sigma; for each call i of the model: it sees
 * dr_sampler_scale_input(latents) at timestep[i], and dr_sampler_step moves the latents on. Methods
 * of second order call the model more often than they have steps.
 *
 * Two ways of setting them up. The model's own (as_sd_scripts false): what scheduler_config.json of
 * Stable Diffusion says: ddim and pndm with steps_offset 1, set_alpha_to_one false, no clipping,
 * pndm without Runge-Kutta steps. sd-scripts' (true): diffusers' defaults, ddim and heun with the
 * predicted latent clipped to -1..1. The other methods are the same both ways.
 */
#ifndef DR_DIFFUSION_SAMPLER_H
#define DR_DIFFUSION_SAMPLER_H

#include "diffusion/schedule.h"

typedef enum dr_sampler_kind {
    DR_SAMPLER_DDIM,
    DR_SAMPLER_PNDM,
    DR_SAMPLER_LMS,
    DR_SAMPLER_EULER,
    DR_SAMPLER_EULER_A,
    DR_SAMPLER_HEUN,
    DR_SAMPLER_DPM_2,
    DR_SAMPLER_DPM_2_A,
    DR_SAMPLER_DPMSOLVER,    /* DPM-Solver 2M on the noise; ends at the smallest sigma */
    DR_SAMPLER_DPMSOLVER_PP, /* DPM++ 2M */
    DR_SAMPLER_DPMSINGLE,    /* DPM++ 2S */
    DR_SAMPLER_KINDS
} dr_sampler_kind;

/* All names, "k_" aliases included, separated by '|': a range of base/optparse.h. */
#define DR_SAMPLER_NAMES                                                                           \
    "ddim|pndm|lms|euler|euler_a|heun|dpm_2|dpm_2_a|dpmsolver|dpmsolver++|dpmsingle|k_lms|"        \
    "k_euler|k_euler_a|k_dpm_2|k_dpm_2_a"

typedef struct dr_sampler_options {
    dr_sampler_kind kind;
    dr_prediction prediction;
    int n_steps;
    bool karras; /* sigmas of Karras et al. 2022 (rho 7) */
    bool as_sd_scripts;
} dr_sampler_options;

enum { DR_SAMPLER_MAX_CALLS = 2 * DR_TRAIN_TIMESTEPS, DR_SAMPLER_HISTORY = 4 };

typedef struct dr_sampler {
    dr_sampler_options o;
    const dr_schedule *schedule; /* not owned */
    int n_calls;                 /* of the model */
    float init_noise_sigma;
    float timestep[DR_SAMPLER_MAX_CALLS];    /* what the model gets */
    float input_sigma[DR_SAMPLER_MAX_CALLS]; /* its input is x / sqrt(this^2 + 1) */
    float sigma[DR_TRAIN_TIMESTEPS + 1];     /* of each step, and where the last one ends */
    float middle[DR_TRAIN_TIMESTEPS];        /* dpm_2: sigma half way through a step */
    float down[DR_TRAIN_TIMESTEPS];          /* sigma that the step goes to before noise is added */
    float up[DR_TRAIN_TIMESTEPS];            /* sigma of that noise */
    /* of the picture in work */
    size_t n; /* elements of its latents */
    float *memory;
    float *history[DR_SAMPLER_HISTORY]; /* earlier outputs, newest first */
    int n_history;
    float *kept; /* latents at the start of a step of several calls */
} dr_sampler;

/* DR_INVALID for a name that is none of them. */
DR_MUST_USE dr_status dr_sampler_kind_from_name(const char *name, dr_sampler_kind *out);
/* "DPM++ 2M", "Euler a", ...: as the web interfaces write them into pictures. */
const char *dr_sampler_title(dr_sampler_kind kind);
/*
 * Errors: DR_INVALID (a number of steps that the method cannot do; karras with ddim, pndm or
 * euler_a, which have no such form). Takes no memory yet.
 */
DR_MUST_USE dr_status dr_sampler_init(dr_sampler *s, const dr_sampler_options *o,
                                      const dr_schedule *schedule);
void dr_sampler_deinit(dr_sampler *s);
/* A picture of n latent elements begins. DR_NOMEM. */
DR_MUST_USE dr_status dr_sampler_begin(dr_sampler *s, size_t n);
/* out = what the model gets for latents x in call i; out may be x. */
void dr_sampler_scale_input(const dr_sampler *s, int i, const float *x, float *out);
/* Whether the step of call i adds noise. */
bool dr_sampler_wants_noise(const dr_sampler *s, int i);
/* x becomes the latents after call i, in order from 0; model_output as predicted for the scaled
 * input; noise: standard normal where it is wanted, else NULL. */
void dr_sampler_step(dr_sampler *s, int i, const float *model_output, const float *noise, float *x);
/* Classifier-free guidance: out = uncond + scale (cond - uncond); out may be either input. */
void dr_guide(const float *uncond, const float *cond, float scale, float *out, size_t n);

#endif
