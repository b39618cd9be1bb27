/*
 * models/vae/vae.h - AutoencoderKL of Stable Diffusion 1.x and 2.x, forward only.
 *
 * Layer:    models.
 * Registry: encoder (with quant_conv) and decoder (with post_quant_conv) are one segment each.
 * Memory:   activations are freed as soon as the next layer has read them: the peak is about three
 *           images of the widest level.
 */
#ifndef DR_VAE_H
#define DR_VAE_H

#include "nn/mha.h"
#include "nn/resblock.h"

enum { DR_VAE_MAX_LEVELS = 8 };

typedef struct dr_vae_config {
    int64_t in_channels, out_channels, latent_channels; /* 3, 3, 4 */
    int n_levels;
    int64_t channels[DR_VAE_MAX_LEVELS]; /* block_out_channels: 128, 256, 512, 512 */
    int layers_per_block;                /* 2; the decoder has one more */
    int norm_groups;                     /* 32; eps is 1e-6 everywhere */
    double scaling_factor;               /* 0.18215 */
} dr_vae_config;

/* DR_FORMAT with the key's name when the sizes make no network. */
DR_MUST_USE dr_status dr_vae_config_check(const dr_vae_config *c);

typedef struct dr_vae_level {
    int n_res;
    dr_resblock *res;
    dr_conv_layer resample; /* after the blocks; w NULL: none */
} dr_vae_level;

typedef struct dr_vae_half { /* encoder or decoder; n_levels 0: absent */
    dr_conv_layer conv_in, conv_out;
    int n_levels;
    dr_vae_level level[DR_VAE_MAX_LEVELS];
    dr_resblock mid[2];
    dr_norm_layer mid_norm;
    dr_mha mid_attn; /* one head */
    dr_norm_layer norm_out;
    dr_linear_layer quant; /* encoder: after conv_out; decoder: before conv_in; 1x1 */
} dr_vae_half;

typedef struct dr_vae {
    dr_vae_config config;
    dr_vae_half encoder, decoder;
} dr_vae;

/* Registers the halves that are wanted under Diffusers' names; the set must outlive v. The config
 * must have passed dr_vae_config_check. */
void dr_vae_init(dr_vae *v, const dr_vae_config *config, dr_params *set, bool encoder,
                 bool decoder);
/* images (N,H,W,3) in -1..1, H and W divisible by 2^(levels-1); moments (N,h,w,8) = [mean |
 * logvar], logvar not clamped. */
DR_MUST_USE dr_status dr_vae_encode(dr_context *cx, const dr_vae *v, const dr_tensor *images,
                                    dr_tensor *moments);
/* latents (N,h,w,4), not scaled; images (N,H,W,3), not clamped. */
DR_MUST_USE dr_status dr_vae_decode(dr_context *cx, const dr_vae *v, const dr_tensor *latents,
                                    dr_tensor *images);

#endif
