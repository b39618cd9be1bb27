/*
 * apps/lora_tools.h - what merge_lora, extract_lora and resize_lora share.
 *
 * Layer:    apps.
 */
#ifndef DR_APPS_LORA_TOOLS_H
#define DR_APPS_LORA_TOOLS_H

#include "base/optparse.h"
#include "linalg/svd.h"
#include "train/lora/lora_set.h"

#define DR_PRECISION_RANGE "float|fp16|bf16"

/* The dtype that an option with that range names; unset where it is not given. */
dr_dtype dr_precision_option(const dr_optset *o, int id, dr_dtype unset);
/* dr_lora_file_open, and a warning of modules that change nothing. */
DR_MUST_USE dr_status dr_lora_tool_open(const char *path, dr_lora_file **out);
/* Whether a module can become a product of two factors. Errors: DR_UNSUPPORTED (a norm or bias). */
DR_MUST_USE dr_status dr_lora_check_factors(const dr_lora_module *m);
/* What model family a LoRA is for, by its metadata; false, and outputs as they were, when it does
 * not tell. */
bool dr_lora_told_family(const dr_lora_file *f, bool *v2, bool *v_prediction);
/* The same by the width of the text too: SD 2.x where that shows and nothing is told. */
void dr_lora_family(const dr_lora_file *f, bool *v2, bool *v_prediction);
/* "dog" of "folder/dog.safetensors"; lives in the arena. */
const char *dr_path_title(dr_arena *a, const char *path);
/* The title that a model or LoRA has in its metadata, else dr_path_title. */
const char *dr_model_title(dr_arena *a, const char *path);

/* The first rank singular values and vectors as a module: up = u s, down = vt. rank <= svd->k.
 * Errors: DR_NOMEM. */
DR_MUST_USE dr_status dr_lora_add_svd(dr_lora_set *set, const char *name,
                                      const dr_lora_shape *shape, const dr_svd *svd, int64_t rank,
                                      dr_lora_factors **out);
/* Sum of the squares of the first n singular values. */
double dr_svd_squares(const dr_svd *svd, int64_t n);

#endif
