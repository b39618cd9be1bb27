/*
 * train/model/model_file.h - a model on disk: where file formats and networks meet.
 *
 * Layer:    train.
 * Threads:  after open, loading may be called by several threads; hash and save by one at a time.
 * Source:   spec/models.md 2, 3.3, 8.5, 9; sdscripts.md 8.
 *
 * Two forms are read and written: a Diffusers directory and a single checkpoint in LDM naming, both
 * with weights in any container that io/tensor_file.h reads. Files are mapped; a tensor is read
 * when it is loaded or saved.
 *
 * Family: a model is of the SD 2.x kind when its text encoder is OpenCLIP's: hidden_act "gelu" in
 * a Diffusers directory, the tensors cond_stage_model.model.* in a single file. That holds for
 * models of any size, so tiny ones are told apart too.
 *
 * A single file does not show everything. What our reader could not see in the shapes of a file
 * that we write goes into its metadata, one key per fact (model_facts.c), and is read back.
 */
#ifndef DR_TRAIN_MODEL_FILE_H
#define DR_TRAIN_MODEL_FILE_H

#include "io/tensor_file.h"
#include "models/clip/clip.h"
#include "models/unet/unet.h"
#include "models/vae/autoencoder.h"

typedef struct dr_model_config {
    dr_unet_config unet;
    dr_clip_config clip;
    dr_autoencoder_config vae;
    bool v2, v_prediction;
    bool zero_terminal_snr; /* its scheduler file says so; false where there is none */
} dr_model_config;

typedef struct dr_model_file dr_model_file;

typedef struct dr_model_open_options {
    const char *path;        /* Diffusers directory, or a single file of any container */
    bool v2;                 /* --v2 */
    bool v_parameterization; /* --v_parameterization */
    const char *vae;         /* --vae; NULL: the model's own */
    bool correct_prediction; /* v_parameterization holds, whatever the files say */
    int threads;             /* that load; 0: one */
} dr_model_open_options;

/*
 * Maps the files, reads the configs, checks that every tensor is there with its shape and a
 * floating-point dtype. No tensor is read. On error *out is NULL.
 *
 * vae may be a Diffusers VAE directory (AutoencoderKL or AutoencoderTiny), a model directory, a
 * checkpoint, a file with nothing but a VAE (LDM's names with or without "first_stage_model.", or
 * Diffusers' names), or TAESD's two files: their directory, or the encoder.
 *
 * Errors: DR_FORMAT (what is missing or wrong: name, found, expected), DR_INVALID (--v2 or
 * --v_parameterization contradicts the model; no such path), DR_UNSUPPORTED (.ckpt, .pt, .bin),
 * DR_IO.
 */
DR_MUST_USE dr_status dr_model_file_open(const dr_model_open_options *o, dr_model_file **out);
void dr_model_file_close(dr_model_file *f); /* NULL is fine */
/*
 * The flags that fit a model, for tools that are not told them: sets o->v2 and
 * o->v_parameterization of a model at o->path. *told (or NULL): false for a single file whose
 * metadata does not tell what it predicts; it then counts as epsilon.
 */
DR_MUST_USE dr_status dr_model_file_probe(dr_model_open_options *o, bool *told);

const dr_model_config *dr_model_file_config(const dr_model_file *f);
bool dr_model_file_is_directory(const dr_model_file *f);

typedef enum dr_model_part { DR_PART_UNET, DR_PART_TEXT_ENCODER, DR_PART_VAE } dr_model_part;
enum { DR_MODEL_PARTS = 3 };
/*
 * Reads every entry of the set into its bound value (host memory), converting dtype and order.
 * The set may hold a subset of the part's parameters (a VAE's encoder alone).
 */
DR_MUST_USE dr_status dr_model_file_load(const dr_model_file *f, dr_model_part part,
                                         dr_params *set);
/* One parameter's numbers in the order of files, as floats; out has room for p->n of them. */
DR_MUST_USE dr_status dr_model_file_read(const dr_model_file *f, dr_model_part part,
                                         const dr_param *p, float *out);
