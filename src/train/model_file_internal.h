/*
 * train/model_file_internal.h - what the files of train/model_*.c share.
 *
 * Layer:    train, internal.
 */
#ifndef DR_TRAIN_MODEL_FILE_INTERNAL_H
#define DR_TRAIN_MODEL_FILE_INTERNAL_H

#include "io/json.h"
#include "models/clip/clip_names.h"
#include "models/names.h"
#include "train/model_file.h"

typedef enum dr_part_form {
    DR_FORM_DIFFUSERS, /* Diffusers' names, one file per part, config.json beside it       */
    DR_FORM_LDM,       /* single-file names                                               */
    DR_FORM_LDM_BARE,  /* a VAE in single-file names without first_stage_model.            */
    DR_FORM_TAESD      /* TAESD's own two files                                           */
} dr_part_form;

typedef struct dr_part_source { /* where a part's tensors are */
    dr_part_form form;
    const dr_safetensors *file;    /* TAESD: the encoder's */
    const dr_safetensors *decoder; /* TAESD only */
    const char *dir;               /* DIFFUSERS: folder with config.json */
    dr_clip_layout clip_layout;    /* LDM text encoder */
} dr_part_source;

enum { DR_MODEL_MAX_FILES = 5 }; /* three parts, or one; and up to two of --vae */

struct dr_model_file {
    dr_arena arena;
    const char *path;
    bool directory;
    bool foreign_vae;      /* --vae was given */
    bool prediction_known; /* the files say what the model predicts */
    dr_model_config config;
    dr_part_source part[DR_MODEL_PARTS];
    dr_safetensors *file[DR_MODEL_MAX_FILES]; /* owned */
    int n_files;
    char vae_hash[33]; /* "" until computed */
};

typedef struct dr_place { /* a parameter's bytes in a file, in file order */
    const dr_safetensors *file;
    const dr_safetensors_tensor *tensor;
    const void *data; /* of the first element */
    size_t bytes;
} dr_place;

/* "unet", "text_encoder", "vae": folder names, and words for messages. */
const char *dr_model_part_name(dr_model_part part);
/* Registers all parameters of a part (not bound) in the set. */
void dr_model_part_params(const dr_model_config *c, dr_model_part part, dr_params *set);
/*
 * Where a parameter lies. DR_FORMAT with name, found and expected when it is missing, has another
 * shape or no floating-point dtype.
 */
DR_MUST_USE dr_status dr_model_place(const dr_model_file *f, dr_model_part part, const dr_param *p,
                                     dr_place *out);
/* The slice of a single file in which a parameter is stored. */
void dr_model_ldm_slice(const dr_model_config *c, dr_model_part part, dr_clip_layout layout,
                        const dr_param *p, dr_file_slice *out);

/* Opens a file that f will own. */
DR_MUST_USE dr_status dr_model_add_file(dr_model_file *f, const char *path,
                                        const dr_safetensors **out);
/* Tensors of a safetensors file as the models' names tables ask for them. */
dr_shape_source dr_model_shapes(const dr_safetensors *s);
/* A path inside the file's arena. */
const char *dr_model_path(dr_model_file *f, const char *dir, const char *name);

/* ---- model_config.c: Diffusers' config.json into configs ---- */

/* DR_FORMAT names file, key, found and expected of what the networks do not have. */
DR_MUST_USE dr_status dr_unet_config_read(dr_unet_config *c, const char *path);
DR_MUST_USE dr_status dr_clip_config_read(dr_clip_config *c, const char *path);
DR_MUST_USE dr_status dr_autoencoder_config_read(dr_autoencoder_config *c, const char *path);
/* prediction_type of a scheduler_config.json; epsilon when the key is absent. */
DR_MUST_USE dr_status dr_prediction_read(bool *v_prediction, const char *path);

/* ---- model_sources.c: which files hold the parts ---- */

/* Sources and configs of a Diffusers directory; the VAE only when with_vae. */
DR_MUST_USE dr_status dr_model_open_directory(dr_model_file *f, bool with_vae);
/* The same of a single file. */
DR_MUST_USE dr_status dr_model_open_single(dr_model_file *f, bool with_vae);
/* Source and config of the VAE from any form that --vae accepts. */
DR_MUST_USE dr_status dr_model_open_vae(dr_model_file *f, const char *path);
/* DR_UNSUPPORTED for .ckpt, .pt and .bin, DR_INVALID when there is nothing at path. */
DR_MUST_USE dr_status dr_model_check_path(const char *path);

/* ---- model_facts.c: facts that do not show in a single file's shapes ---- */

/*
 * Replaces in *c what the file's metadata tells of a part. *v_known (U-Net; or NULL): whether
 * the metadata tells what the model predicts, which goes into c->v_prediction.
 */
DR_MUST_USE dr_status dr_model_facts_read(dr_model_config *c, dr_model_part part, bool *v_known,
                                          const dr_safetensors *s);
enum { DR_MODEL_MAX_FACTS = 8 };
/* Fills out with a key and a value for each fact that a reader would otherwise get wrong and
 * returns their number; strings live in the arena. */
size_t dr_model_facts_write(const dr_model_config *c, dr_arena *arena,
                            dr_safetensors_meta out[DR_MODEL_MAX_FACTS]);

#endif
