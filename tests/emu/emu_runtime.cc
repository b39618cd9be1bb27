/*
 * tests/emu/emu_runtime.cc - memory, streams, events and graphs of the emulated runtime.
 *
 * Device memory lies between pages nobody may touch and is itself out of reach while no device work
 * runs: a host that follows a device pointer is stopped by SIGSEGV at that place. New memory is
 * 0xFF..., which is NaN. A stream is a queue; it runs when something waits for it, never earlier.
 * Pinned copies happen in stream order (their source must stay), pageable ones as CUDA does them:
 * the source is read at once, the destination is written before the call returns.
 *
 * DREAMRUN_EMU_GPUS (4) and DREAMRUN_EMU_MEMORY_MIB (4096) say what the machine has. Every launch
 * of a graph adds a line to the file DREAMRUN_EMU_COUNTS: allocations and waits of the process so
 * far.
 */
#include "emu.h"
#include "emu_internal.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <sys/mman.h>
#include <vector>

struct emu_stream {
    std::deque<std::function<void()>> queue;
    uint64_t enqueued = 0, done = 0;
};
struct emu_event {
    emu_stream *stream = nullptr;
    uint64_t position = 0;
};
struct emu_graph {
    std::vector<std::function<void()>> work;
};

namespace
{
constexpr size_t PAGE = 4096;

struct block {
    char *base;           /* mapping: guard page, payload pages, guard page */
    size_t payload, size; /* bytes of payload pages, bytes asked for */
    bool pinned;          /* host memory */
};

std::recursive_mutex lock;
std::map<char *, block> blocks; /* by address handed out */
uint64_t allocations, waits;
size_t device_bytes;
int device_depth, current_device;
std::string sticky;
cudaError_t last_error;
emu_graph *capturing;
thread_local std::string error_text;

typedef std::lock_guard<std::recursive_mutex> guard;

long number_from(const char *name, long otherwise)
{
    const char *text = getenv(name);
    return text != nullptr ? strtol(text, nullptr, 10) : otherwise;
}

cudaError_t result(cudaError_t e)
{
    if (!sticky.empty()) {
        e = cudaErrorLaunchFailure;
    }
    if (e != cudaSuccess && e != cudaErrorNotReady) {
        last_error = e;
    }
    return e;
}

/* Device memory is in reach while device work runs. */
void protect(int access)
{
    for (const auto &entry : blocks) {
        if (!entry.second.pinned && entry.second.payload > 0) {
            (void)mprotect(entry.second.base + PAGE, entry.second.payload, access);
        }
    }
}
struct on_device {
    on_device()
    {
        if (device_depth++ == 0) {
            protect(PROT_READ | PROT_WRITE);
        }
    }
    ~on_device()
    {
        if (--device_depth == 0) {
            protect(PROT_NONE);
        }
    }
};

void drain(emu_stream *s, uint64_t position)
{
    on_device reach;
    while (s->done < position && !s->queue.empty()) {
        std::function<void()> work = std::move(s->queue.front());
        s->queue.pop_front();
        s->done++;
        if (sticky.empty()) {
            work();
        }
    }
}

const block *find(const void *p, size_t bytes)
{
    char *at = const_cast<char *>(static_cast<const char *>(p));
    auto entry = blocks.upper_bound(at);
    if (entry == blocks.begin()) {
        return nullptr;
    }
    --entry;
    return at + bytes <= entry->first + entry->second.size ? &entry->second : nullptr;
}

bool is_device(const void *p, size_t bytes)
{
    const block *b = find(p, bytes);
    return b != nullptr && !b->pinned;
}

/* The last byte asked for lies in the last 256 bytes before the guard page. */
cudaError_t allocate(void **out, size_t bytes, bool pinned)
{
    if (capturing != nullptr) {
        return cudaErrorStreamCaptureUnsupported;
    }
    const size_t rounded = (bytes + 255) / 256 * 256;
    const size_t payload = (rounded + PAGE - 1) / PAGE * PAGE;
    void *p = mmap(nullptr, payload + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        return cudaErrorMemoryAllocation;
    }
    char *base = static_cast<char *>(p);
    (void)mprotect(base + PAGE, payload, PROT_READ | PROT_WRITE);
    memset(base + PAGE, 0xff, payload);
    if (!pinned && device_depth == 0) {
        (void)mprotect(base + PAGE, payload, PROT_NONE);
    }
    *out = base + PAGE + payload - rounded;
    blocks[static_cast<char *>(*out)] = block{base, payload, bytes, pinned};
    allocations++;
    device_bytes += pinned ? 0 : payload;
    return cudaSuccess;
}

cudaError_t release(void *p, bool pinned)
{
    auto entry = blocks.find(static_cast<char *>(p));
    if (p == nullptr) {
        return cudaSuccess;
    }
    if (entry == blocks.end() || entry->second.pinned != pinned || capturing != nullptr) {
        return cudaErrorInvalidValue;
    }
    device_bytes -= pinned ? 0 : entry->second.payload;
    (void)munmap(entry->second.base, entry->second.payload + 2 * PAGE);
    blocks.erase(entry);
    return cudaSuccess;
}
} // namespace

