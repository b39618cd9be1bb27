/*
 * train/network.h - the networks of a run, their flat memory, and one leaf of a step.
 *
 * Layer:    train.
 * Memory:   values = [text encoder | U-Net] or [text encoder | U-Net | adapters of both] in one
 *           device allocation, gradients likewise over the trained part, which is a suffix of it:
 *           backward finishes it from the end to the start.
 *           The VAE has memory of its own, freed when latents are cached.
 */
#ifndef DR_TRAIN_NETWORK_H
#define DR_TRAIN_NETWORK_H

#include "dist/reducer.h"
#include "models/clip/clip.h"
#include "models/unet/unet.h"
#include "ops/diffusion_ops.h"
#include "train/lora/lora_network.h"
#include "train/model/model_file.h"
#include "train/precision.h"

typedef struct dr_network_options {
    const dr_backend *backend;
    int threads;
    bool train; /* false: sampling, nothing is kept for backward */
    bool train_text_encoder;
    bool checkpointing;
    int clip_skip; /* 1: none */
    int n_rows;    /* of 77 tokens per caption: 1, 2, 3 */
    bool weighted; /* captions have a weight for each position */
    bool masked;   /* the loss has a weight for each latent pixel */
    dr_loss_kind loss;
    bool one_segment_of_grads;    /* memory for the gradients of the largest segment only */
    bool input_noise;             /* the noise that is added is not the one to predict */
    const dr_lora_settings *lora; /* adapters are trained; NULL: the networks themselves */
    uint64_t seed;                /* of the values that adapters start from */
    dr_precision precision;
} dr_network_options;

typedef struct dr_trained { /* what is trained of one network */
    dr_params *set;         /* NULL: nothing */
    int64_t at;             /* where the set begins in the trained part */
} dr_trained;

typedef struct dr_network {
    dr_network_options o;
    dr_arena arena;
    dr_params text_params, unet_params;
    dr_clip clip;
    dr_unet unet;
    dr_clip_run *clip_train; /* NULL: the text encoder is never trained */
    dr_clip_run *clip_eval;
    dr_unet_run *unet_run;
    dr_unet_run *unet_eval; /* keeps nothing for backward */
    dr_trained trained[2];  /* of DR_PART_UNET and DR_PART_TEXT_ENCODER */
    dr_lora_network *lora;  /* NULL: no adapters */
    int64_t lora_at[2];     /* where its sets begin in values */
    int64_t n_values;       /* elements of values */
    int64_t n_trained;      /* elements of trained_values */
    int64_t n_grads;        /* elements of grads */
    void *values;           /* of the precision's compute type */
    void *grads;            /* of its type of gradients */
    void *trained_values;   /* all that is trained, in one piece, of its trained type */
    void *trained_copy;     /* what the networks read of it, rounded; NULL: itself */
} dr_network;

/* Builds the networks of the model (not loaded, no memory). */
DR_MUST_USE dr_status dr_network_init(dr_network *n, const dr_model_config *config,
                                      const dr_network_options *o);
/* Binds the parameters for a dry walk. */
void dr_network_bind_dry(dr_network *n);
/* Bytes of weights (masters included) and of gradients. */
size_t dr_network_weight_bytes(const dr_network *n);
size_t dr_network_grad_bytes(const dr_network *n);
/* Allocates values and, for training, gradients (zero); binds and loads the weights. */
DR_MUST_USE dr_status dr_network_load(dr_network *n, const dr_model_file *file);
/* All that is trained, and all gradients of it, as flat arrays. */
dr_tensor dr_network_trained(const dr_network *n);
dr_tensor dr_network_gradients(const dr_network *n);
/* Before a leaf: all gradients start from nothing. After it, or when elements [begin, end) of the
 * gradients are final: those that nobody wrote become zero. See dr_params_begin_grads. */
