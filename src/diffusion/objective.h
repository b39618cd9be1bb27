/*
 * diffusion/objective.h - what a sample's loss is: its noise, its timestep, its weight.
 *
 * Layer:    diffusion.
 * Source:   sd-scripts library/custom_train_functions.py and train_util.py; spec sdscripts.md 6.
 *
 * Everything random comes in as numbers that the caller drew; these functions are pure. Order of
 * use, as in sd-scripts: noise offset, multi-resolution noise, then timestep and input noise.
 */
#ifndef DR_DIFFUSION_OBJECTIVE_H
#define DR_DIFFUSION_OBJECTIVE_H

#include "diffusion/schedule.h"

typedef enum dr_huber_schedule {
    DR_HUBER_SNR, /* "snr"                   */
    DR_HUBER_EXPONENTIAL,
    DR_HUBER_CONSTANT
} dr_huber_schedule;

typedef struct dr_objective { /* zero: plain noise, all timesteps, unweighted */
    dr_prediction prediction;
    double noise_offset;         /* 0: none */
    double adaptive_noise_scale; /* 0: none; with noise_offset */
    bool noise_offset_random;    /* strengths are drawn, up to noise_offset */
    int multires_iterations;     /* 0: none */
    double multires_discount;
    double ip_noise_gamma; /* 0: none */
    bool ip_noise_gamma_random;
    bool zero_terminal_snr;
    int min_timestep, max_timestep; /* max 0: 1000 */
    double min_snr_gamma;           /* 0: off */
    bool scale_v_pred_like_noise_pred;
    double v_pred_like_loss; /* 0: off */
    bool debiased_estimation;
    dr_huber_schedule huber_schedule;
    double huber_c, huber_scale;
} dr_objective;

/* Timesteps are first + an integer in [0, count); count 1: all are first. */
void dr_objective_timesteps(const dr_objective *o, int *first, int *count);

/*
 * Factor of a sample's loss at timestep t: min-SNR, then scale_v_pred, v_pred_like and debiased.
 * plain: the schedule before zero_terminal_snr, whose SNR sd-scripts weighs with.
 */
float dr_objective_weight(const dr_objective *o, const dr_schedule *plain, int t);
/* Threshold c of the huber and smooth_l1 losses at timestep t; used: the schedule of the run. */
float dr_objective_huber_c(const dr_objective *o, const dr_schedule *used, int t);

/*
 * noise (pixels, channels) += strength * draw[c] in every pixel. strength: noise_offset, times
 * `uniform` when random, and adaptive_noise_scale * |mean of the latents' channel| more, at least
 * 0.
 */
void dr_objective_offset_noise(const dr_objective *o, float uniform, const float *latents,
                               const float *draw, int64_t pixels, int64_t channels, float *noise);

/* Size of level i of multi-resolution noise: max(1, int(size / r^i)), r in [2, 4). */
int64_t dr_objective_level_size(int64_t size, double r, int level);
/* noise (h,w,c) += discount^level * draw (lh,lw,c), enlarged bilinearly as torch.nn.Upsample does.
 */
void dr_objective_add_level(const dr_objective *o, int level, const float *draw, int64_t lh,
                            int64_t lw, int64_t h, int64_t w, int64_t channels, float *noise);
/* Divides by the standard deviation of all n values (unbiased). */
void dr_objective_unit_deviation(float *noise, int64_t n);

#endif
