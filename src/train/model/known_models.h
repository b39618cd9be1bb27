/*
 * train/model/known_models.h - official files of Stable Diffusion models, known by size and
 * SHA-256.
 *
 * Layer:    train.
 */
#ifndef DR_TRAIN_KNOWN_MODELS_H
#define DR_TRAIN_KNOWN_MODELS_H

#include "dreamrun/status.h"

typedef struct dr_known_model {
    const char *model, *file; /* "Stable Diffusion 1.5", "v1-5-pruned.safetensors" */
    int64_t bytes;
    const char *sha256;
} dr_known_model;

size_t dr_known_model_count(void);
const dr_known_model *dr_known_model_at(size_t i);
/* The file with this SHA-256 in lower-case hex; the first when several models share it; NULL. */
const dr_known_model *dr_known_model_by_hash(const char *sha256);

#endif
