/*
 * dist/nccl_api.h - the part of NCCL 2's binary interface that dist/nccl.c uses; nccl.h is not
 * needed to build. tests/gpu/test_nccl_api.c compares it with nccl.h where that is installed.
 * Private to dist and tests.
 */
#ifndef DR_DIST_NCCL_API_H
#define DR_DIST_NCCL_API_H

#include <stddef.h>

enum { /* ncclResult_t */
       DR_NCCL_SUCCESS = 0,
       DR_NCCL_INTERNAL_ERROR = 3,
       DR_NCCL_INVALID_ARGUMENT = 4,
       DR_NCCL_REMOTE_ERROR = 6,
       DR_NCCL_IN_PROGRESS = 7
};
enum { DR_NCCL_FLOAT = 7 }; /* ncclDataType_t */
enum { DR_NCCL_SUM = 0 };   /* ncclRedOp_t */

typedef struct dr_nccl_id {
    char bytes[128];
} dr_nccl_id;

/* ncclConfig_t of version 2.14, which later versions take too: they read what `version` tells. */
typedef struct dr_nccl_config {
    size_t size;
    unsigned magic, version;
    int blocking;
} dr_nccl_config;
enum { DR_NCCL_CONFIG_VERSION = 21400 };
#define DR_NCCL_CONFIG_MAGIC 0xcafebeefU

typedef void *dr_nccl_comm;

/* X(result, name, parameters) */
#define DR_NCCL_FUNCTIONS(X)                                                                       \
    X(int, ncclGetVersion, (int *version))                                                         \
    X(int, ncclGetUniqueId, (dr_nccl_id * id))                                                     \
    X(int, ncclCommInitRankConfig,                                                                 \
      (dr_nccl_comm * comm, int world, dr_nccl_id id, int rank, dr_nccl_config *config))           \
    X(int, ncclCommFinalize, (dr_nccl_comm comm))                                                  \
    X(int, ncclCommDestroy, (dr_nccl_comm comm))                                                   \
    X(int, ncclCommAbort, (dr_nccl_comm comm))                                                     \
    X(int, ncclCommGetAsyncError, (dr_nccl_comm comm, int *error))                                 \
    X(const char *, ncclGetErrorString, (int result))                                              \
    X(const char *, ncclGetLastError, (dr_nccl_comm comm))                                         \
    X(int, ncclAllReduce,                                                                          \
      (const void *in, void *out, size_t n, int type, int op, dr_nccl_comm comm, void *stream))    \
    X(int, ncclSend,                                                                               \
      (const void *data, size_t n, int type, int peer, dr_nccl_comm comm, void *stream))           \
    X(int, ncclRecv, (void *data, size_t n, int type, int peer, dr_nccl_comm comm, void *stream))  \
    X(int, ncclGroupStart, (void))                                                                 \
    X(int, ncclGroupEnd, (void))

#endif
