/*
 * models/vae/taesd.h - AutoencoderTiny (TAESD): a small autoencoder of Stable Diffusion's latents.
 *
 * Layer:    models.
 * Encoder: per stage a convolution (stride 2 after the first stage) and blocks, then a
 * convolution. Decoder: 3 tanh(z/3), convolution, ReLU, per stage blocks, nearest x2, convolution.
 * Block: relu(conv(relu(conv(relu(conv(x))))) + x). Its latents are scaled ones: unit variance.
 */
#ifndef DR_TAESD_H
#define DR_TAESD_H

#include "nn/layers.h"

enum { DR_TAESD_MAX_STAGES = 8, DR_TAESD_MAX_IMAGE_CHANNELS = 16 };

typedef struct dr_taesd_config {
    int64_t in_channels, out_channels, latent_channels; /* 3, 3, 4 */
    int64_t width; /* every entry of {en,de}coder_block_out_channels: 64 */
    int n_stages;  /* 4 */
    int encoder_blocks[DR_TAESD_MAX_STAGES]; /* num_encoder_blocks: 1, 3, 3, 3 */
    int decoder_blocks[DR_TAESD_MAX_STAGES]; /* num_decoder_blocks: 3, 3, 3, 1 */
    double scaling_factor;                   /* 1 */
} dr_taesd_config;

/* What the files in the wild are. */
dr_taesd_config dr_taesd_config_default(void);
/* DR_FORMAT with the key's name when the sizes make no network. */
DR_MUST_USE dr_status dr_taesd_config_check(const dr_taesd_config *c);

typedef struct dr_taesd_block {
    dr_conv_layer conv[3];
} dr_taesd_block;

typedef struct dr_taesd_stage {
    dr_conv_layer conv; /* encoder: before the blocks; decoder: after them */
    int n_blocks;
    dr_taesd_block *block;
} dr_taesd_stage;

typedef struct dr_taesd_half { /* n_stages 0: absent */
    int n_stages;
    dr_taesd_stage stage[DR_TAESD_MAX_STAGES];
    dr_conv_layer end; /* encoder: the last convolution; decoder: the first */
} dr_taesd_half;

typedef struct dr_taesd {
    dr_taesd_config config;
    dr_taesd_half encoder, decoder;
} dr_taesd;

/* Registers the halves that are wanted under Diffusers' names ("encoder.layers.3.conv.0.weight"),
 * one segment each. The config must have passed dr_taesd_config_check. */
void dr_taesd_init(dr_taesd *t, const dr_taesd_config *config, dr_params *set, bool encoder,
                   bool decoder);
/*
 * The name in TAESD's own files (taesd_encoder.safetensors, taesd_decoder.safetensors), which
 * number the layers without "encoder.layers." and count the decoder's clamp as layer 0.
 * *in_decoder says which file. False for a name of another network.
 */
bool dr_taesd_raw_name(const char *name, char *buf, size_t size, bool *in_decoder);
/* images (N,H,W,3) in -1..1, H and W divisible by 2^(stages-1); latents (N,h,w,4). */
DR_MUST_USE dr_status dr_taesd_encode(dr_context *cx, const dr_taesd *t, const dr_tensor *images,
                                      dr_tensor *latents);
/* images (N,H,W,3) around -1..1, not clamped. */
DR_MUST_USE dr_status dr_taesd_decode(dr_context *cx, const dr_taesd *t, const dr_tensor *latents,
                                      dr_tensor *images);

#endif
