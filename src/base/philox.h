/*
 * base/philox.h - counter-based random numbers: every draw is a function of its key.
 *
 * Layer:    base.
 * Source:   Philox4x32-10, Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
 *
 * A stream is (seed, purpose, time, item): time is an epoch or a global step, item a global sample
 * index. Draws do not depend on ranks, threads, workers or on where a run was stopped.
 */
#ifndef DR_BASE_PHILOX_H
#define DR_BASE_PHILOX_H

#include <stddef.h>
#include <stdint.h>

typedef enum dr_purpose { /* never renumber: these values are part of what a seed means */
                          DR_RANDOM_INIT = 0,     /* initial weights                    */
                          DR_RANDOM_SHUFFLE = 1,  /* order of samples in an epoch       */
                          DR_RANDOM_NOISE = 2,    /* training noise                     */
                          DR_RANDOM_TIMESTEP = 3, /* training timesteps                 */
                          DR_RANDOM_VAE = 4,      /* VAE posterior sample               */
                          DR_RANDOM_FLIP = 5,     /* flip augmentation                  */
                          DR_RANDOM_CAPTION = 6,  /* caption shuffle, dropout           */
                          DR_RANDOM_SAMPLE = 7,   /* sampling: initial latent           */
                          DR_RANDOM_CROP = 8,     /* random crop                        */
                          DR_RANDOM_COLOR = 9,    /* colour augmentation                */
                          DR_RANDOM_NOISE_STRENGTH =
                              10,                      /* of noise offset; sizes of noise levels */
                          DR_RANDOM_NOISE_OFFSET = 11, /* noise offset per channel           */
                          DR_RANDOM_NOISE_LEVELS = 12, /* multi-resolution noise             */
                          DR_RANDOM_INPUT_STRENGTH = 13,   /* of input perturbation              */
                          DR_RANDOM_INPUT_NOISE = 14,      /* input perturbation                 */
                          DR_RANDOM_ROUNDING = 15,         /* of weights kept in BF16            */
                          DR_RANDOM_VALIDATION = 16,       /* pictures kept for validation       */
                          DR_RANDOM_MODULE_DROPOUT = 17,   /* modules of a LoRA left out         */
                          DR_RANDOM_ADAPTER_ELEMENTS = 18, /* of a LoRA's down(x) left out     */
                          DR_RANDOM_ADAPTER_RANKS = 19,    /* ranks of it                      */
                          DR_RANDOM_ADAPTER_ROWS = 20,     /* rows of a LoRA's difference      */
                          DR_RANDOM_ADAPTER_OUTPUT = 21    /* elements of what a LoRA adds     */
} dr_purpose;

typedef struct dr_philox {
    uint32_t key[2];
    uint32_t counter[4]; /* [0] counts blocks of four draws inside the stream */
    uint32_t block[4];
    unsigned used; /* draws of block already handed out; 4 = none left */
} dr_philox;

/* Starts a stream. */
void dr_philox_init(dr_philox *p, uint64_t seed, dr_purpose purpose, uint32_t time, uint64_t item);
uint32_t dr_philox_u32(dr_philox *p);
/* Uniform in [0, 1), 24 bits. */
float dr_philox_uniform(dr_philox *p);
/* Uniform integer in [0, n), unbiased; n >= 1. */
uint32_t dr_philox_below(dr_philox *p, uint32_t n);
/* n standard normals (Box-Muller in double, rounded to float). */
void dr_philox_normal(dr_philox *p, float *out, size_t n);
/* Fisher-Yates permutation of 0..n-1 into out. */
void dr_philox_permutation(dr_philox *p, uint32_t *out, uint32_t n);

/* The raw block function, for tests against the published vectors. */
void dr_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

#endif
