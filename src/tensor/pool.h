/*
 * tensor/pool.h - the activation memory of a step: one device allocation, deterministic offsets.
 *
 * Layer:    tensor.
 * Threads:  one.
 *
 * Blocks are handed out first-fit by offset and belong to a frame; ending a frame frees its blocks.
 * The same sequence of calls gives the same offsets, so a dry pool (no memory, any size) that walks
 * a step measures exactly what the real one will need, and every step uses the same addresses.
 */
#ifndef DR_TENSOR_POOL_H
#define DR_TENSOR_POOL_H

#include "tensor/device.h"
#include "tensor/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dr_pool dr_pool;
typedef int64_t dr_frame; /* 0 is never a frame */

/* A pool without memory, for planning: hands out fake, aligned, non-NULL addresses. */
dr_pool *dr_pool_create_dry(void);
/* A pool of exactly bytes on the device. DR_NOMEM when the device has not that much. */
DR_MUST_USE dr_status dr_pool_create(const dr_device *device, size_t bytes, dr_pool **out);
void dr_pool_destroy(dr_pool *p);
bool dr_pool_is_dry(const dr_pool *p);

dr_frame dr_pool_frame_begin(dr_pool *p);
/* Frees the frame's blocks. In debug builds their memory is filled with 0xFF (NaN) on the host. */
void dr_pool_frame_end(dr_pool *p, dr_frame f);
/* bytes (0 is allowed), aligned to 64. A real pool that is too small panics: the plan was wrong. */
void *dr_pool_alloc(dr_pool *p, dr_frame f, size_t bytes);
/* Highest end of a block so far, and bytes in use now. */
size_t dr_pool_peak_bytes(const dr_pool *p);
size_t dr_pool_used_bytes(const dr_pool *p);
/* Size given at creation. */
size_t dr_pool_capacity_bytes(const dr_pool *p);

#ifdef __cplusplus
}
#endif
#endif
