/*
 * train/model/metadata.h - the texts in the header of a model file, as sd-scripts writes them:
 * modelspec.* says what the model is, ss_* how it was trained.
 *
 * Layer:    train.
 * Source:   spec/sdscripts.md 8.5, 9.7; features.md 4.2, 4.3; the ModelSpec 1.0.1 of Stability AI.
 *
 * Values are spelled as Python's str() does: None, True, 1e-06.
 */
#ifndef DR_TRAIN_METADATA_H
#define DR_TRAIN_METADATA_H

#include "base/arena.h"
#include "io/safetensors.h"

typedef struct dr_metadata { /* keys and values of a header, in the order in which they came */
    dr_arena arena;          /* of the strings */
    dr_safetensors_meta *at;
    size_t n, cap;
} dr_metadata;

void dr_metadata_init(dr_metadata *m);
void dr_metadata_deinit(dr_metadata *m);
/* Copies both; a key that is there already gets the new value. NULL: "None". */
void dr_metadata_add(dr_metadata *m, const char *key, const char *value);
/* NULL when there is no such key. */
const char *dr_metadata_get(const dr_metadata *m, const char *key);

/* ---- modelspec.* ---- */

/* The one key that is computed while a file is written. */
#define DR_MODELSPEC_HASH "modelspec.hash_sha256"

/* X(name): texts of the user, by the names of the options --metadata_<name> and of the keys. */
#define DR_MODELSPEC_TEXT_LIST(X)                                                                  \
    X(author)                                                                                      \
    X(description)                                                                                 \
    X(license)                                                                                     \
    X(tags)                                                                                        \
    X(usage_hint)                                                                                  \
    X(thumbnail)                                                                                   \
    X(merged_from)                                                                                 \
    X(trigger_phrase)                                                                              \
    X(preprocessor)                                                                                \
    X(is_negative_embedding)

typedef struct dr_modelspec_texts { /* NULL: not given, no key */
    const char *title;
#define DR_MODELSPEC_TEXT_FIELD(name) const char *name;
    DR_MODELSPEC_TEXT_LIST(DR_MODELSPEC_TEXT_FIELD)
#undef DR_MODELSPEC_TEXT_FIELD
} dr_modelspec_texts;

typedef struct dr_modelspec {
    bool v2, v_prediction;
    bool lora;                          /* a LoRA file, else a whole checkpoint */
    const char *output_name;            /* the title when there is none; NULL: kind and time */
    int64_t width, height;              /* pixels; 0: what the family was trained on */
    int64_t min_timestep, max_timestep; /* both -1: not restricted */
    int clip_skip;                      /* 0: not given */
    int64_t time_s;                     /* seconds since 1970; see dr_metadata_now */
    dr_modelspec_texts texts;
} dr_modelspec;

/*
 * Adds the modelspec keys. A thumbnail that is no data: URL is the path of a picture, which is put
 * in as one; when it cannot be read a warning says so and the key is left out.
 */
void dr_metadata_add_modelspec(dr_metadata *m, const dr_modelspec *s);
/* Now, or SOURCE_DATE_EPOCH of the environment: then the same run makes the same file. */
int64_t dr_metadata_now(void);

/* ---- ss_* ---- */

typedef enum dr_fact_kind {
    DR_FACT_ABSENT, /* no key */
    DR_FACT_NONE,   /* "None" */
    DR_FACT_INT,
    DR_FACT_FLOAT,
    DR_FACT_BOOL,
    DR_FACT_TEXT
} dr_fact_kind;
typedef struct dr_fact {
    dr_fact_kind kind; /* zeroed: absent */
    int64_t i;         /* INT and BOOL */
    double f;
    const char *text;
} dr_fact;
dr_fact dr_fact_none(void);
dr_fact dr_fact_int(int64_t v);
dr_fact dr_fact_float(double v);
dr_fact dr_fact_bool(bool v);
dr_fact dr_fact_text(const char *text); /* NULL: "None" */

/* X(name): the keys ss_<name> in sd-scripts' order. Dictionaries (tag_frequency, ...) are texts
 * that hold JSON. */
