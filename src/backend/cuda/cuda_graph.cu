/*
 * backend/cuda/cuda_graph.cu - recordings of the ops' stream as CUDA graphs (dr_recorder).
 */
#include "backend/cuda/cuda_internal.cuh"

/* The run may go on without: no launch shall find the error again. */
static dr_status told(cudaError_t e)
{
    if (e != cudaSuccess) {
        (void)cudaGetLastError();
    }
    DR_CUDA(e);
    return DR_OK;
}

static dr_status begin(void)
{
    return told(cudaStreamBeginCapture(dr_cuda_stream(), cudaStreamCaptureModeThreadLocal));
}

static dr_status end(void **recording)
{
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    *recording = nullptr;
    DR_TRY(told(cudaStreamEndCapture(dr_cuda_stream(), &graph)));
    const cudaError_t e = cudaGraphInstantiate(&exec, graph, 0);
    (void)cudaGraphDestroy(graph);
    DR_TRY(told(e));
    *recording = exec;
    return DR_OK;
}

static dr_status play(void *recording)
{
    DR_CUDA(cudaGraphLaunch(static_cast<cudaGraphExec_t>(recording), dr_cuda_stream()));
    return DR_OK;
}

static void forget(void *recording)
{
    if (recording != nullptr) {
        (void)cudaStreamSynchronize(dr_cuda_stream()); /* it may still run */
        (void)cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(recording));
    }
}

const dr_recorder dr_cuda_recorder = {begin, end, play, forget};
