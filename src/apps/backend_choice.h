/*
 * apps/backend_choice.h - which backend a program computes with, and on which GPU.
 *
 * Layer:    apps, the one place that names backends.
 */
#ifndef DR_APPS_BACKEND_CHOICE_H
#define DR_APPS_BACKEND_CHOICE_H

#include "dist/data_plane.h"
#include "ops/context.h"

/*
 * device: "cpu" or "cuda". tf32: which F32 products of a GPU may use 10-bit mantissas, "off",
 * "convolutions" or "all"; NULL: convolutions, as PyTorch. Others than "off" are refused on CPUs.
 * For cuda each rank takes the GPU of its place among the ranks of its host (spec launcher.md 3.3),
 * or the only one that it sees. Collective; all ranks get the same status: DR_DEVICE when a GPU is
 * missing or two ranks would share one, DR_UNSUPPORTED in a build without CUDA.
 */
DR_MUST_USE dr_status dr_backend_choose(const char *device, const char *tf32, dr_dist *d,
                                        const dr_backend **out);
/*
 * Collective. Where gradients are summed: *out is a plane of the chosen GPU, or NULL: on the host.
 * strict: the same bits for any number of GPUs (on the host that holds anyway).
 */
DR_MUST_USE dr_status dr_backend_plane(dr_dist *d, const dr_backend *backend, bool strict,
                                       const dr_data_plane **out);
/* Gives the GPU back, after everything on it was freed. */
void dr_backend_release(void);

#endif
