/*
 * What src/dist/nccl_api.h says of NCCL's binary interface, against nccl.h.
 */
#include "dist/nccl_api.h"

#include <cuda_runtime_api.h>
#include <nccl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define SAME(what, a, b) _Static_assert((long)(a) == (long)(b), what)
SAME("success", DR_NCCL_SUCCESS, ncclSuccess);
SAME("internal error", DR_NCCL_INTERNAL_ERROR, ncclInternalError);
SAME("invalid argument", DR_NCCL_INVALID_ARGUMENT, ncclInvalidArgument);
SAME("remote error", DR_NCCL_REMOTE_ERROR, ncclRemoteError);
SAME("in progress", DR_NCCL_IN_PROGRESS, ncclInProgress);
SAME("float", DR_NCCL_FLOAT, ncclFloat32);
SAME("sum", DR_NCCL_SUM, ncclSum);
SAME("id", sizeof(dr_nccl_id), sizeof(ncclUniqueId));
SAME("size", offsetof(dr_nccl_config, size), offsetof(ncclConfig_t, size));
SAME("magic", offsetof(dr_nccl_config, magic), offsetof(ncclConfig_t, magic));
SAME("version", offsetof(dr_nccl_config, version), offsetof(ncclConfig_t, version));
SAME("blocking", offsetof(dr_nccl_config, blocking), offsetof(ncclConfig_t, blocking));
SAME("version 2.14", DR_NCCL_CONFIG_VERSION, NCCL_VERSION(2, 14, 0));

/* The parameters, as far as C can compare pointers to functions. */
_Static_assert(sizeof(ncclResult_t) == sizeof(int) && sizeof(ncclDataType_t) == sizeof(int) &&
                   sizeof(ncclRedOp_t) == sizeof(int) && sizeof(ncclComm_t) == sizeof(void *) &&
                   sizeof(cudaStream_t) == sizeof(void *),
               "sizes of parameters");
typedef ncclResult_t all_reduce(const void *, void *, size_t, ncclDataType_t, ncclRedOp_t,
                                ncclComm_t, cudaStream_t);
typedef ncclResult_t send(const void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t);
typedef ncclResult_t recv(void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t);
typedef ncclResult_t init(ncclComm_t *, int, ncclUniqueId, int, ncclConfig_t *);
#define HAS_TYPE(function, type)                                                                   \
    _Static_assert(_Generic(&(function), type * : 1, default : 0), #function)
HAS_TYPE(ncclAllReduce, all_reduce);
HAS_TYPE(ncclSend, send);
HAS_TYPE(ncclRecv, recv);
HAS_TYPE(ncclCommInitRankConfig, init);

int main(void)
{
    const ncclConfig_t initial = NCCL_CONFIG_INITIALIZER;
    if (initial.magic != DR_NCCL_CONFIG_MAGIC) {
        (void)fprintf(stderr, "NCCL's magic number is %x\n", initial.magic);
        return 1;
    }
    return 0;
}
