/*
 * train/optim/optimizer.h - an optimizer over groups of parameters: its settings, state and step.
 *
 * Layer:    train.
 * Types:    states are F32 (or codes). Weights and gradients of 16 bits are widened for the update
 *           of a tensor and the weights rounded back: BF16 stochastically, by (seed, updates so
 *           far, element), F16 to nearest. The copies are scratch memory of the context.
 * Memory:   all state is one device allocation, counted by dr_optimizer_state_bytes before it is
 *           made. State arrays are in memory order, like the values they belong to.
 * Ranks:    every rank computes the same step from the same numbers; where parameters have owners
 *           (dr_optim_group.owner) each rank holds the state of its own and updates those only.
 *
 * Life:     create, state_bytes (for the plan), alloc, begin (weights are loaded), then step after
 *           step. To save or sample: eval, ..., train. A saved run restores every blob and scalar
 *           after begin and goes on with the same bits.
 */
#ifndef DR_TRAIN_OPTIMIZER_H
#define DR_TRAIN_OPTIMIZER_H

#include "nn/params.h"
#include "train/optim/optimizer_settings.h"

typedef struct dr_optim_group { /* outlives the optimizer */
    const char *name;           /* "unet", "text_encoder": prefix of its states' names */
    const dr_param *const *at;  /* of one dr_params set, offsets ascending */
    size_t n;
    double lr;
    const int *owner; /* (n): the rank that updates each, ascending; NULL: every rank does */
} dr_optim_group;

typedef struct dr_optimizer dr_optimizer;

typedef struct dr_optimizer_config {
    dr_optim_settings settings;
    const dr_optim_group *groups; /* copied */
    size_t n_groups;
    bool by_segment;  /* dr_optimizer_step_range will be used: no update spans two segments */
    double ema_decay; /* largest decay of a running average of the weights; 0: none is kept */
    bool narrow;      /* weights or gradients may have 16 bits: no update spans two tensors */
    uint64_t seed;    /* of the rounding of BF16 weights */
    int rank, world;  /* with owners: which rank this is, of how many */
} dr_optimizer_config;

/* DR_INVALID for groups or settings that this optimizer cannot do together. */
DR_MUST_USE dr_status dr_optimizer_create(const dr_optimizer_config *c, dr_optimizer **out);
void dr_optimizer_destroy(dr_optimizer *o);
/* Of the rank that holds most, and of all ranks together. */
size_t dr_optimizer_state_bytes(const dr_optimizer *o);
size_t dr_optimizer_all_state_bytes(const dr_optimizer *o);
/* Zeroed state on the device (not owned). */
DR_MUST_USE dr_status dr_optimizer_alloc(dr_optimizer *o, const dr_device *device);
/* States that start from the weights take them: parameters are bound and loaded. */
DR_MUST_USE dr_status dr_optimizer_begin(dr_optimizer *o, dr_context *cx);

typedef struct dr_optim_step {
    double lr_factor;   /* of the schedule; every group's lr is multiplied by it */
    double grad_scale;  /* gradients are multiplied by it first (clipping, loss scale); 1: none */
    const bool *frozen; /* per group: it gets no gradient in this step and stays; NULL: none */
} dr_optim_step;

/* One update of all groups that are not frozen. Works on a dry context. */
DR_MUST_USE dr_status dr_optimizer_step(dr_optimizer *o, dr_context *cx, const dr_optim_step *s);

/*
 * The same in pieces, while gradients become final: step_begin, every range once, in any order,
 * step_end. Only when dr_optimizer_is_local: each piece needs nothing of the others.
 */
bool dr_optimizer_is_local(const dr_optimizer *o);
void dr_optimizer_step_begin(dr_optimizer *o, const dr_optim_step *s);
/* Parameters of the group that lie in [begin, end) of its set's elements. */
DR_MUST_USE dr_status dr_optimizer_step_range(dr_optimizer *o, dr_context *cx, size_t group,
                                              int64_t begin, int64_t end);
DR_MUST_USE dr_status dr_optimizer_step_end(dr_optimizer *o, dr_context *cx);

/*
 * Trained weights that are not those of the steps (the running average; schedule-free optimizers):
 * eval puts the former into the parameters, train brings the latter back, bit for bit. Nothing
 * where there are none. In between, schedule-free optimizers use the gradient memory.
 *
 * The average is diffusers' EMAModel: after update t (from 1), average = lerp(average, weights,
 * 1 - decay), decay = 0 for t = 1, else min((1 + t - 1) / (10 + t - 1), ema_decay).
 */
DR_MUST_USE dr_status dr_optimizer_eval(dr_optimizer *o, dr_context *cx);
DR_MUST_USE dr_status dr_optimizer_train(dr_optimizer *o, dr_context *cx);

/* --- what a state file holds ------------------------------------------------------------------ */

typedef struct dr_optim_blob {
    char name[160]; /* "unet.conv_in.weight.exp_avg" */
    dr_dtype dtype;
    int64_t n;  /* elements */
    void *data; /* on the device; of another rank's: not to be used */
    int owner;  /* the rank that holds it; without owners this one */
} dr_optim_blob;

size_t dr_optimizer_n_blobs(const dr_optimizer *o);
/* Blob i; names and order depend on settings and groups alone, not on owners. */
void dr_optimizer_blob(const dr_optimizer *o, size_t i, dr_optim_blob *out);

typedef struct dr_optim_scalar {
    char name[64]; /* "unet.step", "d" */
    double *value; /* counts are whole numbers; restore by writing it */
} dr_optim_scalar;

size_t dr_optimizer_n_scalars(const dr_optimizer *o);
dr_optim_scalar dr_optimizer_scalar(const dr_optimizer *o, size_t i);

/* For logs: the rate that the last step used for a group (d * lr, Adafactor's own rate). */
double dr_optimizer_last_lr(const dr_optimizer *o, size_t group);
/* The same to be written: with owners Adafactor's is known to the owner of the group's first
 * parameter. */
double *dr_optimizer_rate(dr_optimizer *o, size_t group);
/* Whether dr_optimizer_eval changes weights at all. */
bool dr_optimizer_has_other_weights(const dr_optimizer *o);
/* The estimate d of Prodigy and D-Adaptation; 0 for the others. */
double dr_optimizer_d(const dr_optimizer *o);

#endif
