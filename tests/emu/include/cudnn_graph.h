/*
 * tests/emu/include/cudnn_graph.h - the part of cuDNN's graph API that src/backend/cuda uses, for
 * the emulated build; tests/emu/emu_cudnn.cc has its functions. Not shipped.
 */
#ifndef DR_EMU_CUDNN_GRAPH_H
#define DR_EMU_CUDNN_GRAPH_H

#include "cudnn_names.h"

#include <stddef.h>
#include <stdint.h>

#define X(name, number) name = number,
typedef enum { DR_EMU_CUDNN_STATUS(X) } cudnnStatus_t;
typedef enum { DR_EMU_CUDNN_DATA_TYPE(X) } cudnnDataType_t;
typedef enum { DR_EMU_CUDNN_DESCRIPTOR_TYPE(X) } cudnnBackendDescriptorType_t;
typedef enum { DR_EMU_CUDNN_ATTRIBUTE_TYPE(X) } cudnnBackendAttributeType_t;
typedef enum { DR_EMU_CUDNN_ATTRIBUTE(X) } cudnnBackendAttributeName_t;
typedef enum { DR_EMU_CUDNN_POINTWISE(X) } cudnnPointwiseMode_t;
typedef enum { DR_EMU_CUDNN_REDUCE(X) } cudnnReduceTensorOp_t;
typedef enum { DR_EMU_CUDNN_HEURISTIC(X) } cudnnBackendHeurMode_t;
typedef enum { DR_EMU_CUDNN_NOTE(X) } cudnnBackendNumericalNote_t;
typedef enum { DR_EMU_CUDNN_CONVOLUTION(X) } cudnnConvolutionMode_t;
#undef X

typedef struct emu_cudnn_handle *cudnnHandle_t;
typedef void *cudnnBackendDescriptor_t;

#ifdef __cplusplus
extern "C" {
#endif

size_t cudnnGetVersion(void);
const char *cudnnGetErrorString(cudnnStatus_t status);
void cudnnGetLastErrorString(char *message, size_t max_size);
cudnnStatus_t cudnnCreate(cudnnHandle_t *handle);
cudnnStatus_t cudnnDestroy(cudnnHandle_t handle);
cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, void *stream);
cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type,
                                           cudnnBackendDescriptor_t *out);
cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t d);
cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t d);
cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t n,
                                       const void *values);
cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t most, int64_t *n,
                                       void *values);
cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan,
                                  cudnnBackendDescriptor_t pack);

#ifdef __cplusplus
}
#endif
#endif
