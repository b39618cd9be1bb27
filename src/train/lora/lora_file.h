/*
 * train/lora/lora_file.h - a LoRA file of any dialect as one list of modules.
 *
 * Layer:    train.
 * Threads:  an open file may be read by several threads.
 * Source:   the names that sd-scripts, LyCORIS 4.1.3, diffusers 0.38, peft and cloneofsimo's lora
 *           write; docs/lora-tools.md has the table.
 *
 * Whatever a file calls its modules, here they have sd-scripts' names: "lora_unet_" or "lora_te_",
 * then the module's Diffusers path with '_' for '.'. Opening reads names, shapes and alphas; the
 * weights are read when they are used.
 */
#ifndef DR_TRAIN_LORA_FILE_H
#define DR_TRAIN_LORA_FILE_H

#include "train/lora/lora_facts.h"

typedef enum dr_lora_kind {
    DR_LORA_FACTORS,   /* up down: LoRA, LoCon; with a core between them (Tucker) */
    DR_LORA_HADAMARD,  /* LoHa: (w1_a w1_b) * (w2_a w2_b), element by element */
    DR_LORA_KRONECKER, /* LoKr: w1 (x) w2 */
    DR_LORA_DIFFERENCE /* the whole difference, also of a norm; or of a bias alone */
} dr_lora_kind;

/* X(name): what a tensor is within its module. */
#define DR_LORA_ROLE_LIST(X)                                                                       \
    X(ALPHA)                                                                                       \
    X(DOWN) /* [r,in] or [r,in,k,k] */                                                             \
    X(UP)   /* [out,r] or [out,r,1,1] */                                                           \
    X(MID)  /* [r,r,k,k]; down is 1x1 then */                                                      \
    X(W1)   /* LoKr [a,c]; or its factors */                                                       \
    X(W1_A) /* LoHa [out,r], with T1 [r,out]; LoKr [a,r] */                                        \
    X(W1_B) /* LoHa [r,in*k*k], with T1 [r,in]; LoKr [r,c] */                                      \
    X(W2)   /* LoKr [b,d] or [b,d,k,k]; or its factors */                                          \
    X(W2_A) /* as W1_A; LoKr [b,r], with T2 [r,b] */                                               \
    X(W2_B) /* as W1_B; LoKr [r,d*k*k], with T2 [r,d] */                                           \
    X(T1)   /* [r,r,k,k] */                                                                        \
    X(T2)                                                                                          \
    X(DIFF)      /* as the weight; of a norm [out] */                                              \
    X(BIAS)      /* [out]: the difference of the bias, beside any kind or alone */                 \
    X(MAGNITUDE) /* DoRA: [out,1..] per row, or [1,in,1..] per column */

typedef enum dr_lora_role {
#define DR_LORA_ROLE_ENUM(name) DR_LORA_##name,
    DR_LORA_ROLE_LIST(DR_LORA_ROLE_ENUM)
#undef DR_LORA_ROLE_ENUM
        DR_LORA_ROLES
} dr_lora_role;

typedef struct dr_lora_module { /* lives as long as the file is open */
    const char *name;           /* "lora_unet_mid_block_attentions_0_proj_in" */
    const char *source;         /* what the file calls it */
    dr_lora_kind kind;
    const dr_file_tensor *part[DR_LORA_ROLES]; /* NULL: the module has none */
    int64_t rank;                              /* 0: the module has none */
    int64_t out, in;   /* sizes of the weight that it changes; of a norm or a bias alone in is 1 */
    int64_t kernel[2]; /* 1, 1 of matrices */
    double alpha;      /* as the file says, else rank */
    double scale;      /* of the product: alpha / rank */
} dr_lora_module;

typedef struct dr_lora_file dr_lora_file;

/*
 * Opens safetensors or a torch file. Warns of a doubled prefix (the names are read without it), of
 * tensors that belong to no module, and of token embeddings, which nothing here uses.
 *
 * Errors: DR_FORMAT (no LoRA; a module that is not whole or whose shapes do not fit, with what was
 * found and expected; an alpha that is no number), DR_UNSUPPORTED (a kind or numbering that cannot
 * be read, by name), those of dr_tensor_file_open. On error *out is NULL.
 */
DR_MUST_USE dr_status dr_lora_file_open(dr_lora_file **out, const char *path);
/* The same without warnings, for those who tell of these things themselves. */
DR_MUST_USE dr_status dr_lora_file_open_quiet(dr_lora_file **out, const char *path);
/* The same of an open file, which it takes, on error too; quiet: without warnings. */
DR_MUST_USE dr_status dr_lora_file_take(dr_lora_file **out, dr_tensor_file *tensors, bool quiet);
void dr_lora_file_close(dr_lora_file *f); /* NULL is fine */

/* Modules, sorted by name. */
size_t dr_lora_file_count(const dr_lora_file *f);
const dr_lora_module *dr_lora_file_at(const dr_lora_file *f, size_t i);
/* NULL when there is none. */
const dr_lora_module *dr_lora_file_find(const dr_lora_file *f, const char *name);
const dr_lora_facts *dr_lora_file_facts(const dr_lora_file *f);
/* For metadata and messages. */
const dr_tensor_file *dr_lora_file_tensors(const dr_lora_file *f);

/* A part's numbers as floats, row-major; out has room for n_elems of them. */
DR_MUST_USE dr_status dr_lora_part_read(const dr_lora_file *f, const dr_file_tensor *part,
                                        float *out);
/*
 * How many modules change nothing because the factor that training starts at zero (up, w2_a, w2,
 * w2_b, the difference) is all zero; *first: one of them (NULL: none). Reads those tensors.
 */
DR_MUST_USE dr_status dr_lora_file_count_zero(const dr_lora_file *f, size_t *n,
                                              const dr_lora_module **first);

/* Whether it changes a weight at all: not when it is a bias alone. */
bool dr_lora_has_weight(const dr_lora_module *m);
/* Whether it changes a norm or a bias, which no product of two factors can. */
bool dr_lora_has_vector(const dr_lora_module *m);
/* Elements of the weight: out * in * kernel. */
int64_t dr_lora_weight_elems(const dr_lora_module *m);
/* Whether a weight of that shape (in a file's order) is the one that the module changes; a 1x1
 * convolution is a matrix. */
bool dr_lora_fits(const dr_lora_module *m, int rank, const int64_t *dim);
/*
 * scale * product, (out, in * k * k) in a file's order, without a DoRA's magnitude.
 * Errors: DR_NOMEM, those of reading.
 */
DR_MUST_USE dr_status dr_lora_delta(const dr_lora_file *f, const dr_lora_module *m, float *out);
/*
 * weight (out, in * k * k) += ratio * delta; of a DoRA, with W' = weight + delta and its norms n
 * per row (or column): W' * (1 + ratio * (magnitude / n - 1)), as LyCORIS does. Errors as
 * dr_lora_delta.
 */
DR_MUST_USE dr_status dr_lora_apply(const dr_lora_file *f, const dr_lora_module *m, double ratio,
                                    float *weight);
/* bias (out) += ratio * the module's BIAS, which it must have. Errors as dr_lora_delta. */
DR_MUST_USE dr_status dr_lora_apply_bias(const dr_lora_file *f, const dr_lora_module *m,
                                         double ratio, float *bias);

#endif
