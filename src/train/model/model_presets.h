/*
 * train/model/model_presets.h - configs of known models, and random weights for them.
 *
 * Layer:    train.
 */
#ifndef DR_TRAIN_MODEL_PRESETS_H
#define DR_TRAIN_MODEL_PRESETS_H

#include "train/model/model_file.h"

/*
 * Full size: "sd1", "sd2" (512 base, epsilon), "sd2v" (768, v). Tiny ones of the same topology,
 * whose steps take a fraction of a second on a CPU: "tiny", "tiny2", "tiny2v". DR_INVALID lists
 * them.
 */
DR_MUST_USE dr_status dr_model_preset(const char *name, dr_model_config *out);

typedef struct dr_model_init {
    const char *path;
    dr_save_format format;
    uint64_t seed;
} dr_model_init;

/*
 * Writes a model with random weights, as torch initialises these layers: linear and convolution
 * uniform in +-1/sqrt(fan-in), bias alike, norms 1 and 0, embeddings normal with deviation 0.02.
 * Numbers depend on the seed and the parameter's place alone. Errors: as dr_model_file_save.
 */
DR_MUST_USE dr_status dr_model_write_random(const dr_model_config *config, const dr_model_init *o);

#endif
