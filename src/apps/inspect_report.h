/*
 * apps/inspect_report.h - what dreamrun inspect tells: gathered once, printed as text or JSON.
 *
 * Layer:    apps.
 */
#ifndef DR_APPS_INSPECT_REPORT_H
#define DR_APPS_INSPECT_REPORT_H

#include "base/str.h"
#include "io/digest.h"
#include "train/model/known_models.h"
#include "train/lora/lora_facts.h"
#include "train/model/model_kind.h"

typedef struct dr_inspect_count { /* tensors of one dtype or of one part */
    const char *name;
    int64_t tensors, params;
} dr_inspect_count;

enum { DR_INSPECT_DTYPES = 32, DR_INSPECT_PARTS = 5, DR_INSPECT_SHORT = 13 };

typedef struct dr_inspect_hashes {   /* hex; "" where the file has none */
    char sha256[DR_DIGEST_HEX];      /* its first 10 digits: civitai's AutoV2, A1111's model hash */
    char auto_v1[9];                 /* of 64 KiB at 1 MiB: A1111's old model hash */
    char data_sha256[DR_DIGEST_HEX]; /* behind the header of safetensors; AutoV3: 12 digits */
} dr_inspect_hashes;

typedef struct dr_inspect_file {
    char *path;
    char *problem; /* why the file cannot be read; the fields below are then empty. NULL: good */
    dr_tensor_file *file;
    dr_model_kind kind;
    uint64_t file_bytes, tensor_bytes;
    dr_inspect_count total, dtype[DR_INSPECT_DTYPES], part[DR_INSPECT_PARTS];
    int n_dtypes;
    bool single; /* a checkpoint with several parts in one file */
    bool is_lora;
    dr_lora_facts lora;
    size_t lora_zero; /* its modules that change nothing, because a factor is all zero */
    char *first_zero; /* one of them; NULL: none */
    dr_strv unknown;  /* names of a checkpoint that belong to no part and to no noise schedule */
    dr_inspect_hashes hashes;    /* with --hash */
    const dr_known_model *known; /* by hash */
    bool same_size[64];          /* known models of the file's size; NULL hash only */
} dr_inspect_file;

typedef struct dr_inspect_report {
    const char *path;
    const char *label;
    const char *family; /* "sd1", "sd2", "sdxl", ...; NULL: none shows */
    bool directory;
    bool known;            /* a model that can be trained; then: */
    bool v2, v_prediction; /* as its files say */
    bool told;             /* v_prediction is known */
    dr_inspect_file *files;
    size_t n;
} dr_inspect_report;

/*
 * Headers only, unless hash. path lives as long as the report. A damaged file among several is
 * told in its entry; alone it is the error. Errors: DR_INVALID, DR_FORMAT, DR_UNSUPPORTED, DR_IO.
 */
DR_MUST_USE dr_status dr_inspect_gather(dr_inspect_report *r, const char *path, bool hash);
void dr_inspect_free(dr_inspect_report *r);

/* Append the report. tensors: with every tensor. */
void dr_inspect_text(dr_str *s, const dr_inspect_report *r, bool tensors);
void dr_inspect_json(dr_str *s, const dr_inspect_report *r, bool tensors);
/* "[320,4,3,3]" */
void dr_inspect_shape(dr_str *s, const dr_file_tensor *t);

#endif
