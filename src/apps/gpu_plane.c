#include "apps/gpu_plane.h"

#include "backend/cuda/backend_cuda.h"
#include "base/log.h"

/* NCCL connects thousands of ranks within a minute; slow file systems and drivers come on top. */
enum { JOIN_SECONDS = 300 };

static dr_data_plane plane; /* of the GPU that this process opened */

dr_status dr_gpu_plane_open(dr_dist *d, const dr_backend *cuda, bool strict,
                            const dr_data_plane **out)
{
    char why[256] = "";
    *out = NULL;
    plane = (dr_data_plane){.device = cuda->device,
                            .after_compute = dr_cuda_exchange_after_compute,
                            .before_compute = dr_cuda_exchange_before_compute,
                            .add = dr_cuda_exchange_add,
                            .copy = dr_cuda_exchange_copy,
                            .is_done = dr_cuda_exchange_is_done,
                            .strict = strict};
    DR_TRY(dr_dist_agree(d, dr_cuda_exchange_open(&plane.stream)));
    if (dr_dist_world(d) > 1) {
        DR_TRY(dr_nccl_open(d, JOIN_SECONDS, &plane.nccl, why));
        if (plane.nccl == NULL) {
            if (dr_dist_rank(d) == 0) {
                dr_warn("gradients are summed by the CPUs, which is slow: %s", why);
            }
            return DR_OK;
        }
        const int version = dr_nccl_version(plane.nccl);
        dr_info("gradients: NCCL %d.%d.%d, %s", version / 10000, version / 100 % 100, version % 100,
                strict ? "in the order of the fixed tree" : "all-reduce");
    }
    *out = &plane;
    return DR_OK;
}

void dr_gpu_plane_close(void)
{
    dr_nccl_close(plane.nccl);
    plane = (dr_data_plane){.nccl = NULL};
}
