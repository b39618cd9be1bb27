/*
 * train/train.h - a training run from its settings to the final model.
 *
 * Layer:    train.
 */
#ifndef DR_TRAIN_TRAIN_H
#define DR_TRAIN_TRAIN_H

#include "data/caption.h"
#include "data/dataset.h"
#include "diffusion/objective.h"
#include "diffusion/sampler.h"
#include "dist/data_plane.h"
#include "ops/diffusion_ops.h"
#include "train/lora/lora_settings.h"
#include "train/optim/lr_schedule.h"
#include "train/model/metadata.h"
#include "train/model/model_file.h"
#include "train/optim/optimizer_settings.h"
#include "train/precision.h"
#include "train/report/progress.h"
#include "train/report/run_log.h"
#include "train/save_plan.h"

#define DR_TRAIN_TO_THE_END INT64_MAX

typedef struct dr_train_fact { /* an option that changes what is trained, as the user would type it
                                */
    const char *name, *value;
} dr_train_fact;

typedef struct dr_train_option { /* any option, for the eyes of the user */
    const char *name, *value;
    bool given;
} dr_train_option;

typedef struct dr_validation_options { /* of pictures that data keeps for validation */
    uint64_t seed;                     /* of their noise */
    int64_t every_n_steps;             /* 0: not by step */
    int64_t every_n_epochs;
    int64_t most_batches; /* 0: all */
} dr_validation_options;

typedef struct dr_sample_plan {            /* sample pictures; 0: not given */
    const char *prompts;                   /* --sample_prompts, or NULL */
    int64_t every_n_steps, every_n_epochs; /* epochs win over steps */
    bool at_first;
    dr_sampler_kind sampler; /* of prompts that name none */
    bool karras;
} dr_sample_plan;

typedef enum dr_nan_choice { DR_NAN_STOP, DR_NAN_SKIP, DR_NAN_ROLLBACK } dr_nan_choice;
typedef enum dr_alarm_choice { DR_ALARM_STOP, DR_ALARM_WARN, DR_ALARM_OFF } dr_alarm_choice;

typedef struct dr_train_config { /* strings outlive the run */
    dr_model_open_options model;
    dr_dataset_options data;
    const char *output_dir;
    dr_save_options save;
    dr_sample_plan samples;
    bool save_as_given; /* save_format was named; else the source's format */
    dr_save_format save_format;
    bool use_safetensors; /* else the source's format, but never torch's */
    dr_dtype save_dtype;  /* of the trained tensors */
    dr_modelspec_texts metadata;
    const dr_lora_settings *lora;        /* trains a LoRA; NULL: the networks themselves */
    const dr_ss_facts *ss;               /* of a LoRA's file: what the options say */
    int64_t initial_epoch, initial_step; /* where the run begins; 0: not given */
    bool skip_until_initial_step;        /* else at the start of that epoch */
    bool minimal_metadata;               /* --no_metadata */
    int64_t min_timestep, max_timestep;  /* as given; -1: not */
    const char *profile;                 /* file for a timeline of steps; NULL: none */
    int64_t profile_steps;
    const char *dump_dir; /* NULL: none */
    int64_t dump_steps;
    double wait_limit_s;   /* of one exchange between ranks; 0: none */
    const char *cache_dir; /* HDF5 latent cache; NULL: none */
    bool cache_latents;
    bool keep_latent_draw;   /* --latent_cache_content latents */
    dr_dtype latent_dtype;   /* --latent_cache_dtype */
    size_t text_cache_bytes; /* --text_encoder_cache_mib */
    uint32_t vae_batch_size;
    uint32_t batch_size;
    int accumulation;
    int64_t virtual_shards;     /* 0: the number of ranks */
    const dr_data_plane *plane; /* where gradients are summed; NULL: on the host */
    int64_t max_steps;
    int64_t max_epochs; /* 0: max_steps holds */
    dr_validation_options validation;
    uint64_t seed;       /* the same on all ranks */
    bool seed_given;     /* else a state's seed replaces it */
    const char *resume;  /* state directory, "auto", or NULL */
    bool estimate;       /* print the memory plan and end */
    bool resume_changed; /* go on although options differ */
    const dr_train_fact *facts;
    size_t n_facts;
    bool checkpointing;
    int n_token_rows; /* 1, 2, 3: 75, 150, 225 tokens */
    bool masked_loss;
    bool weighted_captions;
    bool no_token_padding;     /* with one row only */
    int clip_skip;             /* 1: none */
    int64_t stop_text_encoder; /* train it in steps 0 .. this-1; 0 or less: never */
    double lr, lr_text_encoder;
    dr_optim_settings optimizer;
    double ema_decay;    /* 0: no average of the weights */
    bool fused_backward; /* the optimizer steps inside backward */
    dr_objective objective;
    dr_loss_kind loss;
    dr_precision precision; /* narrow_grads is the run's own choice */
    double max_grad_norm;   /* 0: no clipping */
    dr_lr_kind lr_kind;
    double warmup;                   /* steps, or below 1 a fraction of the run */
    double decay;                    /* likewise: the last steps of warmup_stable_decay */
    int64_t lr_cycles, lr_timescale; /* timescale 0: unset */
    double lr_min_ratio;
    const char *lr_rules;
    double lr_power;
    dr_nan_choice nan;
    dr_alarm_choice dead_check, base_check;
    bool graphs;               /* CUDA graphs where they can be */
    int zero_stage;            /* 1: each rank keeps its part of the optimizer's state */
    int64_t check_ranks_every; /* steps; 0: never */
    dr_progress_mode progress;
    const char *logging_dir; /* NULL: no files */
    const char *report; /* --report: path of the page at the end; NULL: in logging_dir, if any */
    const char *log_prefix, *log_tracker;
    bool network_tags;              /* numbers are logged under the tags of train_network */
    const dr_event_hparam *hparams; /* with --log_config */
    size_t n_hparams;
    const dr_train_option *options; /* all of them, as they are */
    size_t n_options;
    int threads;
    int loader_threads; /* --max_data_loader_n_workers */
} dr_train_config;

/* Collective. Every rank returns the same status; the record is the same, too. */
DR_MUST_USE dr_status dr_train_run(dr_dist *d, const dr_backend *backend,
                                   const dr_train_config *config);
/* Collective. Only what caching needs of a run: the dataset, the VAE, the latents into cache_dir.
 */
DR_MUST_USE dr_status dr_train_fill_cache(dr_dist *d, const dr_backend *backend,
                                          const dr_train_config *config);

#endif
