/*
 * models/names.h - where a parameter lies in a model file whose names differ from Diffusers'.
 *
 * Layer:    models.
 */
#ifndef DR_MODELS_NAMES_H
#define DR_MODELS_NAMES_H

#include "tensor/tensor.h"

/* Shape of a tensor of the file by name; false when the file has none of that name. */
typedef struct dr_shape_source {
    bool (*shape_of)(void *user, const char *name, int *rank, int64_t dim[DR_MAX_RANK]);
    void *user;
} dr_shape_source;

/*
 * A parameter as rows of a tensor in a file: rows first_row .. first_row + n_rows - 1 of its first
 * axis. n_rows is the parameter's own dim[0]; equal to dim[0] here unless the file fuses several
 * parameters. The number of elements agrees even where the ranks do not ([C,C] and [C,C,1,1]).
 */
typedef struct dr_file_slice {
    char name[192];
    int rank; /* of the whole tensor in the file */
    int64_t dim[DR_MAX_RANK];
    int64_t first_row, n_rows;
} dr_file_slice;

/* True when the file has the tensor; rank and dim may be NULL. */
bool dr_shape_find(const dr_shape_source *src, const char *name, int *rank,
                   int64_t dim[DR_MAX_RANK]);
/* Replaces the first from in buf by to; false when from is not there or the result does not fit
 * (buf stays as it was). */
bool dr_name_replace(char *buf, size_t size, const char *from, const char *to);

#endif
