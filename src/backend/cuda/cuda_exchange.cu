/*
 * backend/cuda/cuda_exchange.cu - a stream beside the ops', on which gradients are summed while
 * backward goes on (backend_cuda.h). Two events order it against the ops' stream.
 */
#include "backend/cuda/backend_cuda.h"
#include "backend/cuda/cuda_internal.cuh"

static struct {
    cudaStream_t stream;
    cudaEvent_t computed, exchanged;
} exchange;

static dr_status create(void)
{
    int least = 0;
    int greatest = 0;
    DR_CUDA(cudaDeviceGetStreamPriorityRange(&least, &greatest));
    DR_CUDA(cudaStreamCreateWithPriority(&exchange.stream, cudaStreamNonBlocking, greatest));
    DR_CUDA(cudaEventCreateWithFlags(&exchange.computed, cudaEventDisableTiming));
    DR_CUDA(cudaEventCreateWithFlags(&exchange.exchanged, cudaEventDisableTiming));
    return DR_OK;
}

dr_status dr_cuda_exchange_open(void **stream)
{
    DR_CHECK(exchange.stream == nullptr, "the stream of exchanges is open already");
    const dr_status st = create();
    if (st != DR_OK) {
        dr_cuda_exchange_close();
        return st;
    }
    *stream = exchange.stream;
    return DR_OK;
}

void dr_cuda_exchange_close(void)
{
    if (exchange.stream != nullptr) {
        (void)cudaStreamSynchronize(exchange.stream);
        (void)cudaStreamDestroy(exchange.stream);
    }
    if (exchange.computed != nullptr) {
        (void)cudaEventDestroy(exchange.computed);
    }
    if (exchange.exchanged != nullptr) {
        (void)cudaEventDestroy(exchange.exchanged);
    }
    exchange = {};
}

dr_status dr_cuda_exchange_after_compute(void)
{
    DR_CUDA(cudaEventRecord(exchange.computed, dr_cuda_stream()));
    DR_CUDA(cudaStreamWaitEvent(exchange.stream, exchange.computed, 0));
    return DR_OK;
}

dr_status dr_cuda_exchange_before_compute(void)
{
    DR_CUDA(cudaEventRecord(exchange.exchanged, exchange.stream));
    DR_CUDA(cudaStreamWaitEvent(dr_cuda_stream(), exchange.exchanged, 0));
    return DR_OK;
}

struct add_left {
    float *sum;
    const float *left;
    __device__ void operator()(int64_t i) const
    {
        sum[i] = left[i] + sum[i];
    }
};

dr_status dr_cuda_exchange_add(float *sum, const float *left, int64_t n)
{
    return dr_each_on(exchange.stream, n, add_left{sum, left});
}

dr_status dr_cuda_exchange_copy(float *to, const float *from, int64_t n)
{
    DR_CUDA(cudaMemcpyAsync(to, from, static_cast<size_t>(n) * sizeof(float),
                            cudaMemcpyDeviceToDevice, exchange.stream));
    return DR_OK;
}

dr_status dr_cuda_exchange_is_done(bool *done)
{
    const cudaError_t e = cudaEventQuery(exchange.exchanged);
    *done = e == cudaSuccess;
    if (e != cudaSuccess && e != cudaErrorNotReady) {
        DR_CUDA(e);
    }
    return DR_OK;
}
