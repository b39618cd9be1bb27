/*
 * train/lora/lora_save.h - the file of a trained LoRA.
 *
 * Layer:    train.
 */
#ifndef DR_TRAIN_LORA_SAVE_H
#define DR_TRAIN_LORA_SAVE_H

#include "tensor/device.h"
#include "train/lora/lora_network.h"
#include "train/model/metadata.h"

typedef struct dr_lora_save {
    const char *path; /* .safetensors, .ckpt or .pt */
    dr_lora_dialect dialect;
    dr_dtype dtype;          /* F32, F16 or BF16; alphas too */
    const dr_metadata *meta; /* safetensors only */
    const dr_device *device; /* where the parameters are bound */
} dr_lora_save;

/*
 * Writes all modules, atomically. In sd-scripts' names with sshs_model_hash and sshs_legacy_hash as
 * it computes them; in those of Diffusers ("unet.<path>.lora_A.weight") with alpha / rank
 * multiplied into lora_B, since that form has no alpha. Torch's files are the tensors alone.
 * Errors: those of the writers and of the device.
 */
DR_MUST_USE dr_status dr_lora_network_save(const dr_lora_network *l, const dr_lora_save *s);

#endif
