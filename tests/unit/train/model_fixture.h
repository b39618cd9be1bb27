/*
 * tests/unit/train/model_fixture.h - tiny models in a temporary folder, and ways to spoil them.
 */
#ifndef DR_TEST_MODEL_FIXTURE_H
#define DR_TEST_MODEL_FIXTURE_H

#include "dr_test.h"

#include "io/safetensors.h"
#include "train/model/model_file.h"

/* Path of a name in the temporary folder; from a ring of a few, so that it needs no free. */
const char *model_path(const char *name);
/* Writes a preset ("tiny", "tiny2v") with random weights under that name. */
void model_make(const char *preset, const char *name, dr_save_format format);
/* A copy of a model directory made by model_make, or of a single file. */
void model_copy(const char *from, const char *to);
/* Replaces the first `from` in a text file by `to`; both must be found. */
void model_edit_text(const char *path, const char *from, const char *to);

/* Changes one tensor of a file while it is copied: false drops it. */
typedef bool (*model_edit)(dr_safetensors_entry *e);
/* Rewrites a safetensors file in place; data of a tensor whose size changed is zero. A NULL edit
 * changes nothing. meta replaces the metadata when it is not NULL. */
void model_rewrite(const char *path, model_edit edit, const dr_safetensors_meta *meta,
                   size_t n_meta);
/* Adds an empty tensor of that name and shape (F32). */
void model_add_tensor(const char *path, const char *name, int rank, const int64_t *shape);

/* Same bytes. */
void assert_same_file(const char *a, const char *b);
/* No temporary file or directory is left in the folder. */
void assert_no_leftovers(void);

#endif
