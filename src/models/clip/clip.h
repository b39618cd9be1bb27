/*
 * models/clip/clip.h - the CLIP text encoder of Stable Diffusion 1.x and 2.x, forward and backward.
 *
 * Layer:    models.
 * states = final_layer_norm(layers(token + position embedding)); pre-norm layers with causal
 * attention and no padding mask. Registry segments: embeddings, each layer, final norm.
 */
#ifndef DR_CLIP_H
#define DR_CLIP_H

#include "nn/mha.h"
#include "ops/pointwise.h"

typedef struct dr_clip_config {
    int64_t vocab, positions; /* 49408, 77 */
    int64_t width, mlp_width; /* hidden_size, intermediate_size */
    int layers, heads;
    dr_act act; /* DR_ACT_QUICK_GELU (SD 1.x), DR_ACT_GELU (SD 2.x) */
    float eps;  /* layer_norm_eps, 1e-5 */
} dr_clip_config;

/* DR_FORMAT with the key's name when the sizes make no network. */
DR_MUST_USE dr_status dr_clip_config_check(const dr_clip_config *c);
/* hidden_act of config.json: "quick_gelu" or "gelu"; DR_UNSUPPORTED otherwise. */
DR_MUST_USE dr_status dr_clip_act_from_name(const char *name, dr_act *out);
/* "quick_gelu" or "gelu". */
const char *dr_clip_act_name(dr_act act);

typedef struct dr_clip_layer {
    dr_norm_layer norm1, norm2;
    dr_mha attn;
    dr_linear_layer fc1, fc2;
} dr_clip_layer;

typedef struct dr_clip {
    dr_clip_config config;
    dr_params *params;
    const dr_params
        *trained;      /* the set whose ranges backward reports: params, or their adapters' */
    int first_segment; /* registry segment of the embeddings; layer i is first_segment + 1 + i */
    dr_param *tokens, *positions;
    dr_clip_layer *layer; /* config.layers of them, in the set's arena */
    dr_norm_layer final_norm;
} dr_clip;

/* Registers all parameters under transformers' names ("text_model.encoder.layers.0...."); the set
 * must outlive m. The config must have passed dr_clip_config_check. */
void dr_clip_init(dr_clip *m, const dr_clip_config *config, dr_params *set);
/*
 * Marks the layers that clip_skip leaves out as not trainable: they get no gradient, and an
 * optimizer that decays weights must not touch them. Call before binding.
 */
void dr_clip_freeze_skipped(dr_clip *m, int clip_skip);

typedef struct dr_clip_options {
    bool train;         /* keep what backward needs */
    bool checkpointing; /* keep only the layers' inputs and run them again in backward */
    int clip_skip;      /* 1: all layers; n: without the last n-1; at most layers + 1 */
} dr_clip_options;

typedef struct dr_clip_run dr_clip_run; /* activations between forward and backward */

dr_clip_run *dr_clip_run_create(const dr_clip *m, dr_clip_options options);
void dr_clip_run_destroy(dr_clip_run *r); /* NULL is fine */

/* ids (N,S) I32, S <= positions; out (N,S,width). ids must live until backward is done. */
DR_MUST_USE dr_status dr_clip_forward(dr_context *cx, dr_clip_run *r, const dr_tensor *ids,
                                      dr_tensor *out);
/*
 * dout as out of forward. Parameter gradients accumulate; sink (or NULL) hears of every segment,
 * last first. Frees the run's activations. Exactly once after each forward of a training run.
 */
DR_MUST_USE dr_status dr_clip_backward(dr_context *cx, dr_clip_run *r, const dr_tensor *dout,
                                       const dr_grad_sink *sink);

#endif
