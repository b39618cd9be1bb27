/*
 * train/lora/lora_write.h - the file of a LoRA: safetensors with sd-scripts' hashes, or torch's
 * form.
 *
 * Layer:    train.
 */
#ifndef DR_TRAIN_LORA_WRITE_H
#define DR_TRAIN_LORA_WRITE_H

#include "io/safetensors.h"
#include "train/model/metadata.h"

typedef struct dr_lora_content { /* all borrowed */
    const dr_safetensors_entry *entries;
    size_t n_entries;
    const dr_metadata *meta;      /* of safetensors; torch's form has none                  */
    const char *adapter_metadata; /* Diffusers' "lora_adapter_metadata"; NULL: none         */
    /* The bytes of an entry in *out, which the caller frees, and their number. */
    dr_status (*bytes)(void *user, size_t i_entry, void **out, size_t *n);
    void *user;
} dr_lora_content;

/* Whether a path's ending means torch's form: .ckpt, .pt, .pth, .bin. */
bool dr_lora_is_torch(const char *path);
/*
 * Writes the file that path's ending asks for; all others than torch's are safetensors, with
 * sshs_model_hash and sshs_legacy_hash as sd-scripts computes them.
 * Errors: those of the writers, and of bytes.
 */
DR_MUST_USE dr_status dr_lora_write(const char *path, const dr_lora_content *c);

#endif
