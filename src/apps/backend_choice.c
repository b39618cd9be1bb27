#include "apps/backend_choice.h"

#include "backend/cpu/backend_cpu.h"
#ifdef DR_HAVE_CUDA
#include "apps/gpu_plane.h"
#include "backend/cuda/backend_cuda.h"
#endif
#include "base/arena.h"
#include "base/log.h"

#include <stdlib.h>
#include <string.h>

#ifdef DR_HAVE_CUDA
static dr_status pick_gpu(const dr_dist *d, int *device)
{
    char reason[256];
    const int n = dr_cuda_count(reason);
    const int local = dr_dist_local_rank(d);
    if (n == 0) {
        DR_FAIL(DR_DEVICE, "--device cuda: %s; --device cpu trains without", reason);
    }
    if (n == 1 || local < n) { /* one visible: the starter gave each rank its own */
        *device = n == 1 ? 0 : local;
        return DR_OK;
    }
    DR_FAIL(DR_DEVICE,
            "--device cuda: this host has %d GPUs for %d ranks; start at most one rank per GPU", n,
            dr_dist_local_world(d));
}

/* The same GPU twice would deadlock inside NCCL or halve the speed: refused by the GPU's number. */
static dr_status check_distinct(dr_dist *d, const unsigned char uuid[16])
{
    const int world = dr_dist_world(d);
    unsigned char *all = dr_xcalloc((size_t)world, 16);
    dr_status st = dr_dist_allgather(d, uuid, all, 16);
    for (int r = 1; st == DR_OK && r < world; r++) {
        for (int q = 0; st == DR_OK && q < r; q++) {
            if (memcmp(all + 16 * r, all + 16 * q, 16) == 0) {
                st = dr_error_set(DR_DEVICE, __FILE__, __LINE__,
                                  "ranks %d and %d would share one GPU: start one rank per GPU, or "
                                  "correct CUDA_VISIBLE_DEVICES",
                                  q, r);
            }
        }
    }
    free(all);
    return st;
}

static bool opened; /* the GPU of this process */

static void report_libraries(void)
{
    char text[256];
    dr_cuda_describe_convolutions(text);
    dr_info("convolutions: %s", text);
    dr_cuda_describe_attention(text);
    dr_info("attention: %s", text);
}

static dr_cuda_tf32 tf32_of(const char *name)
{
    if (name == NULL || strcmp(name, "convolutions") == 0) {
        return DR_CUDA_TF32_CONVOLUTIONS;
    }
    return strcmp(name, "all") == 0 ? DR_CUDA_TF32_ALL : DR_CUDA_TF32_OFF;
}

static dr_status open_gpu(dr_dist *d, const char *tf32, const dr_backend **out)
{
    int device = 0;
    dr_cuda_info info = {0};
    dr_status st = pick_gpu(d, &device);
    if (st == DR_OK) {
        st = dr_cuda_describe(device, &info);
    }
    DR_TRY(dr_dist_agree(d, st));
    DR_TRY(check_distinct(d, info.uuid));
    DR_TRY(dr_dist_agree(d, dr_cuda_open(device, tf32_of(tf32), out)));
    opened = true;
    dr_info("device: GPU %d, %s (compute capability %d.%d)", device, info.name, info.major,
            info.minor);
    report_libraries();
    return DR_OK;
}

dr_status dr_backend_plane(dr_dist *d, const dr_backend *backend, bool strict,
                           const dr_data_plane **out)
{
    *out = NULL;
    return opened ? dr_gpu_plane_open(d, backend, strict, out) : DR_OK;
}

void dr_backend_release(void)
{
    dr_gpu_plane_close();
    if (opened) {
        report_libraries();
    }
    dr_cuda_close();
}
#else
static dr_status open_gpu(dr_dist *d, const char *tf32, const dr_backend **out)
{
    (void)d;
    (void)tf32;
    (void)out;
    DR_FAIL(DR_UNSUPPORTED, "--device cuda: this program was built without CUDA");
}

dr_status dr_backend_plane(dr_dist *d, const dr_backend *backend, bool strict,
                           const dr_data_plane **out)
{
    (void)d;
    (void)backend;
    (void)strict;
    *out = NULL;
    return DR_OK;
}

void dr_backend_release(void)
{
}
#endif

dr_status dr_backend_choose(const char *device, const char *tf32, dr_dist *d,
                            const dr_backend **out)
{
    if (strcmp(device, "cuda") == 0) {
        return open_gpu(d, tf32, out);
    }
    if (tf32 != NULL && strcmp(tf32, "off") != 0) {
        DR_FAIL(DR_INVALID, "--tf32 %s: CPUs have no TF32; it needs --device cuda", tf32);
    }
    *out = &dr_backend_cpu;
    return DR_OK;
}