bool emu_is_device(const void *p, size_t bytes)
{
    guard g(lock);
    return is_device(p, bytes);
}

void emu_enqueue(cudaStream_t s, std::function<void()> work)
{
    guard g(lock);
    if (capturing != nullptr) {
        capturing->work.push_back(std::move(work));
        return;
    }
    s->queue.push_back(std::move(work));
    s->enqueued++;
}

void emu_set_launch_error(const std::string &reason)
{
    if (sticky.empty()) {
        sticky = reason;
        fprintf(stderr, "emulated GPU: %s\n", reason.c_str());
    }
}

void emu_clear_error(void)
{
    sticky.clear();
    last_error = cudaSuccess;
}

namespace
{
uint64_t counted[3];

void report()
{
    fprintf(stderr, "emulated GPU: %llu kernels, %llu matrix products, %llu cuDNN graphs\n",
            static_cast<unsigned long long>(counted[EMU_KERNEL]),
            static_cast<unsigned long long>(counted[EMU_PRODUCT]),
            static_cast<unsigned long long>(counted[EMU_GRAPH]));
}
} // namespace

void emu_count(emu_work what)
{
    guard g(lock);
    if (counted[EMU_KERNEL] + counted[EMU_PRODUCT] + counted[EMU_GRAPH] == 0 &&
        number_from("DREAMRUN_EMU_REPORT", 0) != 0) {
        (void)atexit(report);
    }
    counted[what]++;
}

void emu_launch_blocks(const char *kernel, dim3 grid, dim3 block, size_t shared_bytes,
                       cudaStream_t s, bool threads_meet, std::function<void()> body)
{
    emu_count(EMU_KERNEL);
    emu_enqueue(s, [=]() {
        std::string reason;
        if (!emu_run_kernel(kernel, grid, block, shared_bytes, threads_meet, body, &reason)) {
            emu_set_launch_error(reason);
        }
    });
}

size_t emu_live_allocations(void)
{
    return blocks.size();
}

uint64_t emu_total_allocations(void)
{
    return allocations;
}

uint64_t emu_total_waits(void)
{
    return waits;
}

cudaError_t cudaGetDeviceCount(int *n)
{
    *n = static_cast<int>(number_from("DREAMRUN_EMU_GPUS", 4));
    return *n > 0 ? cudaSuccess : cudaErrorNoDevice;
}

cudaError_t cudaSetDevice(int device)
{
    int n = 0;
    (void)cudaGetDeviceCount(&n);
    current_device = device;
    return result(device >= 0 && device < n ? cudaSuccess : cudaErrorInvalidDevice);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device)
{
    *p = cudaDeviceProp{};
    snprintf(p->name, sizeof p->name, "emulated GPU %d", device);
    memcpy(p->uuid.bytes, "emulated-gpu-00", 15);
    p->uuid.bytes[15] = static_cast<char>(device);
    p->totalGlobalMem = static_cast<size_t>(number_from("DREAMRUN_EMU_MEMORY_MIB", 4096)) << 20;
    p->major = 9;
    p->multiProcessorCount = 4;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free, size_t *total)
{
    *total = static_cast<size_t>(number_from("DREAMRUN_EMU_MEMORY_MIB", 4096)) << 20;
    *free = *total > device_bytes ? *total - device_bytes : 0;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    guard g(lock);
    size_t free, total;
    (void)cudaMemGetInfo(&free, &total);
    return result(bytes > free ? cudaErrorMemoryAllocation : allocate(p, bytes, false));
}

cudaError_t cudaFree(void *p)
{
    guard g(lock);
    return result(release(p, false));
}

cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned)
{
    guard g(lock);
    return result(allocate(p, bytes, true));
}