/* Registers all parameters of a part (not bound) in the set. */
void dr_model_part_params(const dr_model_config *c, dr_model_part part, dr_params *set);
/*
 * Hex XXH3-128 of what turns pictures into latents: names, dtypes and bytes of the VAE's encoder
 * and its norm groups. The same for the same weights in any form of file. Computed at the first
 * call; the string lives as long as f.
 */
const char *dr_model_file_vae_hash(dr_model_file *f);
/* Computes it now. Errors: DR_FORMAT, DR_IO, DR_NOMEM of a VAE that cannot be read, at which
 * dr_model_file_vae_hash would panic. */
DR_MUST_USE dr_status dr_model_file_hash_vae(dr_model_file *f);

typedef enum dr_save_format {                       /* as --save_model_as names them */
                              DR_SAVE_SAFETENSORS,  /* "safetensors": a single file  */
                              DR_SAVE_CKPT,         /* "ckpt": a single torch file         */
                              DR_SAVE_DIFFUSERS,    /* "diffusers_safetensors": a directory    */
                              DR_SAVE_DIFFUSERS_BIN /* "diffusers": a directory with torch files, as
                                                       sd-scripts' */
} dr_save_format;
bool dr_save_is_directory(dr_save_format format);
/* ".safetensors", ".ckpt", or "" of directories. */
const char *dr_save_ending(dr_save_format format);
/* False for a name that is none of the four. */
bool dr_save_format_from_name(const char *name, dr_save_format *out);
/* What the ending of path says: ".safetensors", ".ckpt", else a directory with safetensors. */
dr_save_format dr_save_format_of_path(const char *path);
/* The form the model was opened in, which is also the one it is saved in when none is asked for. */
dr_save_format dr_model_file_format(const dr_model_file *f);

typedef struct dr_model_edit { /* changes numbers of the source on their way into the new file */
    /* Whether a parameter is changed; the others keep their bytes. */
    bool (*touches)(void *user, dr_model_part part, const dr_param *p);
    /* Changes it in place: p->n floats in the order of files. */
    dr_status (*apply)(void *user, dr_model_part part, const dr_param *p, float *values);
    void *user;
} dr_model_edit;

typedef struct dr_model_save {
    const char *path;
    dr_save_format format;
    dr_dtype dtype;                       /* of the trained tensors: F32, F16 or BF16 */
    bool cast_all;                        /* the rest of the three networks gets it too */
    const dr_params *unet, *text_encoder; /* bound values; NULL: the source's tensors */
    const dr_model_edit *edit; /* of the source's tensors of these two; they keep their dtype unless
                                  cast_all; NULL: none */
    const dr_safetensors_meta *meta; /* safetensors file: metadata besides "format" */
    size_t n_meta;
    bool keep_meta;             /* the metadata of a single source stays, but for hashes */
    bool hash;                  /* and modelspec.hash_sha256, of all tensors' bytes in the file */
    int64_t epoch, global_step; /* ckpt: added to the source's, as sd-scripts does */
    void (*progress)(void *user, uint64_t done, uint64_t all); /* bytes; NULL: none */
    void *user;
} dr_model_save;

/* Whether the model can be saved in that form, so that a run can fail before it starts. */
DR_MUST_USE dr_status dr_model_file_check_save(const dr_model_file *f, dr_save_format format);
/* Whether a model of that form may appear at path: its folder can be written into, and what is at
 * path would be replaced. DR_OUTPUT. */
DR_MUST_USE dr_status dr_model_check_target(const char *path, dr_save_format format);
/*
 * Writes a whole model. Tensors that were not trained, and the VAE (that of --vae when given), keep
 * their bytes and dtype. A single file made from a single file keeps all its other tensors too
 * (EMA, schedules, SD 2.x's last text block). Beside a single file of the SD 2.x kind comes the
 * .yaml that tools read; a file of that name which is no such config stays.
 *
 * Tensors are written one by one: the largest is held in memory, no more. The room on the disk is
 * checked first.
 *
 * Atomic: a file or directory at path is replaced whole or stays as it was. A directory that is no
 * model is never replaced. Files in a replaced model directory that are no part of a model stay.
 * Errors: DR_IO, DR_OUTPUT, DR_UNSUPPORTED as check_save.
 */
DR_MUST_USE dr_status dr_model_file_save(const dr_model_file *f, const dr_model_save *s);

#endif
