/*
 * train/lora/lora_merge.h - LoRAs on a model: which module changes which weight, and changing it.
 *
 * Layer:    train.
 */
#ifndef DR_TRAIN_LORA_MERGE_H
#define DR_TRAIN_LORA_MERGE_H

#include "base/str.h"
#include "train/lora/lora_file.h"
#include "train/model/model_file.h"

/*
 * Appends sd-scripts' name of the module that a parameter belongs to:
 * "lora_unet_mid_block_attentions_0_proj_in" of "mid_block.attentions.0.proj_in.weight", and of its
 * bias. False, and nothing appended, for the VAE's and for what is neither.
 */
bool dr_lora_param_module(dr_model_part part, const dr_param *p, dr_str *out);
/* The module that changes the parameter, NULL: none. */
const dr_lora_module *dr_lora_for_param(const dr_lora_file *f, dr_model_part part,
                                        const dr_param *p);

/*
 * Whether the LoRA is one for this model. Warns of modules that the model does not have.
 * Errors: DR_FORMAT when it has none of them, or a weight has another shape (found and expected).
 */
DR_MUST_USE dr_status dr_lora_check_model(const dr_lora_file *f, const dr_model_config *c);

/* Adds ratio times the LoRA to the bound host values of a part, which are in the order of memory.
 * Errors: DR_NOMEM, those of reading. */
DR_MUST_USE dr_status dr_lora_merge_params(const dr_lora_file *f, double ratio, dr_model_part part,
                                           dr_params *set);

typedef struct dr_lora_layer { /* one LoRA of several */
    const dr_lora_file *file;
    double ratio;
} dr_lora_layer;

typedef struct dr_lora_stack { /* LoRAs that are added to a model in this order */
    const dr_lora_layer *at;
    size_t n;
    dr_dtype precision; /* to which a weight is rounded after each of them; F32: not at all */
} dr_lora_stack;

/* For dr_model_save; the stack must live until the model is saved. */
dr_model_edit dr_lora_stack_edit(const dr_lora_stack *s);

#endif
