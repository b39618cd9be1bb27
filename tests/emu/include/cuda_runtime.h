/*
 * tests/emu/include/cuda_runtime.h - the part of CUDA that src/backend/cuda uses, for the host
 * compiler.
 *
 * Not shipped: only the emulated build includes it, in place of the toolkit's header. Kernels run
 * on fibers, one per thread of a block (tests/emu/emu_kernel.cc); streams are queues that run when
 * somebody waits for them, so work whose result is read too early is seen
 * (tests/emu/emu_runtime.cc). Names and meaning follow the CUDA Runtime API reference; what is not
 * here is not emulated.
 */
#ifndef DR_EMU_CUDA_RUNTIME_H
#define DR_EMU_CUDA_RUNTIME_H

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <tuple>

#define __global__ static
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(n)
#define __grid_constant__

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};

/* ---- runtime --------------------------------------------------------------------------------- */

enum cudaError_t {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorNotReady = 600,
    cudaErrorLaunchFailure = 719,
    cudaErrorStreamCaptureUnsupported = 900
};
enum cudaMemcpyKind {
    cudaMemcpyHostToDevice = 1,
    cudaMemcpyDeviceToHost = 2,
    cudaMemcpyDeviceToDevice = 3
};
enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2, cudaHostAllocMapped = 2 };
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal = 1 };
typedef struct emu_stream *cudaStream_t;
typedef struct emu_event *cudaEvent_t;
typedef struct emu_graph *cudaGraph_t;
typedef struct emu_graph *cudaGraphExec_t;
struct cudaUUID_t {
    char bytes[16];
};
struct cudaDeviceProp {
    char name[256];
    cudaUUID_t uuid;
    size_t totalGlobalMem;
    int major, minor, multiProcessorCount;
};

cudaError_t cudaGetDeviceCount(int *n);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device);
cudaError_t cudaMemGetInfo(size_t *free, size_t *total);
cudaError_t cudaMalloc(void **p, size_t bytes);
cudaError_t cudaFree(void *p);
cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned flags);
cudaError_t cudaHostGetDevicePointer(void **device, void *host, unsigned flags);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t s);
cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t s);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags);
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest);
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned flags, int priority);
cudaError_t cudaStreamDestroy(cudaStream_t s);
cudaError_t cudaStreamSynchronize(cudaStream_t s);
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t e);
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s);
cudaError_t cudaEventQuery(cudaEvent_t e);
cudaError_t cudaEventSynchronize(cudaEvent_t e);
cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph,
                                 unsigned long long flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);
cudaError_t cudaGetLastError(void);
const char *cudaGetErrorString(cudaError_t e);

/* ---- inside kernels -------------------------------------------------------------------------- */

extern dim3 emu_thread_idx, emu_block_idx, emu_block_dim, emu_grid_dim;
#define threadIdx emu_thread_idx
#define blockIdx  emu_block_idx
#define blockDim  emu_block_dim
#define gridDim   emu_grid_dim

void emu_syncthreads(const char *file, int line);
void emu_syncwarp(const char *file, int line);
/* Leaves this lane's value and returns that of another lane of the warp. */
uint64_t emu_shuffle(uint64_t value, unsigned from_lane, const char *file, int line);
unsigned emu_lane();
#define __syncthreads() emu_syncthreads(__FILE__, __LINE__)
#define __syncwarp()    emu_syncwarp(__FILE__, __LINE__)

template <typename T> T emu_shuffle_value(T v, unsigned lane, const char *file, int line)
{
    static_assert(sizeof(T) <= sizeof(uint64_t), "shuffles move at most 8 bytes");
    uint64_t bits = 0;
    __builtin_memcpy(&bits, &v, sizeof v);
    bits = emu_shuffle(bits, lane, file, line);
    __builtin_memcpy(&v, &bits, sizeof v);
    return v;
}
#define __shfl_xor_sync(mask, v, m)                                                                \
    emu_shuffle_value(v, emu_lane() ^ (unsigned)(m), __FILE__, __LINE__)
#define __shfl_sync(mask, v, lane) emu_shuffle_value(v, (unsigned)(lane) % 32u, __FILE__, __LINE__)

/* Threads of the emulation never run at the same time. */
template <typename T> T atomicAdd(T *p, T v)
{
    T old = *p;
    *p = old + v;
    return old;
}
template <typename T> T atomicMax(T *p, T v)
{
    T old = *p;
    *p = old > v ? old : v;
    return old;
}
template <typename T> T atomicExch(T *p, T v)
{
    T old = *p;
    *p = v;
    return old;
}

/* ---- shared memory: every access is checked ----------------------------------------------------
 */

/* Reports an access outside the array, a read of what nobody wrote, and two threads that touch the
 * same word without a barrier between them, one of them writing. */
void *emu_shared_access(size_t offset, size_t bytes, bool write, const char *name);
void emu_shared_declare(size_t offset, size_t bytes, const char *name);
[[noreturn]] void emu_fail(const char *what, const char *name, size_t index, size_t limit);

template <typename T> class emu_shared
{
    size_t offset, n;
    const char *name;

  public:
    static_assert(sizeof(T) % 4 == 0, "shared memory is checked by words of 4 bytes");
    emu_shared(size_t offset_, size_t n_, const char *name_) : offset(offset_), n(n_), name(name_)
    {
        emu_shared_declare(offset, n * sizeof(T), name);
    }
    class ref
    {
        size_t at;
        const char *name;

      public:
        ref(size_t at_, const char *name_) : at(at_), name(name_)
        {
        }
        operator T() const
        {
            return *static_cast<T *>(emu_shared_access(at, sizeof(T), false, name));
        }
        ref &operator=(T v)
        {
            *static_cast<T *>(emu_shared_access(at, sizeof(T), true, name)) = v;
            return *this;
        }
        ref &operator=(const ref &other)
        {
            return *this = static_cast<T>(other);
        }
        ref &operator+=(T v)
        {
            return *this = static_cast<T>(*this) + v;
        }
    };
    ref operator[](size_t i) const
    {
        if (i >= n) {
            emu_fail("outside shared memory", name, i, n);
        }
        return ref(offset + i * sizeof(T), name);
    }
};

/* ---- launches -------------------------------------------------------------------------------- */

/* threads_meet: they may wait for each other; else they run one after another, without fibers. */
void emu_launch_blocks(const char *kernel, dim3 grid, dim3 block, size_t shared_bytes,
                       cudaStream_t s, bool threads_meet, std::function<void()> body);
/* Work of a library call (matmul, collective) in the order of a stream. */
void emu_enqueue(cudaStream_t s, std::function<void()> work);

template <typename... P, typename... A>
void emu_launch(const char *name, dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t s,
                bool threads_meet, void (*kernel)(P...), A... args)
{
    std::tuple<P...> values(static_cast<P>(args)...);
    emu_launch_blocks(name, grid, block, shared_bytes, s, threads_meet,
                      [kernel, values]() { std::apply(kernel, values); });
}

inline float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}

#endif
