#include "emu_host.h"

#include <cuda_runtime.h>

namespace
{
struct two_streams {
    cudaStream_t a = nullptr, b = nullptr;
    cudaEvent_t event = nullptr;
    void *device = nullptr;
    int *host = nullptr; /* pinned */
    two_streams()
    {
        void *p = nullptr;
        (void)cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking);
        (void)cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking);
        (void)cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
        (void)cudaMalloc(&device, sizeof(int));
        (void)cudaHostAlloc(&p, sizeof(int), 0);
        host = static_cast<int *>(p);
        *host = 0;
    }
    ~two_streams()
    {
        (void)cudaStreamDestroy(a);
        (void)cudaStreamDestroy(b);
        (void)cudaEventDestroy(event);
        (void)cudaFree(device);
        (void)cudaFreeHost(host);
    }
    void fill(int byte)
    {
        (void)cudaMemsetAsync(device, byte, sizeof(int), a);
    }
    void fetch(cudaStream_t s)
    {
        (void)cudaMemcpyAsync(host, device, sizeof(int), cudaMemcpyDeviceToHost, s);
    }
};
} // namespace

bool emu_work_waits_for_a_synchronisation(void)
{
    two_streams t;
    t.fill(1);
    t.fetch(t.a);
    const bool early = *t.host == 0;
    return early && cudaStreamSynchronize(t.a) == cudaSuccess && *t.host == 0x01010101;
}

bool emu_events_order_two_streams(void)
{
    two_streams t;
    t.fill(1);
    t.fetch(t.b); /* nothing orders it after the fill: the memory is still new */
    (void)cudaStreamSynchronize(t.b);
    const bool unordered = *t.host == -1;
    t.fill(2);
    (void)cudaEventRecord(t.event, t.a);
    const bool pending = cudaEventQuery(t.event) == cudaErrorNotReady;
    (void)cudaStreamWaitEvent(t.b, t.event, 0);
    t.fetch(t.b);
    (void)cudaStreamSynchronize(t.b);
    return unordered && pending && *t.host == 0x02020202 && cudaEventQuery(t.event) == cudaSuccess;
}

bool emu_graphs_replay(void)
{
    two_streams t;
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    (void)cudaStreamBeginCapture(t.a, cudaStreamCaptureModeThreadLocal);
    t.fill(3);
    t.fetch(t.a);
    const bool captured = cudaStreamEndCapture(t.a, &graph) == cudaSuccess;
    (void)cudaStreamSynchronize(t.a);
    const bool not_run = *t.host == 0;
    bool replayed = cudaGraphInstantiate(&exec, graph, 0) == cudaSuccess;
    for (int i = 0; i < 2; i++) {
        *t.host = 0;
        replayed = replayed && cudaGraphLaunch(exec, t.a) == cudaSuccess &&
                   cudaStreamSynchronize(t.a) == cudaSuccess && *t.host == 0x03030303;
    }
    (void)cudaGraphExecDestroy(exec);
    (void)cudaGraphDestroy(graph);
    return captured && not_run && replayed;
}

bool emu_captures_refuse_allocation_and_waiting(void)
{
    two_streams t;
    cudaGraph_t graph = nullptr;
    void *p = nullptr;
    (void)cudaStreamBeginCapture(t.a, cudaStreamCaptureModeThreadLocal);
    const bool refused = cudaMalloc(&p, 64) == cudaErrorStreamCaptureUnsupported &&
                         cudaStreamSynchronize(t.a) == cudaErrorStreamCaptureUnsupported;
    (void)cudaStreamEndCapture(t.a, &graph);
    (void)cudaGraphDestroy(graph);
    (void)cudaGetLastError();
    return refused;
}
