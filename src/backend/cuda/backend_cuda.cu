/*
 * backend/cuda/backend_cuda.cu - the open GPU: its device table, its stream, the table of ops.
 *
 * The CUDA runtime knows one current GPU per thread; this file keeps the one that the process
 * opened.
 */
#include "backend/cuda/backend_cuda.h"
#include "backend/cuda/cuda_internal.cuh"

#include <cstdio>
#include <cstring>

extern "C" {
#include "backend/cuda/cuda_cudnn.h"
#include "backend/cuda/cuda_sdpa.h"
#include "ops/attention.h"
#include "ops/conv2d.h"
#include "ops/diffusion_ops.h"
#include "ops/linear.h"
#include "ops/norm.h"
#include "ops/optimizer_ops.h"
#include "ops/pointwise.h"
}

static struct {
    bool is_open;
    int device;
    cudaStream_t stream;
    int *flags;           /* host memory that kernels can write */
    int *device_flags;    /* the same, as kernels see it */
    const char *no_cudnn; /* why, or NULL */
} gpu;

dr_status dr_cuda_error(cudaError_t e, const char *call, const char *file, int line)
{
    const dr_status st = e == cudaErrorMemoryAllocation ? DR_NOMEM : DR_DEVICE;
    return dr_error_set(st, file, line, "GPU %d: %.80s: %s", gpu.device, call,
                        cudaGetErrorString(e));
}

dr_status dr_cuda_launched(const char *kernel, const char *file, int line)
{
    const cudaError_t e = cudaGetLastError();
    return e == cudaSuccess ? DR_OK : dr_cuda_error(e, kernel, file, line);
}

cudaStream_t dr_cuda_stream(void)
{
    return gpu.stream;
}

int *dr_cuda_flags(void)
{
    return gpu.device_flags;
}

/* ---- device -----------------------------------------------------------------------------------
 */

static dr_status device_alloc(size_t bytes, void **out)
{
    const cudaError_t e = cudaMalloc(out, bytes > 0 ? bytes : 1);
    if (e == cudaErrorMemoryAllocation) {
        uint64_t left = 0;
        (void)cudaGetLastError();
        DR_TRY(dr_cuda_free_bytes(&left));
        DR_FAIL(DR_NOMEM, "GPU %d: cannot allocate %zu bytes; %llu are free", gpu.device, bytes,
                static_cast<unsigned long long>(left));
    }
    DR_CUDA(e);
    return DR_OK;
}

static void device_free(void *p)
{
    if (p != nullptr) {
        (void)cudaStreamSynchronize(gpu.stream); /* work that is under way may use it */
        (void)cudaFree(p);
    }
}

static dr_status device_upload(void *dst, const void *src, size_t bytes)
{
    DR_CUDA(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyHostToDevice, gpu.stream));
    return DR_OK;
}

static void check_flags(void)
{
    DR_CHECK(gpu.flags[0] != DR_CUDA_FLAG_BAD_ID,
             "embedding: token id %d at position %d, the table has %d rows", gpu.flags[1],
             gpu.flags[2], gpu.flags[3]);
}

static void device_memory(uint64_t *used_bytes, uint64_t *total_bytes)
{
    size_t free = 0;
    size_t total = 0;
    if (cudaMemGetInfo(&free, &total) != cudaSuccess) {
        free = total = 0;
    }
    *used_bytes = total - free;
    *total_bytes = total;
}

static dr_status device_download(void *dst, const void *src, size_t bytes)
{
    DR_CUDA(cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToHost, gpu.stream));
    DR_CUDA(cudaStreamSynchronize(gpu.stream));
    check_flags();
    return DR_OK;
}

static dr_status device_zero(void *p, size_t bytes)
{
    DR_CUDA(cudaMemsetAsync(p, 0, bytes, gpu.stream));
    return DR_OK;
}

static const dr_device device_table = {
    /* name */ "cuda", /* host_visible */ false, device_alloc, device_free,
    device_upload,     device_download,          device_zero,  device_memory};

/* ---- ops --------------------------------------------------------------------------------------
 */

template <typename A> static const A *args_of(const void *args)
{
    return static_cast<const A *>(args);
}

