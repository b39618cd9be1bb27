/*
 * apps/gpu_plane.h - joins the GPU backend's second stream and NCCL to the data plane that
 * gradients are summed on (dist/data_plane.h).
 *
 * Layer:    apps.
 */
#ifndef DR_APPS_GPU_PLANE_H
#define DR_APPS_GPU_PLANE_H

#include "dist/data_plane.h"
#include "ops/context.h"

/*
 * Collective, after the ranks' GPUs are open. *out is NULL where some rank lacks NCCL, which is
 * said: gradients are then summed by the CPUs. strict: the same bits for any number of ranks.
 */
DR_MUST_USE dr_status dr_gpu_plane_open(dr_dist *d, const dr_backend *cuda, bool strict,
                                        const dr_data_plane **out);
/* Before the GPU is released; nothing is open: no effect. */
void dr_gpu_plane_close(void);

#endif