#define DR_SS_FACT_LIST(X)                                                                         \
    X(session_id)                                                                                  \
    X(training_started_at)                                                                         \
    X(output_name)                                                                                 \
    X(learning_rate)                                                                               \
    X(text_encoder_lr)                                                                             \
    X(unet_lr)                                                                                     \
    X(num_train_images)                                                                            \
    X(num_validation_images)                                                                       \
    X(num_reg_images)                                                                              \
    X(num_batches_per_epoch)                                                                       \
    X(num_epochs)                                                                                  \
    X(gradient_checkpointing)                                                                      \
    X(gradient_accumulation_steps)                                                                 \
    X(max_train_steps)                                                                             \
    X(lr_warmup_steps)                                                                             \
    X(lr_scheduler)                                                                                \
    X(network_module)                                                                              \
    X(network_dim)                                                                                 \
    X(network_alpha)                                                                               \
    X(network_dropout)                                                                             \
    X(mixed_precision)                                                                             \
    X(full_fp16)                                                                                   \
    X(v2)                                                                                          \
    X(base_model_version)                                                                          \
    X(clip_skip)                                                                                   \
    X(max_token_length)                                                                            \
    X(cache_latents)                                                                               \
    X(seed)                                                                                        \
    X(lowram)                                                                                      \
    X(noise_offset)                                                                                \
    X(multires_noise_iterations)                                                                   \
    X(multires_noise_discount)                                                                     \
    X(adaptive_noise_scale)                                                                        \
    X(zero_terminal_snr)                                                                           \
    X(training_comment)                                                                            \
    X(sd_scripts_commit_hash)                                                                      \
    X(optimizer)                                                                                   \
    X(max_grad_norm)                                                                               \
    X(caption_dropout_rate)                                                                        \
    X(caption_dropout_every_n_epochs)                                                              \
    X(caption_tag_dropout_rate)                                                                    \
    X(face_crop_aug_range)                                                                         \
    X(prior_loss_weight)                                                                           \
    X(min_snr_gamma)                                                                               \
    X(scale_weight_norms)                                                                          \
    X(ip_noise_gamma)                                                                              \
    X(debiased_estimation)                                                                         \
    X(noise_offset_random_strength)                                                                \
    X(ip_noise_gamma_random_strength)                                                              \
    X(loss_type)                                                                                   \
    X(huber_schedule)                                                                              \
    X(huber_scale)                                                                                 \
    X(huber_c)                                                                                     \
    X(fp8_base)                                                                                    \
    X(fp8_base_unet)                                                                               \
    X(validation_seed)                                                                             \
    X(validation_split)                                                                            \
    X(max_validation_steps)                                                                        \
    X(validate_every_n_epochs)                                                                     \
    X(validate_every_n_steps)                                                                      \
    X(resize_interpolation)                                                                        \
    X(batch_size_per_device)                                                                       \
    X(total_batch_size)                                                                            \
    X(resolution)                                                                                  \
    X(color_aug)                                                                                   \
    X(flip_aug)                                                                                    \
    X(random_crop)                                                                                 \
    X(shuffle_caption)                                                                             \
    X(enable_bucket)                                                                               \
    X(bucket_no_upscale)                                                                           \
    X(min_bucket_reso)                                                                             \
    X(max_bucket_reso)                                                                             \
    X(keep_tokens)                                                                                 \
    X(dataset_dirs)                                                                                \
    X(reg_dataset_dirs)                                                                            \
    X(datasets)                                                                                    \
    X(tag_frequency)                                                                               \
    X(bucket_info)                                                                                 \
    X(network_args)                                                                                \
    X(sd_model_name)                                                                               \
    X(sd_model_hash)                                                                               \
    X(new_sd_model_hash)                                                                           \
    X(vae_name)                                                                                    \
    X(vae_hash)                                                                                    \
    X(new_vae_hash)                                                                                \
    X(steps)                                                                                       \
    X(epoch)                                                                                       \
    X(training_finished_at)

typedef struct dr_ss_facts {
#define DR_SS_FACT_FIELD(name) dr_fact name;
    DR_SS_FACT_LIST(DR_SS_FACT_FIELD)
#undef DR_SS_FACT_FIELD
} dr_ss_facts;

/* Adds a key for every fact that is not absent. minimal (--no_metadata): only the six that tools
 * need to use a LoRA: v2, base_model_version, network_module, _dim, _alpha, _args. */
void dr_metadata_add_ss(dr_metadata *m, const dr_ss_facts *facts, bool minimal);
/* "sd_v1", "sd_v2", "sd_v1_v", "sd_v2_v" */
const char *dr_base_model_version(bool v2, bool v_prediction);

/*
 * The facts of a file trained from: its name, and its two hashes (of the 64 KiB at 1 MiB, 8 digits;
 * of the whole file, which is read). The hashes of a directory are "IsADirectory", as in
 * sd-scripts. Texts live in the arena. Errors: DR_IO.
 */
typedef struct dr_file_facts {
    dr_fact name, hash, new_hash;
} dr_file_facts;
DR_MUST_USE dr_status dr_file_facts_read(dr_arena *arena, const char *path, dr_file_facts *out);

#endif
