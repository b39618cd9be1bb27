/*
 * models/vae/autoencoder.h - the trainer's view of a VAE, whichever of the two kinds it is.
 *
 * Layer:    models.
 * Frozen: forward only. Latents here are as the cache stores them; the U-Net works on
 * dr_autoencoder_scale() times that (KL: 0.18215, tiny: 1, its latents are scaled already).
 */
#ifndef DR_AUTOENCODER_H
#define DR_AUTOENCODER_H

#include "models/vae/taesd.h"
#include "models/vae/vae.h"

typedef enum dr_vae_kind {
    DR_VAE_KL,  /* AutoencoderKL   */
    DR_VAE_TINY /* AutoencoderTiny */
} dr_vae_kind;

typedef struct dr_autoencoder_config {
    dr_vae_kind kind;
    dr_vae_config kl;     /* of DR_VAE_KL   */
    dr_taesd_config tiny; /* of DR_VAE_TINY */
} dr_autoencoder_config;

typedef struct dr_autoencoder {
    dr_vae_kind kind;
    dr_vae kl;
    dr_taesd tiny;
} dr_autoencoder;

/* DR_FORMAT with the key's name when the sizes make no network. */
DR_MUST_USE dr_status dr_autoencoder_config_check(const dr_autoencoder_config *c);
/* Registers the halves that are wanted and marks them as not trainable. */
void dr_autoencoder_init(dr_autoencoder *ae, const dr_autoencoder_config *config, dr_params *set,
                         bool encoder, bool decoder);
double dr_autoencoder_scale(const dr_autoencoder *ae);
/* Pixels per latent pixel along one axis: 8. */
int64_t dr_autoencoder_factor(const dr_autoencoder *ae);
/* Channels of a latent: 4. */
int64_t dr_autoencoder_channels(const dr_autoencoder *ae);

/* Channels of what the encoder gives: 8, [mean | logvar] of the posterior; 4 for the tiny kind. */
int64_t dr_autoencoder_moment_channels(const dr_autoencoder *ae);

/* images (N,H,W,3) in -1..1, sides divisible by the factor; moments (N,h,w,moment channels). */
DR_MUST_USE dr_status dr_autoencoder_moments(dr_context *cx, const dr_autoencoder *ae,
                                             const dr_tensor *images, dr_tensor *moments);
/*
 * images (N,H,W,3) in -1..1, sides divisible by the factor; latents (N,h,w,4), not scaled.
 * noise (as latents): the posterior is sampled with it; NULL: its mean. The tiny kind has no
 * posterior and ignores noise.
 */
DR_MUST_USE dr_status dr_autoencoder_encode(dr_context *cx, const dr_autoencoder *ae,
                                            const dr_tensor *images, const dr_tensor *noise,
                                            dr_tensor *latents);
/* latents (N,h,w,4) as encode gives them, not scaled; images (N,H,W,3) around -1..1, not clamped.
 */
DR_MUST_USE dr_status dr_autoencoder_decode(dr_context *cx, const dr_autoencoder *ae,
                                            const dr_tensor *latents, dr_tensor *images);

#endif
