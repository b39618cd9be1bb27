/*
 * train/precision.h - the types in which a run keeps its numbers, and the loss scale of fp16.
 *
 * Layer:    train.
 *
 * mixed: weights are trained in F32; what the networks read is a copy of them in 16 bits, as are
 *        activations and their gradients. Gradients of weights, statistics, losses and optimizers
 *        are F32.
 * full:  weights are kept in 16 bits only, and their gradients too where a step has one leaf. An
 *        update widens a tensor, steps, and rounds back: BF16 stochastically, F16 to nearest.
 */
#ifndef DR_TRAIN_PRECISION_H
#define DR_TRAIN_PRECISION_H

#include "tensor/dtype.h"

typedef enum dr_precision_kind {
    DR_PRECISION_F32,
    DR_PRECISION_MIXED,
    DR_PRECISION_FULL
} dr_precision_kind;

typedef struct dr_precision { /* zeroed: all F32 */
    dr_precision_kind kind;
    bool bf16;         /* the 16 bits are BF16, else F16 */
    bool narrow_grads; /* gradients of weights have 16 bits, too */
} dr_precision;

/* Of activations and of the weights that the networks read; of what is trained; of gradients. */
dr_dtype dr_precision_compute(dr_precision p);
dr_dtype dr_precision_trained(dr_precision p);
dr_dtype dr_precision_grads(dr_precision p);
/* Whether what is trained and what the networks read are two arrays. */
bool dr_precision_has_masters(dr_precision p);
/* Whether losses are scaled: with F16 activations. */
bool dr_precision_scales_loss(dr_precision p);

/*
 * torch.amp.GradScaler: the loss is multiplied by scale, so that small gradients are F16 numbers. A
 * step whose gradients overflow is left out and halves it; 2000 steps without one double it.
 */
typedef struct dr_loss_scale {
    double scale;    /* 1 where losses are not scaled */
    int64_t good;    /* steps since it last changed */
    int64_t skipped; /* steps left out so far */
} dr_loss_scale;

dr_loss_scale dr_loss_scale_init(dr_precision p);
/* After a step whose gradients were finite, or not. */
void dr_loss_scale_update(dr_loss_scale *s, bool finite);
/* Below this a model's numbers do not fit F16 at all: 26 overflows in a row from the start. */
#define DR_LOSS_SCALE_LEAST 0x1p-10

#endif
