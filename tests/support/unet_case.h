/*
 * tests/support/unet_case.h - one U-Net training step on golden inputs, on any backend.
 */
#ifndef DR_UNET_CASE_H
#define DR_UNET_CASE_H

#include "models/unet/unet.h"

typedef struct dr_unet_case_config {
    dr_unet_config unet;
    const dr_backend *backend;
    int64_t batch, height, width, context_length; /* latent size, in pixels */
    int threads;
    bool checkpointing;
    bool forward_only;
} dr_unet_case_config;

typedef struct dr_unet_case {
    dr_unet_case_config c;
    dr_arena arena;
    dr_params params;
    dr_unet unet;
    dr_unet_run *run;
    void *values, *grads; /* flat, of the backend's dtype */
    size_t plan_bytes;    /* peak of the dry walk */
    size_t peak_bytes;    /* peak of the real one */
    double *out;          /* prediction in (N,C,H,W) order */
    double loss;          /* mean((out - noise)^2) */
    int n_ready;          /* segments reported by backward */
    bool ready_in_order;  /* descending, without gaps, down to 0 */
    int64_t last_begin;
} dr_unet_case;

/* SD 1.x-like and 2.x-like configs with the given channels (4 levels) and context width. */
dr_unet_config dr_unet_case_sd1(const int64_t channels[4], int64_t context, int heads);
dr_unet_config dr_unet_case_sd2(const int64_t channels[4], int64_t context, const int heads[4]);

/* Golden weights and inputs (models.md 11), timesteps 1 and 981 alternating. */
void dr_unet_case_create(dr_unet_case *u, const dr_unet_case_config *c);
/* Plans dry, then runs forward, loss and backward; gradients start at zero. */
void dr_unet_case_step(dr_unet_case *u);
/* Peak of the activations of such a step, in bytes; nothing of the network is allocated. */
size_t dr_unet_case_plan(const dr_unet_case_config *c);
void dr_unet_case_destroy(dr_unet_case *u);
/* Gradient of an entry in file order; the caller frees it. */
double *dr_unet_case_gradient(const dr_unet_case *u, const char *name, size_t *n);

#endif
