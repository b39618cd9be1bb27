/*
 * tensor/tensor.h - a dense array seen through pointer, dtype and sizes. It never owns memory.
 *
 * Layer:    tensor.
 * Memory order: the last dimension is contiguous. Images are (N,H,W,C), convolution weights
 *           (O,KH,KW,I), tokens (N,S,C); texts and files speak of logical (N,C,H,W).
 */
#ifndef DR_TENSOR_TENSOR_H
#define DR_TENSOR_TENSOR_H

#include "tensor/dtype.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { DR_MAX_RANK = 4 };

typedef struct dr_tensor {
    void *data; /* on the device of the context that uses it */
    dr_dtype dtype;
    int rank;
    int64_t dim[DR_MAX_RANK];
} dr_tensor;

/* How an activation gradient is written; parameter gradients always accumulate. */
typedef enum dr_write { DR_SET, DR_ADD } dr_write;

/* A view of data with the given sizes; unused trailing sizes of the array are ignored. */
dr_tensor dr_tensor_of(void *data, dr_dtype dtype, int rank, const int64_t *dim);
int64_t dr_numel(const dr_tensor *t);
size_t dr_nbytes(const dr_tensor *t);
/* Product of all sizes but the last, and the last. */
int64_t dr_rows(const dr_tensor *t);
int64_t dr_cols(const dr_tensor *t);
bool dr_same_shape(const dr_tensor *a, const dr_tensor *b);
/* The same memory with other sizes; the number of elements must agree (DR_CHECK). */
dr_tensor dr_reshape(const dr_tensor *t, int rank, const int64_t *dim);
#define DR_DIMS(...) ((const int64_t[DR_MAX_RANK]){__VA_ARGS__})
/* "[2,64,64,320] F32" */
void dr_tensor_describe(const dr_tensor *t, char buf[96]);

#ifdef __cplusplus
}
#endif
#endif