static size_t linear_dw_bytes(const dr_linear_dw_args *a)
{
    return a->db != nullptr ? dr_cuda_column_work_bytes(1, dr_rows(a->dy), dr_cols(a->dy), 1) : 0;
}

static size_t sum_rows_bytes(const dr_sum_rows_args *a)
{
    const int64_t n = a->dy->dim[0];
    return dr_cuda_column_work_bytes(n, dr_rows(a->dy) / n, dr_cols(a->dy), 1);
}

static size_t work_bytes(const dr_context *, dr_op_id op, const void *args)
{
    switch (op) {
    case DR_OP_conv2d:
    case DR_OP_conv2d_dx:
    case DR_OP_conv2d_dw:
        return dr_cuda_conv2d_work_bytes(op, args);
    case DR_OP_linear_dw:
        return linear_dw_bytes(args_of<dr_linear_dw_args>(args));
    case DR_OP_sum_rows:
        return sum_rows_bytes(args_of<dr_sum_rows_args>(args));
    case DR_OP_attention:
        return dr_cuda_attention_work_bytes(args_of<dr_attention_args>(args));
    case DR_OP_attention_backward:
        return dr_cuda_attention_backward_work_bytes(args_of<dr_attention_backward_args>(args));
    case DR_OP_groupnorm:
        return dr_cuda_groupnorm_work_bytes(args_of<dr_groupnorm_args>(args));
    case DR_OP_groupnorm_backward:
        return dr_cuda_groupnorm_backward_work_bytes(args_of<dr_groupnorm_backward_args>(args));
    case DR_OP_layernorm_backward:
        return dr_cuda_layernorm_backward_work_bytes(args_of<dr_layernorm_backward_args>(args));
    case DR_OP_mse:
        return dr_cuda_mse_work_bytes(args_of<dr_mse_args>(args));
    case DR_OP_sumsq:
        return dr_cuda_sumsq_work_bytes(args_of<dr_sumsq_args>(args));
    case DR_OP_checksum:
        return dr_cuda_checksum_work_bytes(args_of<dr_checksum_args>(args));
    case DR_OP_lion:
        return dr_cuda_lion_work_bytes(args_of<dr_lion_args>(args));
    case DR_OP_dadapt:
        return dr_cuda_dadapt_work_bytes(args_of<dr_dadapt_args>(args));
    case DR_OP_adafactor_sums:
        return dr_cuda_adafactor_sums_work_bytes(args_of<dr_adafactor_sums_args>(args));
    case DR_OP_adafactor_apply:
        return dr_cuda_adafactor_apply_work_bytes(args_of<dr_adafactor_apply_args>(args));
    default:
        return 0;
    }
}

/* Ops that stand in the list and not here stay NULL: asking for one is DR_UNSUPPORTED. */
static dr_backend make_table(void)
{
    dr_backend t = {};
    t.name = "cuda";
    t.device = &device_table;
    t.compute = DR_F32;
    t.recorder = &dr_cuda_recorder;
    t.work_bytes = work_bytes;
    t.blockwise_all = dr_cuda_blockwise_all;
#define OP(name) t.name = dr_cuda_##name;
#include "backend/cuda/cuda_ops.def"
#undef OP
    return t;
}

static dr_backend backend_table;

/* ---- opening ----------------------------------------------------------------------------------
 */

int dr_cuda_count(char reason[256])
{
    int n = 0;
    const cudaError_t e = cudaGetDeviceCount(&n);
    reason[0] = '\0';
    if (e != cudaSuccess || n == 0) {
        (void)snprintf(reason, 256, "no GPU can be used: %s",
                       e != cudaSuccess ? cudaGetErrorString(e) : "none found");
        (void)cudaGetLastError();
        return 0;
    }
    return n;
}

dr_status dr_cuda_describe(int device, dr_cuda_info *out)
{
    cudaDeviceProp p;
    DR_CUDA(cudaGetDeviceProperties(&p, device));
    *out = dr_cuda_info{};
    memcpy(out->name, p.name, sizeof out->name - 1);
    memcpy(out->uuid, p.uuid.bytes, sizeof out->uuid);
    out->major = p.major;
    out->minor = p.minor;
    out->total_bytes = p.totalGlobalMem;
    return DR_OK;
}

