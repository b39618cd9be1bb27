/*
 * train/run_internal.h - the state of a run, shared by train's files. Private to train.
 */
#ifndef DR_TRAIN_RUN_INTERNAL_H
#define DR_TRAIN_RUN_INTERNAL_H

#include "base/stop.h"
#include "data/epoch_plan.h"
#include "diffusion/schedule.h"
#include "io/json.h"
#include "io/xxh3.h"
#include "text/tokenizer.h"
#include "train/dump.h"
#include "train/latents/latents.h"
#include "train/latents/mask_store.h"
#include "train/network.h"
#include "train/text_cache.h"
#include "train/optim/optimizer.h"
#include "train/state.h"
#include "train/train.h"

enum {
    DR_EPOCH_OF_VALIDATION = 0,                     /* training's are counted from 1 */
    DR_VALIDATION_TIMESTEPS = DR_PROGRESS_TIMESTEPS /* of each of its pictures */
};

typedef struct dr_look_ahead dr_look_ahead;
typedef struct dr_leaf_graphs dr_leaf_graphs;
typedef struct dr_run_samples dr_run_samples;

typedef struct dr_fused { /* a step inside backward */
    dr_context *cx;
    double squares; /* sum of squared gradients so far */
    double lr_factor;
    bool stepped;        /* some weights were touched in this step */
    const dr_param *bad; /* the first whose gradient is not finite, or NULL */
    dr_status st;
} dr_fused;

enum { DR_NAN_MOST_IN_A_ROW = 10, DR_NAN_MOST_ROLLBACKS = 3 };
typedef struct dr_nan_state { /* the same on all ranks */
    int in_a_row;             /* steps skipped since the last finite one */
    bool going_back;          /* after the current step */
    int n_left_out;           /* steps that made the run go back, from 0; they are not run again */
    int64_t left_out[DR_NAN_MOST_ROLLBACKS];
} dr_nan_state;

typedef struct dr_dead_watch dr_dead_watch;

typedef struct dr_run {
    const dr_train_config *c; /* &config */
    dr_train_config config;   /* what the caller asked for; a state fills in what was left open */
    dr_dist *dist;
    const dr_backend *backend;
    dr_arena arena;
    dr_dataset dataset;
    dr_model_file *file;
    dr_network net;
    dr_latents *latents;
    dr_look_ahead *ahead;
    dr_tokenizer *tokenizer;
    dr_schedule noise_schedule; /* of the run */
    dr_schedule snr_schedule;   /* before zero_terminal_snr: what losses are weighed with */
    dr_lr_schedule lr;
    dr_optim_group *groups;    /* n_groups of them, in the arena */
    dr_model_part *group_part; /* the network that each belongs to */
    bool *group_frozen;        /* see dr_run_frozen_groups */
    size_t n_groups;
    int64_t
        *zero_cut; /* (ranks + 1): rank q updates trained elements [q] .. [q+1]; NULL: each all */
    size_t shown_group; /* whose learning rate the progress line shows */
    dr_optimizer *optimizer;
    dr_reducer *reducer;
    float *host_grads; /* what the reducer sums where the host cannot reach the device, else NULL */
    dr_fused fused;
    dr_loss_scale loss_scale;
    dr_nan_state nan;
    dr_dead_watch *dead; /* NULL: parameters are not watched (any more) */
    dr_pool *pool;
    dr_leaf_graphs *graphs; /* NULL: leaves are not recorded */
    dr_dump *dump;
    dr_text_cache *text_cache; /* of steps that do not train the text encoder; NULL before one */
    dr_mask_store *masks;      /* NULL: no picture has one */
    float *latent;             /* of the picture that is being validated */
    dr_progress progress;
    dr_run_samples *samples; /* NULL: none are wanted */
    dr_strv warnings;        /* of this process, for the report */
    dr_run_log *log;         /* rank 0, when it is wanted; else NULL */
    uint32_t n_leaves;       /* of a step, over all ranks */
    uint32_t steps_per_epoch;
    int64_t n_steps;
    int64_t step;          /* done so far, those before a resume included */
    int64_t equal_at_step; /* all ranks were seen to hold the same weights */
    int64_t schedule_from; /* step at which the learning-rate schedule began */
    int stop_signal;       /* all ranks agreed to stop because of it; 0: none */
    bool resuming;
    char *resume;                         /* the state gone on from; rank 0, or NULL */
    dr_json_doc *resume_facts;            /* rank 0 */
    double resumed_loss;                  /* smoothed, for the progress line */
    char *newest_state;                   /* saved by this process, or NULL */
    int64_t started_s;                    /* when, since 1970 */
    dr_file_facts model_facts, vae_facts; /* of the files trained from, once has_file_facts */
    bool has_file_facts;
    char model_hash[DR_XXH3_HEX], dataset_hash[DR_XXH3_HEX];
    bool trains_text_encoder; /* at least one step does */
    int64_t n_truncated;      /* captions cut so far */
    double data_s;            /* of the current step: making inputs */
    int64_t n_profiled;       /* steps so far whose timeline --profile shows */
} dr_run;

