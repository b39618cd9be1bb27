/*
 * train/dump.h - what a step saw and made, as safetensors that anybody can check against another
 * implementation (--dump_dir, --dump_steps; docs/dump-format.md).
 *
 * Layer:    train.
 */
#ifndef DR_TRAIN_DUMP_H
#define DR_TRAIN_DUMP_H

#include "data/epoch_plan.h"
#include "train/network.h"

typedef struct dr_dump dr_dump; /* the leaves of one step of this rank, copied to the host */

typedef struct dr_dump_leaf { /* host values beside the leaf's tensors */
    const dr_leaf_input *in;
    const dr_leaf_output *out;
    const int32_t *timesteps;     /* (N) */
    const float *loss_weights;    /* (N): 1 or prior_loss_weight */
    const char *const *keys;      /* (N): path of the picture */
    const dr_sample_ref *samples; /* (N) */
} dr_dump_leaf;

typedef struct dr_dump_step {
    const char *dir;
    int64_t step;   /* from 1 */
    uint32_t epoch; /* from 1 */
    int rank;
    uint64_t global_batch;
    double lr_unet, lr_text_encoder, grad_norm, loss;
    double loss_scale;           /* the gradients in memory are divided by it */
    const dr_network *gradients; /* NULL: not in this rank's file */
} dr_dump_step;

dr_dump *dr_dump_create(int n_rows);
void dr_dump_destroy(dr_dump *d); /* NULL is fine */
/* Copies a leaf's tensors to the host. */
DR_MUST_USE dr_status dr_dump_add(dr_dump *d, dr_context *cx, const dr_dump_leaf *leaf);
/*
 * Writes "step-%06d-rank%d.safetensors" in dir (made when absent) and empties d. Images are in
 * (N,C,H,W) order. Leaves of one shape are one tensor; else names end in ".leaf<k>".
 */
DR_MUST_USE dr_status dr_dump_write(dr_dump *d, const dr_dump_step *s);

#endif
