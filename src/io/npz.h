/*
 * io/npz.h - arrays of numpy's .npz archives (numpy.savez, savez_compressed), read.
 *
 * Layer:    io.
 * Source:   NEP 1: the .npy format, versions 1 to 3. Little-endian numbers in C order.
 * Errors:   DR_FORMAT naming file and array (found, expected), DR_IO, DR_NOMEM. Pickled arrays
 *           (dtype object) are refused.
 */
#ifndef DR_IO_NPZ_H
#define DR_IO_NPZ_H

#include "tensor/dtype.h"

enum { DR_NPY_MAX_RANK = 8 };

typedef struct dr_npz dr_npz;

typedef struct dr_npy { /* what an array's header says */
    dr_dtype dtype;     /* F64 F32 F16 I64 I32 I16 I8 U8 BOOL */
    int rank;           /* 0: one number */
    int64_t dim[DR_NPY_MAX_RANK];
    size_t n; /* elements */
} dr_npy;

/* On error *out is NULL. */
DR_MUST_USE dr_status dr_npz_open(dr_npz **out, const char *path);
/* The same over n bytes of memory that outlive *out; source names them in messages. */
DR_MUST_USE dr_status dr_npz_parse(dr_npz **out, const char *source, const void *bytes, size_t n);
void dr_npz_close(dr_npz *z); /* NULL is fine */

/* Whether the archive has an array of that name ("latents": the member latents.npy). */
bool dr_npz_has(const dr_npz *z, const char *name);
/* Its header; an array whose size differs from what the header says is damaged. */
DR_MUST_USE dr_status dr_npz_describe(const dr_npz *z, const char *name, dr_npy *out);
/* A floating-point array of exactly these sides into out, as f32. */
DR_MUST_USE dr_status dr_npz_read_f32(const dr_npz *z, const char *name, int rank,
                                      const int64_t *dim, float *out);
/* An array of any type with exactly n <= 64 elements. */
DR_MUST_USE dr_status dr_npz_read_numbers(const dr_npz *z, const char *name, size_t n, double *out);

#endif