cudaError_t cudaHostGetDevicePointer(void **device, void *host, unsigned)
{
    *device = host;
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *p)
{
    guard g(lock);
    return result(release(p, true));
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t s)
{
    guard g(lock);
    const bool from_device = kind != cudaMemcpyHostToDevice;
    const bool to_device = kind != cudaMemcpyDeviceToHost;
    if (is_device(src, bytes) != from_device || is_device(dst, bytes) != to_device) {
        return result(cudaErrorInvalidValue);
    }
    const bool pinned = find(from_device ? dst : src, bytes) != nullptr;
    if (kind == cudaMemcpyHostToDevice && !pinned) {
        std::vector<char> copy(static_cast<const char *>(src),
                               static_cast<const char *>(src) + bytes);
        emu_enqueue(s, [=]() { memcpy(dst, copy.data(), bytes); });
        return result(cudaSuccess);
    }
    emu_enqueue(s, [=]() { memcpy(dst, src, bytes); });
    if (kind == cudaMemcpyDeviceToHost && !pinned) {
        return cudaStreamSynchronize(s);
    }
    return result(cudaSuccess);
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t s)
{
    guard g(lock);
    if (!is_device(p, bytes)) {
        return result(cudaErrorInvalidValue);
    }
    emu_enqueue(s, [=]() { memset(p, value, bytes); });
    return result(cudaSuccess);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned)
{
    *s = new emu_stream;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned flags, int)
{
    return cudaStreamCreateWithFlags(s, flags);
}

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    guard g(lock);
    drain(s, s->enqueued);
    delete s;
    return result(cudaSuccess);
}

cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    guard g(lock);
    if (capturing != nullptr) {
        return result(cudaErrorStreamCaptureUnsupported);
    }
    waits++;
    drain(s, s->enqueued);
    return result(cudaSuccess);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned)
{
    guard g(lock);
    emu_stream *other = e->stream;
    const uint64_t position = e->position;
    if (other != nullptr && capturing == nullptr) {
        emu_enqueue(s, [=]() { drain(other, position); });
    }
    return result(cudaSuccess);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned)
{
    *e = new emu_event;
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    delete e;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s)
{
    guard g(lock);
    e->stream = s;
    e->position = s->enqueued;
    return result(cudaSuccess);
}

/* Each question lets the device do one piece of its work. */
cudaError_t cudaEventQuery(cudaEvent_t e)
{
    guard g(lock);
    if (e->stream != nullptr && e->stream->done < e->position) {
        drain(e->stream, e->stream->done + 1);
    }
    return result(e->stream == nullptr || e->stream->done >= e->position ? cudaSuccess
                                                                         : cudaErrorNotReady);
}

cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    guard g(lock);
    if (capturing != nullptr) {
        return result(cudaErrorStreamCaptureUnsupported);
    }
    waits++;
    if (e->stream != nullptr) {
        drain(e->stream, e->position);
    }
    return result(cudaSuccess);
}

cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode)
{
    guard g(lock);
    if (capturing != nullptr) {
        return result(cudaErrorInvalidValue);
    }
    capturing = new emu_graph;
    return result(cudaSuccess);
}

cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t *graph)
{
    guard g(lock);
    if (capturing == nullptr) {
        return result(cudaErrorInvalidValue);
    }
    *graph = capturing;
    capturing = nullptr;
    return result(cudaSuccess);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long)
{
    *exec = new emu_graph(*graph);
    return result(cudaSuccess);
}

static void write_counts(void)
{
    const char *name = getenv("DREAMRUN_EMU_COUNTS");
    FILE *f = name != nullptr ? fopen(name, "a") : nullptr;
    if (f != nullptr) {
        fprintf(f, "%llu %llu\n", static_cast<unsigned long long>(allocations),
                static_cast<unsigned long long>(waits));
        fclose(f);
    }
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t s)
{
    guard g(lock);
    if (capturing != nullptr) {
        return result(cudaErrorStreamCaptureUnsupported);
    }
    write_counts();
    for (const auto &work : exec->work) {
        emu_enqueue(s, work);
    }
    return result(cudaSuccess);
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    delete exec;
    return cudaSuccess;
}

cudaError_t cudaGetLastError(void)
{
    const cudaError_t e = last_error;
    last_error = cudaSuccess;
    return e;
}

const char *cudaGetErrorString(cudaError_t e)
{
    switch (e) {
    case cudaSuccess:
        return "no error";
    case cudaErrorInvalidValue:
        return "invalid argument";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorInsufficientDriver:
        return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice:
        return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice:
        return "invalid device ordinal";
    case cudaErrorNotReady:
        return "device not ready";
    case cudaErrorStreamCaptureUnsupported:
        return "operation not permitted when stream is capturing";
    case cudaErrorLaunchFailure:
        break;
    }
    error_text = sticky;
    return error_text.c_str();
}