DR_MUST_USE dr_status dr_network_begin_grads(dr_network *n);
DR_MUST_USE dr_status dr_network_settle_grads(dr_network *n, int64_t begin, int64_t end);
/* A context in which the networks run. */
dr_context dr_network_context(const dr_network *n, dr_pool *pool);
/* After elements [begin, end) of what is trained have changed: what the networks read follows. */
DR_MUST_USE dr_status dr_network_refresh(dr_network *n, dr_context *cx, int64_t begin, int64_t end);
/*
 * For the time of a save: binds the values of the trained parameters to what is trained, or to a
 * host copy of it where the host cannot reach the device (*copy is NULL where it can), and back;
 * from_host frees the copy.
 */
DR_MUST_USE dr_status dr_network_to_host(dr_network *n, void **copy);
void dr_network_from_host(dr_network *n, void *copy);
void dr_network_deinit(dr_network *n);

/* Adds ratio times a LoRA to the networks, which are bound and loaded. Errors: DR_NOMEM, those of
 * reading. */
DR_MUST_USE dr_status dr_network_merge_lora(dr_network *n, const dr_lora_file *file, double ratio);

/* ---- network_lora.c: for network.c ---- */

/* Puts the adapters of o.lora on the networks and says what of them is trained. */
DR_MUST_USE dr_status dr_network_add_lora(dr_network *n);
/* Merges o.lora's base files into the networks, which are bound and loaded. */
DR_MUST_USE dr_status dr_network_merge_base(dr_network *n, const dr_model_config *config);
/* Fills the adapters' values with what training starts from. */
DR_MUST_USE dr_status dr_network_fill_lora(dr_network *n);
/* Trained parameters of each network, without holes. */
int64_t dr_network_trained_count(const dr_network *n, dr_model_part part);

typedef struct dr_leaf_input {             /* all on the device */
    dr_tensor latents;                     /* (N,H,W,C), scaled */
    dr_tensor noise;                       /* as latents */
    dr_tensor input_noise;                 /* what is added; without o.input_noise: noise itself */
    dr_tensor threshold;                   /* (N): of the huber and smooth_l1 losses */
    dr_tensor t;                           /* (N) F32 */
    dr_tensor signal, sigma;               /* (N): sqrt(ac), sqrt(1-ac) */
    dr_tensor target_noise, target_latent; /* (N): target = a noise + b latent: 1, 0 for epsilon */
    dr_tensor weight;                      /* (N): loss weight / samples of the step */
    dr_tensor ids;                         /* (N*n_rows,77) I32, or (N,length) */
    dr_tensor mask;                        /* (N,H,W), with a masked loss */
    dr_tensor token_weights, token_zeros;  /* (N*context length), with weighted captions */
} dr_leaf_input;

typedef struct dr_leaf_output { /* in the frame given to dr_leaf_run */
    dr_tensor noisy, target, context, pred, loss;
} dr_leaf_output;

typedef struct dr_leaf_shape {
    int64_t n, h, w; /* samples, latents' size */
    int64_t length;  /* ids of a row: 77, or fewer without padding (one row) */
} dr_leaf_shape;
/* Tensors for a leaf, in the frame. */
dr_leaf_input dr_leaf_input_new(dr_context *cx, const dr_network *net, dr_frame f, dr_leaf_shape s);

typedef struct dr_leaf_options {
    bool train_text_encoder; /* in this step */
    const void *states; /* of a frozen text encoder, on the host, as dr_leaf_output.context without
                           weights; NULL: they are computed */
    bool states_are_there;    /* in the memory of dr_leaf_output.context already */
    bool forward_only;        /* no backward: for a loss alone */
    const dr_grad_sink *sink; /* ranges of the trained part, from its start; NULL: none */
} dr_leaf_options;

/*
 * Noise, text encoder, U-Net, loss, backward. loss (N) is per sample, without weight. Gradients
 * accumulate. Works on a dry context.
 */
DR_MUST_USE dr_status dr_leaf_run(dr_context *cx, dr_network *net, const dr_leaf_input *in,
                                  const dr_leaf_options *o, dr_frame f, dr_leaf_output *out);
/* Text states of the ids of a leaf, as dr_leaf_options.states wants them: without weights and
 * without backward. */
DR_MUST_USE dr_status dr_leaf_text_states(dr_context *cx, dr_network *net, const dr_tensor *ids,
                                          dr_tensor *context);
/* Length of the context: 77, 152, 227. */
int64_t dr_context_length(const dr_network *net);

#endif