/*
 * What the run will need, by walking every leaf shape dry; creates the pool. DR_NOMEM in words with
 * the flags that help. Prints the plan on rank 0.
 */
DR_MUST_USE dr_status dr_run_plan_memory(dr_run *r);
/* The parameter groups of the run and its optimizer, without memory. */
DR_MUST_USE dr_status dr_run_create_optimizer(dr_run *r);
/* For a step: which groups get no gradient because the text encoder does not take part. The array
 * is valid until the next call. */
const bool *dr_run_frozen_groups(dr_run *r, bool text);
/*
 * Before the model is saved or sampled from (on), and afterwards (off): an optimizer may train
 * other weights than it steps on. The gradient memory is in use in between.
 */
DR_MUST_USE dr_status dr_run_show_weights(dr_run *r, bool on);
typedef struct dr_leaf_host { /* host side of a leaf, arrays of batch_size */
    int32_t *timesteps;
    float *loss_weights;
    const char **keys;
} dr_leaf_host;
typedef struct dr_leaf_text { /* the captions of a leaf as the text encoder reads them */
    int32_t *ids;             /* (n*n_rows, length) */
    float *weights;           /* (n * joined length); NULL without weighted captions */
    int length;               /* 77; without padding that of the longest caption */
} dr_leaf_text;
/* Processes and tokenises the captions of a leaf; text is to be freed in any case. */
DR_MUST_USE dr_status dr_run_leaf_text(dr_run *r, const dr_leaf *leaf, uint32_t epoch,
                                       dr_leaf_text *text);
void dr_leaf_text_free(dr_leaf_text *text);
/* What the draws of an epoch's samples are keyed with. */
uint64_t dr_run_seed(const dr_run *r, uint32_t epoch);
/* The timestep of use i of a picture in a validation: evenly inside those of the training. */
int dr_run_validation_timestep(const dr_run *r, uint32_t i);
/* The caption of a sample as the current step uses it: shuffled, with what is dropped dropped. */
void dr_run_caption(const dr_run *r, const dr_sample_ref *ref, uint32_t epoch, dr_str *caption);
/* Fills the inputs of a leaf (on the device) and host; step_samples: samples of the whole step. */
DR_MUST_USE dr_status dr_run_fill_leaf(dr_run *r, dr_context *cx, const dr_leaf *leaf,
                                       uint32_t epoch, uint64_t step_samples,
                                       const dr_leaf_text *text, dr_leaf_input *in,
                                       const dr_leaf_host *host);
/* ---- fused_step.c ---- */

/* Before the leaf of a step with --fused_backward_pass; text: the text encoder takes part. */
void dr_run_fused_begin(dr_run *r, dr_context *cx, int64_t global_step, bool text);
/* What backward reports to: a finished segment is stepped on and its gradients become zero. */
dr_grad_sink dr_run_fused_sink(dr_run *r);
/* After the leaf: the gradient norm, or what failed. */
DR_MUST_USE dr_status dr_run_fused_end(dr_run *r, double *norm);

/* ---- leaf_noise.c ---- */

/* Noise offset and multi-resolution noise of a leaf; values: its latents (n,h,w,c). */
void dr_run_shape_noise(dr_run *r, const dr_leaf *leaf, uint32_t epoch, const dr_tensor *latents,
                        const float *values, float *noise);
