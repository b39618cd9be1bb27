/*
 * train/lora/lora_norms.h - --scale_weight_norms: modules whose difference is larger than a limit
 * are scaled down to it.
 *
 * Layer:    train.
 * Source:   apply_max_norm_regularization of sd-scripts' networks/lora.py and of LyCORIS 4.1.3.
 */
#ifndef DR_TRAIN_LORA_NORMS_H
#define DR_TRAIN_LORA_NORMS_H

#include "train/network.h"

typedef struct dr_lora_norms { /* of the trained modules, after scaling */
    int64_t n_scaled;
    double mean, largest; /* LyCORIS: 0 when none was scaled */
} dr_lora_norms;

/*
 * With the norm n of a module's difference, and ratio = limit / n where n is over the limit: its
 * factors are multiplied by the root of ratio that makes their product ratio times as large; where
 * a module has a scalar (but LoKr), that alone is. What the networks read follows. The same on
 * every rank. cx: of the compute dtype; dry: only the memory is counted.
 */
DR_MUST_USE dr_status dr_lora_limit_norms(dr_network *n, dr_context *cx, double limit,
                                          dr_lora_norms *out);

#endif
