/*
 * train/sample/sampling.h - pictures from prompts: text encoder, U-Net with guidance, sampler, VAE.
 *
 * Layer:    train.
 * Memory:   the networks' weights are dr_network's. This adds activations, in a pool that a dry
 *           walk of every request has sized, and the VAE's decoder: in memory of its own, or inside
 *           the pool while a picture is decoded. Pictures are made one at a time, so neither memory
 *           nor pixels depend on how many are asked for.
 * Order:    init; plan every request; open; then pictures: noise, run, decode.
 */
#ifndef DR_TRAIN_SAMPLING_H
#define DR_TRAIN_SAMPLING_H

#include "diffusion/sampler.h"
#include "image/image.h"
#include "models/vae/autoencoder.h"
#include "train/network.h"
#include "train/sample/sample_text.h"

typedef struct dr_sampling_options {
    bool as_sd_scripts; /* samplers and padding; diffusion/sampler.h, train/sample/sample_text.h */
    bool zero_terminal_snr; /* the model was trained with a schedule that ends in pure noise */
    int max_rows;           /* of 75 tokens; longer prompts are cut */
    bool vae_in_pool;       /* the decoder's weights are read anew for every picture */
} dr_sampling_options;

typedef struct dr_sample_request { /* strings are UTF-8 and outlive their use */
    const char *prompt, *negative_prompt;
    dr_sampler_kind sampler;
    bool karras;
    int n_steps;
    float cfg_scale;       /* 1 and below: one U-Net pass per call, the negative prompt is unused */
    int64_t width, height; /* pixels, multiples of dr_sampling_multiple() */
    uint64_t seed;
} dr_sample_request;

typedef struct dr_sampling {
    dr_sampling_options o;
    dr_network *net;           /* not owned */
    const dr_model_file *file; /* not owned; from open on */
    dr_tokenizer *tokenizer;
    dr_tokenizer_kind tokenizer_kind;
    dr_prediction prediction;
    dr_unet_run *unet_run; /* keeps nothing for backward, also where the network is trained */
    dr_arena arena;
    dr_params vae_params;
    dr_autoencoder ae; /* decoder only */
    int64_t multiple;
    void *vae_values; /* NULL: in the pool */
    dr_schedule schedule;
    dr_sampler sampler; /* of the picture in work */
    size_t work_bytes;  /* of the pool, by the dry walks so far */
    dr_pool *pool;
    bool owns_pool;
} dr_sampling;

/* What width and height must be multiples of: 64 for Stable Diffusion. */
int64_t dr_sampling_multiple(const dr_model_config *config);
/*
 * Checks the model; allocates nothing on the device. net outlives s; one that is not loaded yet is
 * bound to planning addresses, and must be loaded before open. dr_sampling_deinit must follow, also
 * after an error.
 * Errors: DR_FORMAT (networks that do not fit each other).
 */
DR_MUST_USE dr_status dr_sampling_init(dr_sampling *s, dr_network *net,
                                       const dr_model_config *config, const dr_sampling_options *o);
/* Checks a request and raises work_bytes to what it needs. DR_INVALID (sizes, steps), DR_FORMAT. */
DR_MUST_USE dr_status dr_sampling_plan(dr_sampling *s, const dr_sample_request *q);
/* Bytes of the VAE decoder's weights. */
size_t dr_sampling_vae_bytes(const dr_sampling *s);
/* Takes the planned memory, or borrows a pool that has it; reads the decoder unless vae_in_pool.
 * file outlives s. */
DR_MUST_USE dr_status dr_sampling_open(dr_sampling *s, const dr_model_file *file, dr_pool *pool);
void dr_sampling_deinit(dr_sampling *s);

/* Size of the request's latents, (h,w,channels), and their floats. */
void dr_sampling_shape(const dr_sampling *s, const dr_sample_request *q, int64_t shape[3]);
size_t dr_sampling_latent_elems(const dr_sampling *s, const dr_sample_request *q);
/* Standard normal start latent of a picture: a function of its seed and size alone. */
void dr_sampling_noise(const dr_sampling *s, const dr_sample_request *q, float *latent);

typedef struct dr_sampling_watch {                           /* NULL members: not wanted */
    void (*progress)(void *user, int n_done, int n_calls);   /* after each call of the U-Net */
    void (*noise)(void *user, const float *noise, size_t n); /* what an ancestral step adds */
    void *user;
} dr_sampling_watch;

/* latent: in, standard normal; out, what the VAE decodes, scaled as the U-Net sees it. watch: NULL
 * for none. Errors: DR_FORMAT (a prompt that is not UTF-8), DR_NUMERIC (NaN or infinity came out),
 * DR_NOMEM. */
DR_MUST_USE dr_status dr_sampling_run(dr_sampling *s, const dr_sample_request *q,
                                      const dr_sampling_watch *watch, float *latent);
/* The picture of a latent that dr_sampling_run made; the caller frees it. */
DR_MUST_USE dr_status dr_sampling_decode(dr_sampling *s, const dr_sample_request *q,
                                         const float *latent, dr_image *out);

#endif
