/*
 * train/lora/lora_facts.h - what a LoRA file says of itself by its names and shapes.
 *
 * Layer:    train.
 * Source:   the names that sd-scripts, LyCORIS, diffusers, PEFT and cloneofsimo's lora write.
 */
#ifndef DR_TRAIN_LORA_FACTS_H
#define DR_TRAIN_LORA_FACTS_H

#include "io/tensor_file.h"

typedef struct dr_lora_facts {
    const char *names; /* whose names: "kohya", "Diffusers", "Diffusers (before 0.17)", "PEFT",
                          "cloneofsimo", "unknown" */
    const char
        *method; /* "LoRA", "DoRA", "LoHa", "LoKr", "OFT", "GLoRA", "(IA)^3", "full difference" */
    const char *family; /* by the text's width: "SD 1.x", "SD 2.x", "SDXL"; NULL: does not show */
    int64_t unet, text_encoder, text_encoder_2, other; /* modules of each part */
    int64_t conv;                                      /* modules with kernels over 1x1 */
    int64_t rank_min, rank_max;                        /* 0: no module with a rank */
    bool has_alpha;                                    /* else alpha is the rank */
    double alpha_min, alpha_max;
    bool doubled_prefix; /* "lora_unet_unet_...": a converter's mistake, no program loads it */
    int64_t embeddings;  /* token embeddings that came along */
} dr_lora_facts;

/* Reads names, shapes and the alpha scalars. False when the file is no LoRA. */
bool dr_lora_facts_read(dr_lora_facts *f, const dr_tensor_file *file);

#endif
