/*
 * train/model/model_output.h - the tensors of a file to be written, and where their bytes come
 * from.
 *
 * Layer:    train, internal.
 * A list is filled in the order of construction, then written as one file, one tensor at a time.
 */
#ifndef DR_TRAIN_MODEL_OUTPUT_H
#define DR_TRAIN_MODEL_OUTPUT_H

#include "train/model/model_file_internal.h"

typedef struct dr_model_values { /* where parameters come from */
    /* The dtype in which a parameter is stored. */
    dr_status (*dtype)(void *user, dr_model_part part, const dr_param *p, dr_dtype *out);
    /* Its numbers in file order and that dtype; out has room for p->n of them. */
    dr_status (*read)(void *user, dr_model_part part, const dr_param *p, dr_dtype dtype, void *out);
    void *user;
} dr_model_values;

enum { DR_OUT_PIECES = 3 }; /* OpenCLIP fuses q, k and v */

typedef struct dr_out_tensor {
    const char *name;
    dr_dtype dtype;
    int rank;
    const int64_t *shape;
    dr_model_part part;                   /* of the pieces */
    int n_pieces;                         /* 0: copied or filled */
    const dr_param *piece[DR_OUT_PIECES]; /* rows in this order */
    const dr_tensor_file *file;           /* copied, in dtype: from here; NULL: filled with ones */
    const dr_file_tensor *tensor;
} dr_out_tensor;

typedef enum dr_out_container {
    DR_OUT_SAFETENSORS,
    DR_OUT_CHECKPOINT, /* torch: {"state_dict": ..., "epoch": ..., "global_step": ...} */
    DR_OUT_STATE_DICT  /* torch: the tensors alone */
} dr_out_container;

typedef struct dr_out_progress { /* bytes written so far, over several files */
    void (*report)(void *user, uint64_t done, uint64_t all); /* NULL: none */
    void *user;
    uint64_t done, all;
} dr_out_progress;

typedef struct dr_out_file { /* where a list is written, and what comes with it */
    const char *path;
    dr_out_container container;
    const dr_safetensors_meta *meta; /* "format": "pt" is added */
    size_t n_meta;
    bool hash;                  /* modelspec.hash_sha256 (safetensors) */
    int64_t epoch, global_step; /* of a checkpoint */
    dr_out_progress *progress;  /* all is set */
} dr_out_file;

typedef struct dr_out_list {
    const dr_model_config *config;
    dr_model_values values;
    dr_arena arena; /* names, shapes, parameters */
    dr_params set[DR_MODEL_PARTS];
    dr_out_tensor *at;
    size_t n, cap;
} dr_out_list;

void dr_out_init(dr_out_list *l, const dr_model_config *config, dr_model_values values);
void dr_out_deinit(dr_out_list *l);
/* A fresh entry, zeroed. */
dr_out_tensor *dr_out_add(dr_out_list *l);
/* NULL when there is none. */
dr_out_tensor *dr_out_find(dr_out_list *l, const char *name);
/* A copy of a tensor of a file under that name. */
void dr_out_add_copy(dr_out_list *l, const char *name, const dr_tensor_file *file,
                     const dr_file_tensor *t);
/* All parameters of a part under Diffusers' names. */
DR_MUST_USE dr_status dr_out_add_diffusers(dr_out_list *l, dr_model_part part);
/* All parameters of a part under single-file names; entries of these names are replaced. */
DR_MUST_USE dr_status dr_out_add_ldm(dr_out_list *l, dr_model_part part, dr_clip_layout layout);
/* What OpenCLIP files have beyond the text encoder that SD 2.x runs: a last block (a copy of the
 * one before), text_projection (ones), logit_scale (1), as sd-scripts writes them. */
void dr_out_add_openclip_rest(dr_out_list *l);
/* Bytes of all tensors. */
uint64_t dr_out_bytes(const dr_out_list *l);
DR_MUST_USE dr_status dr_out_write(const dr_out_list *l, const dr_out_file *file);

/* ---- model_yaml.c ---- */

/*
 * Writes the config that people keep beside an SD 2.x checkpoint; false when the network is not one
 * that such a config can describe. Errors: those of dr_file_write.
 */
DR_MUST_USE dr_status dr_model_yaml_write(const dr_model_config *c, const char *path,
                                          bool *written);

/* ---- model_json.c: the configs of a Diffusers directory ---- */

DR_MUST_USE dr_status dr_unet_config_write(const dr_model_config *c, const char *path);
DR_MUST_USE dr_status dr_clip_config_write(const dr_model_config *c, const char *path);
DR_MUST_USE dr_status dr_autoencoder_config_write(const dr_model_config *c, const char *path);
DR_MUST_USE dr_status dr_scheduler_config_write(const dr_model_config *c, const char *path);
/* model_index.json: the classes of scheduler and tokenizer are given. */
DR_MUST_USE dr_status dr_model_index_write(const dr_model_config *c, const char *scheduler,
                                           const char *tokenizer, const char *path);

/* ---- model_save_dir.c, model_save.c ---- */

typedef struct dr_model_job { /* all that a saved model is made from */
    const char *path;
    const dr_model_config *config;
    const dr_model_file *source; /* NULL: none */
    dr_model_values values;
    bool changed[DR_MODEL_PARTS]; /* the part's values are not the source's bytes */
    bool cast_all;                /* other tensors of the networks are cast too, to */
    dr_dtype dtype;
    dr_save_format format;
    const dr_safetensors_meta *meta;
    size_t n_meta;
    bool keep_meta, hash;
    int64_t epoch, global_step;
    dr_out_progress progress;
} dr_model_job;

/* DR_OUTPUT when something at path is no model directory that could be replaced. */
DR_MUST_USE dr_status dr_model_check_directory(const char *path);
DR_MUST_USE dr_status dr_model_write_directory(dr_model_job *job);
DR_MUST_USE dr_status dr_model_write_single(dr_model_job *job);
/* The job's format decides. */
DR_MUST_USE dr_status dr_model_write(dr_model_job *job);

#endif
