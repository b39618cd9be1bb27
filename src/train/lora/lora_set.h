/*
 * train/lora/lora_set.h - a LoRA in memory as factors per module, and its file in sd-scripts'
 * names.
 *
 * Layer:    train.
 * Ownership: a set owns its modules and their factors.
 */
#ifndef DR_TRAIN_LORA_SET_H
#define DR_TRAIN_LORA_SET_H

#include "train/lora/lora_file.h"
#include "train/model/metadata.h"

typedef struct dr_lora_shape { /* of the weight that a module changes */
    int64_t out, in, kernel[2];
    bool conv; /* the factors are stored with four sizes, also for 1x1 */
} dr_lora_shape;

typedef struct dr_lora_factors {
    const char *name; /* sd-scripts' */
    dr_lora_shape shape;
    int64_t rank;
    double alpha; /* the product counts alpha / rank times */
    float *down;  /* (rank, in * kernel) */
    float *up;    /* (out, rank) */
} dr_lora_factors;

typedef struct dr_lora_set {
    dr_arena arena; /* names */
    dr_lora_factors *at;
    size_t n, cap;
} dr_lora_set;

void dr_lora_set_init(dr_lora_set *s);
void dr_lora_set_deinit(dr_lora_set *s);
/* A fresh module with zero factors and alpha = rank; *out is valid until the next add. Errors:
 * DR_NOMEM. */
DR_MUST_USE dr_status dr_lora_set_add(dr_lora_set *s, const char *name, const dr_lora_shape *shape,
                                      int64_t rank, dr_lora_factors **out);
/* Columns of down. */
int64_t dr_lora_columns(const dr_lora_shape *shape);
/* The shape of a module of a file. */
dr_lora_shape dr_lora_module_shape(const dr_lora_module *m);
/*
 * The factors of a module whose kind is DR_LORA_FACTORS, unscaled; a core goes into down. up has
 * room for out * rank floats, down for rank * in * kernel. Errors: DR_NOMEM, those of reading.
 */
DR_MUST_USE dr_status dr_lora_factors_read(const dr_lora_file *f, const dr_lora_module *m,
                                           float *up, float *down);

/*
 * Metadata that every LoRA file has: ss_v2, ss_base_model_version, ss_network_module
 * ("networks.lora"), ss_network_dim and _alpha ("Dynamic" where modules differ); args: JSON of
 * ss_network_args, NULL: no key.
 */
void dr_lora_set_describe(const dr_lora_set *s, bool v2, bool v_prediction, const char *args,
                          dr_metadata *m);
/*
 * Writes the set: safetensors with sshs_model_hash and sshs_legacy_hash as sd-scripts computes
 * them, or, where path ends in .ckpt, .pt, .pth or .bin, torch's form without metadata.
 * Errors: those of the writers; DR_INVALID for another ending.
 */
DR_MUST_USE dr_status dr_lora_set_write(const dr_lora_set *s, const char *path, dr_dtype dtype,
                                        const dr_metadata *m);
/* Whether path has an ending that can be written, and its folder can be written into. Errors:
 * DR_INVALID, DR_OUTPUT. */
DR_MUST_USE dr_status dr_lora_check_target(const char *path);

#endif
