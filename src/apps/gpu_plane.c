#include "apps/gpu_plane.h"

#include "backend/cuda/backend_cuda.h"
#include "base/log.h"

#include "base/str.h"

#include <stdlib.h>

/* NCCL connects thousands of ranks within a minute; slow file systems and drivers come on top. */
#define JOIN_SECONDS 300.0

static dr_data_plane plane; /* of the GPU that this process opened */

/* What dreamrun launch --start_timeout says, or its default. */
static dr_status join_seconds(double *out)
{
    const char *text = getenv("DREAMRUN_START_TIMEOUT");
    *out = JOIN_SECONDS;
    if (text != NULL && !(dr_parse_f64(text, out) && *out > 0.0)) {
        DR_FAIL(DR_INVALID, "DREAMRUN_START_TIMEOUT: found '%s', expected seconds", text);
    }
    return DR_OK;
}

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
        double seconds;
        DR_TRY(dr_dist_agree(d, join_seconds(&seconds)));
        DR_TRY(dr_nccl_open(d, seconds, &plane.nccl, why));
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
