/*
 * train/model/model_kind.h - what a safetensors file holds, told from its names and shapes.
 *
 * Layer:    train.
 */
#ifndef DR_TRAIN_MODEL_KIND_H
#define DR_TRAIN_MODEL_KIND_H

#include "io/tensor_file.h"

/* X(name, short name for inspect, what a user is told who gives such a file as a model) */
#define DR_MODEL_KIND_LIST(X)                                                                      \
    X(SD1, "Stable Diffusion 1.x checkpoint",                                                      \
      "the file is an incomplete Stable Diffusion 1.x checkpoint")                                 \
    X(SD2, "Stable Diffusion 2.x checkpoint",                                                      \
      "the file is an incomplete Stable Diffusion 2.x checkpoint")                                 \
    X(INPAINTING, "inpainting checkpoint",                                                         \
      "the file is an inpainting model (9 input channels), which cannot be trained here")          \
    X(PIX2PIX, "instruct-pix2pix checkpoint",                                                      \
      "the file is an instruct-pix2pix model (8 input channels), which cannot be trained here")    \
    X(SDXL, "Stable Diffusion XL checkpoint",                                                      \
      "the file is an SDXL checkpoint; only Stable Diffusion 1.x and 2.x can be trained here")     \
    X(SD3, "Stable Diffusion 3 checkpoint",                                                        \
      "the file is an SD3 checkpoint; only Stable Diffusion 1.x and 2.x can be trained here")      \
    X(FLUX, "Flux checkpoint",                                                                     \
      "the file is a Flux checkpoint; only Stable Diffusion 1.x and 2.x can be trained here")      \
    X(CONTROLNET, "ControlNet",                                                                    \
      "the file is a ControlNet, which steers a model but is none; give the base model here")      \
    X(EMBEDDING, "textual inversion embedding",                                                    \
      "the file is a textual inversion embedding, which adds words to a model but is none; give "  \
      "the base model here")                                                                       \
    X(LORA, "LoRA",                                                                                \
      "the file is a LoRA, which changes a model but is none; give the base model here")           \
    X(VAE, "VAE", "the file is a VAE alone; give it as --vae and a whole model here")              \
    X(UNET, "U-Net of a Diffusers directory",                                                      \
      "the file is the U-Net of a Diffusers directory; give the directory that holds "             \
      "model_index.json")                                                                          \
    X(TEXT_ENCODER, "text encoder of a Diffusers directory",                                       \
      "the file is the text encoder of a Diffusers directory; give the directory that holds "      \
      "model_index.json")                                                                          \
    X(TAESD, "TAESD", "the file is a tiny VAE (TAESD); give its directory as --vae")               \
    X(UNKNOWN, "unknown", "the file is not a Stable Diffusion checkpoint")

typedef enum dr_model_kind {
#define DR_MODEL_KIND_ENUM(name, label, text) DR_KIND_##name,
    DR_MODEL_KIND_LIST(DR_MODEL_KIND_ENUM)
#undef DR_MODEL_KIND_ENUM
        DR_KIND_COUNT
} dr_model_kind;

/* Looks at names and shapes only. */
dr_model_kind dr_model_kind_of(const dr_tensor_file *s);
/* "Stable Diffusion 1.x checkpoint" */
const char *dr_model_kind_label(dr_model_kind kind);
/* Why such a file is no model that can be trained, and what to do. */
const char *dr_model_kind_text(dr_model_kind kind);

#endif
