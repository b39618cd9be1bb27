/*
 * tensor/dtype.h - element types, with safetensors' names and sizes; 16-bit conversions.
 *
 * Layer:    tensor.
 */
#ifndef DR_TENSOR_DTYPE_H
#define DR_TENSOR_DTYPE_H

#include "dreamrun/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* X(name, bytes), in the order in which safetensors sorts tensors (widest first). */
#define DR_DTYPE_LIST(X)                                                                           \
    X(I64, 8)                                                                                      \
    X(F64, 8)                                                                                      \
    X(F32, 4)                                                                                      \
    X(I32, 4)                                                                                      \
    X(BF16, 2)                                                                                     \
    X(F16, 2)                                                                                      \
    X(I16, 2)                                                                                      \
    X(I8, 1)                                                                                       \
    X(U8, 1)                                                                                       \
    X(BOOL, 1)

typedef enum dr_dtype {
#define DR_DTYPE_ENUM(name, bytes) DR_##name,
    DR_DTYPE_LIST(DR_DTYPE_ENUM)
#undef DR_DTYPE_ENUM
        DR_DTYPE_COUNT
} dr_dtype;

size_t dr_dtype_size(dr_dtype t);
const char *dr_dtype_name(dr_dtype t); /* "F32" */
/* False for a name that is not in the list. */
bool dr_dtype_from_name(const char *name, dr_dtype *out);

/* IEEE half and bfloat16; to 16 bits rounds to nearest even, NaN stays NaN. */
float dr_f16_to_f32(uint16_t h);
uint16_t dr_f32_to_f16(float f);
float dr_bf16_to_f32(uint16_t h);
uint16_t dr_f32_to_bf16(float f);
/* n floating-point elements (F64, F32, F16, BF16) from one type to another; equal types copy.
 * Neither side need be aligned; they do not overlap. */
void dr_convert(void *dst, dr_dtype dst_type, const void *src, dr_dtype src_type, size_t n);
/* n floats rounded to the nearest of a floating-point type, in place. */
void dr_round_floats(float *values, dr_dtype type, size_t n);

#ifdef __cplusplus
}
#endif
#endif