/* out = noise + strength * new normal numbers (ip_noise_gamma). */
void dr_run_input_noise(dr_run *r, const dr_leaf *leaf, uint32_t epoch, const dr_tensor *latents,
                        const float *noise, float *out);

/* ---- run_save.c ---- */

/* The form in which the run saves its model. */
dr_save_format dr_run_save_format(const dr_run *r);
/* Warns when --metadata_* were given and that form has no place for them. */
void dr_run_warn_metadata(const dr_run *r);
/*
 * Saves the model as it is now. epoch and global_step go into the file: steps done, and the epoch
 * as sd-scripts counts it there (1-based when an epoch or the run has ended, else 0-based).
 */
DR_MUST_USE dr_status dr_run_save_model(dr_run *r, const char *path, int64_t epoch,
                                        int64_t global_step);

/* The plan of an epoch (from 1), owned by the caller. */
DR_MUST_USE dr_status dr_run_plan_epoch(const dr_run *r, uint32_t epoch, dr_epoch_plan *plan);
dr_look_ahead *dr_look_ahead_create(void);
void dr_look_ahead_destroy(dr_look_ahead *a);
/* Before a step: announces this rank's samples from it on, into the next epoch, as far as loader
 * threads have place and there is memory for a plan. Changes no result and cannot fail. */
void dr_run_look_ahead(dr_run *r, const dr_epoch_plan *plan, uint32_t epoch, uint32_t step,
                       int64_t global_step);
/* The schedule's factor in that step; steps that fp16 left out did not move it (as accelerate). */
double dr_run_lr_factor(const dr_run *r, int64_t global_step);
/* One optimizer step over the plan's step; global_step counts from 0. */
DR_MUST_USE dr_status dr_run_step(dr_run *r, const dr_step *step, uint32_t epoch,
                                  int64_t global_step);

/* ---- run_notes.c ---- */

/* Says with which options the run goes (rank 0). */
void dr_run_show_options(const dr_run *r);
/* Collective. Opens the log; one that a state names goes on. */
DR_MUST_USE dr_status dr_run_open_log(dr_run *r);
/* After a step, rank 0: the progress line and the numbers of the log. Memory and steps_to_save are
 * filled in. */
void dr_run_note_step(dr_run *r, dr_progress_step s);

/* ---- validate.c ---- */

/* Collective. After a step: the loss of the pictures kept for validation, if one is due. It is the
 * same on every rank and for any number of ranks, and changes nothing of the training. */
DR_MUST_USE dr_status dr_run_validate_due(dr_run *r);
/* Says what will be validated, and when; nothing without such pictures. */
void dr_run_describe_validation(const dr_run *r);
/* Largest activations of a validation, into *peak if it is more; walks it dry. */
DR_MUST_USE dr_status dr_run_validation_peak(dr_run *r, size_t *peak);

/* ---- run_checkpoint.c ---- */

/* Collective. A model that could not be saved is found out before the first step. */
DR_MUST_USE dr_status dr_run_check_output(dr_run *r);
/* Epochs of the run; the epoch (from 1) of the last step done. */
int64_t dr_run_n_epochs(const dr_run *r);
uint32_t dr_run_epoch(const dr_run *r);
/* Collective. After a step: the models and states that are due; a full disk costs one save. */
DR_MUST_USE dr_status dr_run_save_due(dr_run *r);
/* Collective. The trained model, and its state if one is wanted. */
DR_MUST_USE dr_status dr_run_save_last(dr_run *r);
/* Collective. Saves a state; DR_CANCELLED with how to go on. */
DR_MUST_USE dr_status dr_run_leave(dr_run *r);

/* ---- run_samples.c ---- */

/* Collective. Reads the prompts and gives them to all ranks; nothing where no pictures are wanted.
 */
DR_MUST_USE dr_status dr_run_open_samples(dr_run *r);
/* Checks the prompts and raises *peak to what a picture needs of the pool. */
DR_MUST_USE dr_status dr_run_plan_samples(dr_run *r, size_t *peak);
/* Collective. Before the first step and after every one: the pictures that are due. What a picture
 * fails of costs that picture; the training is the same with and without. */
DR_MUST_USE dr_status dr_run_sample_due(dr_run *r);
void dr_run_close_samples(dr_run *r);

#endif