void dr_cuda_describe_convolutions(char out[256])
{
    const dr_cuda_cudnn_counts n = dr_cuda_cudnn_counted();
    const int version = dr_cuda_cudnn_version();
    if (gpu.no_cudnn != nullptr) {
        (void)snprintf(out, 256, "own kernels: %.230s", gpu.no_cudnn);
    } else if (n.planned + n.refused == 0) {
        (void)snprintf(out, 256, "cuDNN %d.%d.%d", version / 10000, version / 100 % 100,
                       version % 100);
    } else {
        (void)snprintf(
            out, 256, "cuDNN %d.%d.%d has plans for %lld of %lld; own kernels do %lld",
            version / 10000, version / 100 % 100, version % 100, static_cast<long long>(n.planned),
            static_cast<long long>(n.planned + n.refused), static_cast<long long>(n.refused));
    }
}

void dr_cuda_describe_attention(char out[256])
{
    const dr_cuda_sdpa_counts n = dr_cuda_sdpa_counted();
    if (gpu.no_cudnn != nullptr) {
        (void)snprintf(out, 256, "own kernels: %.230s", gpu.no_cudnn);
    } else if (n.planned + n.refused == 0) {
        (void)snprintf(out, 256, "own kernels in fp32 and with a causal limit, else cuDNN's");
    } else {
        (void)snprintf(out, 256, "cuDNN has plans for %lld of %lld%s%.180s",
                       static_cast<long long>(n.planned),
                       static_cast<long long>(n.planned + n.refused),
                       n.why != nullptr ? "; own kernels do the others, as " : "",
                       n.why != nullptr ? n.why : "");
    }
}

dr_status dr_cuda_free_bytes(uint64_t *out)
{
    size_t free = 0;
    size_t total = 0;
    DR_CUDA(cudaMemGetInfo(&free, &total));
    *out = free;
    return DR_OK;
}

static dr_status open_device(int device, dr_cuda_tf32 tf32)
{
    void *flags = nullptr;
    void *device_flags = nullptr;
    DR_CUDA(cudaSetDevice(device));
    DR_CUDA(cudaStreamCreateWithFlags(&gpu.stream, cudaStreamNonBlocking));
    DR_CUDA(cudaHostAlloc(&flags, DR_CUDA_FLAGS_WORDS * sizeof(int), cudaHostAllocMapped));
    memset(flags, 0, DR_CUDA_FLAGS_WORDS * sizeof(int));
    gpu.flags = static_cast<int *>(flags);
    DR_CUDA(cudaHostGetDevicePointer(&device_flags, flags, 0));
    gpu.device_flags = static_cast<int *>(device_flags);
    DR_TRY(dr_cuda_gemm_open(tf32 == DR_CUDA_TF32_ALL));
    return dr_cuda_cudnn_open(tf32 != DR_CUDA_TF32_OFF, &gpu.no_cudnn);
}

dr_status dr_cuda_open(int device, dr_cuda_tf32 tf32, const dr_backend **out)
{
    char reason[256];
    const int n = dr_cuda_count(reason);
    DR_CHECK(!gpu.is_open, "GPU %d is open already", gpu.device);
    if (n == 0) {
        DR_FAIL(DR_DEVICE, "%s", reason);
    }
    if (device < 0 || device >= n) {
        DR_FAIL(DR_DEVICE, "GPU %d does not exist: this process sees GPUs 0 to %d", device, n - 1);
    }
    gpu.is_open = true;
    gpu.device = device;
    const dr_status st = open_device(device, tf32);
    if (st != DR_OK) {
        dr_cuda_close();
        return st;
    }
    backend_table = make_table();
    *out = &backend_table;
    return DR_OK;
}

void dr_cuda_close(void)
{
    if (!gpu.is_open) {
        return;
    }
    dr_cuda_exchange_close();
    if (gpu.stream != nullptr) {
        (void)cudaStreamSynchronize(gpu.stream);
        (void)cudaStreamDestroy(gpu.stream);
    }
    dr_cuda_cudnn_close();
    dr_cuda_gemm_close();
    if (gpu.flags != nullptr) {
        (void)cudaFreeHost(gpu.flags);
    }
    gpu = {};
}
