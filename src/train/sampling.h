/*
 * train/sampling.h - pictures from prompts: text encoder, U-Net with guidance, sampler, VAE.
 *
 * Layer:    train.
 * Memory:   the networks' weights are dr_network's; this adds the VAE's decoder and one pool for
 *           activations, sized by a dry walk. Pictures are made one at a time, so neither memory
 *           nor pixels depend on how many are asked for.
 * Errors:   after an error only dr_sampling_deinit may follow.
 */
#ifndef DR_TRAIN_SAMPLING_H
#define DR_TRAIN_SAMPLING_H

#include "diffusion/sampler.h"
#include "image/image.h"
#include "models/vae/autoencoder.h"
#include "text/tokenizer.h"
#include "train/network.h"

typedef struct dr_sampling_options {
    dr_sampler_kind sampler;
    int n_steps;
    float cfg_scale;       /* 1 and below: one U-Net pass per step, the negative prompt is unused */
    int64_t width, height; /* pixels, multiples of dr_sampling_multiple() */
} dr_sampling_options;

typedef struct dr_sampling {
    dr_sampling_options o;
    dr_network *net; /* not owned */
    dr_tokenizer *tokenizer;
    dr_unet_run *unet_run; /* keeps nothing for backward, also where the network is trained */
    dr_arena arena;
    dr_params vae_params;
    dr_autoencoder ae; /* decoder only */
    void *vae_values;
    dr_schedule schedule;
    dr_sampler sampler;
    int64_t h, w, channels; /* of a latent */
    int n_texts;            /* 2 with guidance, else 1 */
    size_t work_bytes;      /* activations, by the dry walk */
    dr_pool *pool;
    int32_t *ids;        /* (n_texts*rows,77) */
    float *input, *pred; /* (n_texts,h,w,channels) */
    float *pixels;       /* (height,width,3) */
} dr_sampling;

/* What width and height must be multiples of: 64 for Stable Diffusion. */
int64_t dr_sampling_multiple(const dr_model_config *config);
/*
 * Checks options and model and plans the memory; allocates nothing on the device. net outlives s;
 * one that is not loaded yet is bound to planning addresses, and must be loaded before run.
 * dr_sampling_deinit must follow, also after an error.
 * Errors: DR_INVALID (sizes, steps), DR_FORMAT (networks that do not fit each other).
 */
DR_MUST_USE dr_status dr_sampling_init(dr_sampling *s, dr_network *net,
                                       const dr_model_config *config, const dr_sampling_options *o);
/* Bytes of the VAE decoder's weights. */
size_t dr_sampling_vae_bytes(const dr_sampling *s);
/* Takes the planned memory and loads the VAE's decoder. */
DR_MUST_USE dr_status dr_sampling_load(dr_sampling *s, const dr_model_file *file);
void dr_sampling_deinit(dr_sampling *s);

/* Floats of one latent, (h,w,channels). */
size_t dr_sampling_latent_elems(const dr_sampling *s);
/* Standard normal start latent of a picture: a function of its seed and size alone. */
void dr_sampling_noise(const dr_sampling *s, uint64_t seed, float *latent);

typedef struct dr_sampling_prompt {
    const char *prompt, *negative_prompt;                  /* UTF-8 */
    void (*progress)(void *user, int n_done, int n_steps); /* NULL: none */
    void *user;
} dr_sampling_prompt;

/* latent: in, standard normal; out, what the VAE decodes, scaled as the U-Net sees it.
 * Errors: DR_FORMAT (a prompt that is not UTF-8), DR_NUMERIC (NaN or infinity came out). */
DR_MUST_USE dr_status dr_sampling_run(dr_sampling *s, const dr_sampling_prompt *p, float *latent);
/* The picture of a latent that dr_sampling_run made; the caller frees it. */
DR_MUST_USE dr_status dr_sampling_decode(dr_sampling *s, const float *latent, dr_image *out);

#endif
