/*
 * models/unet/unet.h - UNet2DConditionModel of Stable Diffusion 1.x and 2.x, forward and backward.
 *
 * Layer:    models.
 * One table of segments, built from the config, is walked by construction, forward, backward and
 * planning alike. SD 1.x/2.x: time embedding, 25 blocks, head.
 */
#ifndef DR_UNET_H
#define DR_UNET_H

#include "models/unet/transformer.h"
#include "nn/resblock.h"

enum { DR_UNET_MAX_LEVELS = 8, DR_UNET_MAX_SEGMENTS = 96, DR_UNET_MAX_UNITS = 4 };

typedef struct dr_unet_config {
    int64_t in_channels, out_channels; /* 4, 4 */
    int n_levels;
    int64_t channels[DR_UNET_MAX_LEVELS]; /* block_out_channels */
    bool attention[DR_UNET_MAX_LEVELS];   /* CrossAttnDownBlock2D / CrossAttnUpBlock2D at a level */
    int heads[DR_UNET_MAX_LEVELS];        /* "attention_head_dim" of the config: a head COUNT */
    int depth[DR_UNET_MAX_LEVELS];        /* transformer_layers_per_block */
    int layers_per_block;                 /* 2 */
    int64_t context_dim;                  /* cross_attention_dim: 768, 1024 */
    int norm_groups;                      /* 32 */
    float norm_eps;                       /* 1e-5 */
    bool linear_projection;               /* use_linear_projection */
} dr_unet_config;

/* DR_FORMAT with the key's name when the sizes make no network. */
DR_MUST_USE dr_status dr_unet_config_check(const dr_unet_config *c);

typedef enum dr_unet_unit_kind {
    DR_UNIT_CONV,        /* conv_in, downsampler                  */
    DR_UNIT_RESBLOCK,    /* with time embedding                   */
    DR_UNIT_TRANSFORMER, /* with context                          */
    DR_UNIT_UPSAMPLE,    /* nearest x2, then convolution          */
    DR_UNIT_HEAD         /* group norm, SiLU, conv_out            */
} dr_unet_unit_kind;

typedef struct dr_unet_unit {
    dr_unet_unit_kind kind;
    size_t first_param, end_param; /* its entries of the registry */
    dr_conv_layer conv;            /* CONV, UPSAMPLE, HEAD */
    dr_norm_layer norm;            /* HEAD */
    dr_resblock *res;
    dr_transformer *attn;
} dr_unet_unit;

typedef struct dr_unet_segment {
    bool pops;   /* input = [current | skip] */
    bool pushes; /* output is also a skip */
    int source;  /* value index of the popped skip, -1 */
    int n_units;
    dr_unet_unit unit[DR_UNET_MAX_UNITS];
} dr_unet_segment;

typedef struct dr_unet {
    dr_unet_config config;
    dr_params *params;
    const dr_params *trained;     /* the set whose ranges backward reports: params, or that of their
                                     adapters, which has the same segments */
    dr_linear_layer time1, time2; /* registry segment 0 */
    int n_segments;               /* registry segments 1 .. n_segments */
    dr_unet_segment segment[DR_UNET_MAX_SEGMENTS];
} dr_unet;

/* Builds the table and registers all parameters (Diffusers names) in the set; both must outlive u.
 * The config must have passed dr_unet_config_check. */
void dr_unet_init(dr_unet *u, const dr_unet_config *config, dr_params *set);

typedef struct dr_unet_run dr_unet_run; /* activations between forward and backward */

typedef struct dr_unet_options {
    bool train;         /* keep what backward needs */
    bool checkpointing; /* keep only the segments' inputs and run them again in backward */
    bool context;       /* backward may be asked for the context's gradient */
} dr_unet_options;

dr_unet_run *dr_unet_run_create(const dr_unet *u, dr_unet_options options);
void dr_unet_run_destroy(dr_unet_run *r);
/* Called in forward with every segment's output, first to last: to find out where numbers go wrong.
 * segment is that of the registry, whose first parameter names it. NULL: none. */
typedef void (*dr_unet_watcher)(void *user, int segment, const dr_tensor *output);
void dr_unet_watch(dr_unet_run *r, dr_unet_watcher watcher, void *user);

/* x (N,H,W,in); t (N) F32; context (N,S,D); out (N,H,W,out). H and W must be divisible by
 * 2^(levels-1). x and context must live until backward is done. */
DR_MUST_USE dr_status dr_unet_forward(dr_context *cx, dr_unet_run *r, const dr_tensor *x,
                                      const dr_tensor *t, const dr_tensor *context, dr_tensor *out);
/* dout as out; dcontext (N,S,D) +=, or NULL. Stops at the first unit that is trained (or reads the
 * context, if options.context). Calls sink per segment, last first. Frees the run's activations.
 * Exactly once after each forward of a training run. */
DR_MUST_USE dr_status dr_unet_backward(dr_context *cx, dr_unet_run *r, const dr_tensor *dout,
                                       dr_tensor *dcontext, const dr_grad_sink *sink);

#endif
