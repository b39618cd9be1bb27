/*
 * train/model/model_file_internal.h - what the files of train/model_*.c share.
 *
 * Layer:    train, internal.
 */
#ifndef DR_TRAIN_MODEL_FILE_INTERNAL_H
#define DR_TRAIN_MODEL_FILE_INTERNAL_H

#include "io/json.h"
#include "models/clip/clip_names.h"
#include "models/names.h"
#include "train/model/model_file.h"

typedef enum dr_part_form {
    DR_FORM_DIFFUSERS, /* Diffusers' names, one file per part, config.json beside it       */
    DR_FORM_LDM,       /* single-file names                                               */
    DR_FORM_LDM_BARE,  /* a VAE in single-file names without first_stage_model.            */
    DR_FORM_TAESD      /* TAESD's own two files                                           */
} dr_part_form;

typedef struct dr_part_source { /* where a part's tensors are */
    dr_part_form form;
    const dr_tensor_file *file;    /* TAESD: the encoder's */
    const dr_tensor_file *decoder; /* TAESD only */
    const char *dir;               /* DIFFUSERS: folder with config.json; NULL: there is none */
    dr_clip_layout clip_layout;    /* LDM text encoder */
} dr_part_source;

enum { DR_MODEL_MAX_FILES = 5 }; /* three parts, or one; and up to two of --vae */

struct dr_model_file {
    dr_arena arena;
    const char *path;
    bool directory;
    bool foreign_vae;          /* --vae was given */
    const char *prediction_by; /* what says what the model predicts, for messages; NULL: nothing */
    bool told_v_prediction;    /* what it says */
    int threads;
    dr_model_config config;
    dr_part_source part[DR_MODEL_PARTS];
    dr_tensor_file *file[DR_MODEL_MAX_FILES]; /* owned */
    int n_files;
    char vae_hash[33]; /* "" until computed */
};

typedef struct dr_place { /* a parameter's bytes in a file, in file order */
    const dr_tensor_file *file;
    const dr_file_tensor *tensor;
    size_t offset, bytes; /* within the tensor's bytes */
} dr_place;

/* "unet", "text_encoder", "vae": folder names, and words for messages. */
const char *dr_model_part_name(dr_model_part part);
/*
 * Where a parameter lies. DR_FORMAT with name, found and expected when it is missing, has another
 * shape or no floating-point dtype.
 */
DR_MUST_USE dr_status dr_model_place(const dr_model_file *f, dr_model_part part, const dr_param *p,
                                     dr_place *out);
/* Its bytes, perhaps misaligned; valid until the place is released. Errors: those of
 * dr_tensor_file_data. */
DR_MUST_USE dr_status dr_place_data(const dr_place *place, const void **data);
/* Gives back the memory behind the whole tensor, which several places may share. */
void dr_place_release(const dr_place *place);
/* The slice of a single file in which a parameter is stored. */
void dr_model_ldm_slice(const dr_model_config *c, dr_model_part part, dr_clip_layout layout,
                        const dr_param *p, dr_file_slice *out);

/* Opens a file that f will own. */
DR_MUST_USE dr_status dr_model_add_file(dr_model_file *f, const char *path,
                                        const dr_tensor_file **out);
/* Tensors of a file as the models' names tables ask for them. */
dr_shape_source dr_model_shapes(const dr_tensor_file *s);
/* A path inside the file's arena. */
const char *dr_model_path(dr_model_file *f, const char *dir, const char *name);

/* ---- model_config.c: Diffusers' config.json into configs ---- */

/* DR_FORMAT names file, key, found and expected of what the networks do not have. */
DR_MUST_USE dr_status dr_unet_config_read(dr_unet_config *c, const char *path);
DR_MUST_USE dr_status dr_clip_config_read(dr_clip_config *c, const char *path);
DR_MUST_USE dr_status dr_autoencoder_config_read(dr_autoencoder_config *c, const char *path);
/* prediction_type (epsilon when the key is absent) and rescale_betas_zero_snr of a
 * scheduler_config.json. */
DR_MUST_USE dr_status dr_scheduler_config_read(dr_model_config *c, const char *path);

/* ---- model_sources.c: which files hold the parts ---- */

/* Sources and configs of a Diffusers directory; the VAE only when with_vae. */
DR_MUST_USE dr_status dr_model_open_directory(dr_model_file *f, bool with_vae);
/* The same of a single file. */
DR_MUST_USE dr_status dr_model_open_single(dr_model_file *f, bool with_vae);
/* Source and config of the VAE from any form that --vae accepts. */
DR_MUST_USE dr_status dr_model_open_vae(dr_model_file *f, const char *path);
/* DR_INVALID when there is nothing at path. */
DR_MUST_USE dr_status dr_model_check_path(const char *path);

/* ---- model_prediction.c ---- */

/*
 * Sets v_prediction and prediction_by of a single file from, in this order, its metadata, a tensor
 * v_pred, a .yaml of the same name beside it; epsilon and NULL when nothing tells.
 */
void dr_model_find_prediction(dr_model_file *f, const dr_tensor_file *s);

/* ---- model_facts.c: facts that do not show in a single file's shapes ---- */

/* Replaces in *c what the file's metadata tells of a part. */
DR_MUST_USE dr_status dr_model_facts_read(dr_model_config *c, dr_model_part part,
                                          const dr_tensor_file *s);
#define DR_FACT_PREDICTION "dreamrun.prediction_type"
enum { DR_MODEL_MAX_FACTS = 8 };
/* Fills out with a key and a value for each fact that a reader would otherwise get wrong and
 * returns their number; strings live in the arena. */
size_t dr_model_facts_write(const dr_model_config *c, dr_arena *arena,
                            dr_safetensors_meta out[DR_MODEL_MAX_FACTS]);

#endif
