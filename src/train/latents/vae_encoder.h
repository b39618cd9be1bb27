/*
 * train/latents/vae_encoder.h - the VAE's encoder with memory of its own: pixels in, moments out,
 * on the host.
 *
 * Layer:    train.
 */
#ifndef DR_TRAIN_VAE_ENCODER_H
#define DR_TRAIN_VAE_ENCODER_H

#include "models/vae/autoencoder.h"
#include "train/model/model_file.h"

typedef struct dr_vae_encoder {
    const dr_backend *backend;
    int threads;
    dr_arena arena;
    dr_params params;
    dr_autoencoder ae;
    void *values;
    dr_pool *pool;  /* made by the first run, for the largest batch so far */
    size_t planned; /* bytes that it will have at least */
} dr_vae_encoder;

/* Loads the encoder of the file's VAE. */
DR_MUST_USE dr_status dr_vae_encoder_open(dr_vae_encoder *e, const dr_backend *backend, int threads,
                                          const dr_model_file *file);
void dr_vae_encoder_close(dr_vae_encoder *e);
/* pixels (n,h,w,3), moments (n,h/8,w/8,dr_autoencoder_moment_channels), both on the host. */
DR_MUST_USE dr_status dr_vae_encoder_run(dr_vae_encoder *e, int64_t n, int64_t h, int64_t w,
                                         const float *pixels, float *moments);
/* Before a run: it will be asked for n pictures of that size. */
DR_MUST_USE dr_status dr_vae_encoder_plan(dr_vae_encoder *e, int64_t n, int64_t h, int64_t w);
/* Weights and activations, those planned included. */
size_t dr_vae_encoder_bytes(const dr_vae_encoder *e);

typedef struct dr_posterior { /* draws latents from moments, after the encoder has gone too */
    const dr_backend *backend;
    int threads;
    dr_pool *pool;
} dr_posterior;
/* moments (h,w,8) and noise (h,w,4) into latent (h,w,4), all on the host. */
DR_MUST_USE dr_status dr_posterior_draw(dr_posterior *p, int64_t h, int64_t w, const float *moments,
                                        const float *noise, float *latent);
void dr_posterior_deinit(dr_posterior *p);

#endif
