/*
 * tests/emu/emu_gemm.cc - the matrix product that src/backend/cuda gets from cuBLASLt, as plain
 * loops in the order of a stream. Products are summed in f32, as cuBLASLt does.
 */
#include "backend/cuda/cuda_gemm.h"

#include "emu_internal.h"

#include <cuda_runtime.h>
#include <vector>

namespace
{
float element(const void *p, dr_dtype t, int64_t i)
{
    switch (t) {
    case DR_F16:
        return dr_f16_to_f32(static_cast<const uint16_t *>(p)[i]);
    case DR_BF16:
        return dr_bf16_to_f32(static_cast<const uint16_t *>(p)[i]);
    default:
        return static_cast<const float *>(p)[i];
    }
}

void put(void *p, dr_dtype t, int64_t i, float v)
{
    switch (t) {
    case DR_F16:
        static_cast<uint16_t *>(p)[i] = dr_f32_to_f16(v);
        break;
    case DR_BF16:
        static_cast<uint16_t *>(p)[i] = dr_f32_to_bf16(v);
        break;
    default:
        static_cast<float *>(p)[i] = v;
    }
}

/* A dense (rows,cols) f32 copy of one operand of the batch. */
std::vector<float> operand(const dr_cuda_matrix &x, dr_dtype t, int64_t rows, int64_t cols,
                           int64_t batch)
{
    std::vector<float> dense(static_cast<size_t>(rows * cols));
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < cols; j++) {
            const int64_t at = x.transposed ? j * x.ld + i : i * x.ld + j;
            dense[static_cast<size_t>(i * cols + j)] = element(x.data, t, batch * x.stride + at);
        }
    }
    return dense;
}

void multiply(const dr_cuda_gemm_args &g, int64_t batch)
{
    const std::vector<float> a = operand(g.a, g.dtype, g.m, g.k, batch);
    const std::vector<float> b = operand(g.b, g.dtype, g.k, g.n, batch);
    std::vector<float> sum(static_cast<size_t>(g.n));
    enum { STRIP = 64 }; /* partial sums keep the error small, as a tiled product does */
    std::vector<float> part(static_cast<size_t>(g.n));
    for (int64_t i = 0; i < g.m; i++) {
        std::fill(sum.begin(), sum.end(), 0.0f);
        for (int64_t l0 = 0; l0 < g.k; l0 += STRIP) {
            std::fill(part.begin(), part.end(), 0.0f);
            for (int64_t l = l0; l < g.k && l < l0 + STRIP; l++) {
                const float x = a[static_cast<size_t>(i * g.k + l)];
                const float *row = &b[static_cast<size_t>(l * g.n)];
                for (int64_t j = 0; j < g.n; j++) {
                    part[static_cast<size_t>(j)] += x * row[j];
                }
            }
            for (int64_t j = 0; j < g.n; j++) {
                sum[static_cast<size_t>(j)] += part[static_cast<size_t>(j)];
            }
        }
        for (int64_t j = 0; j < g.n; j++) {
            const int64_t at = batch * g.c_stride + i * g.c_ld + j;
            float v = g.alpha * sum[static_cast<size_t>(j)];
            v += g.beta != 0.0f ? g.beta * element(g.c, g.c_dtype, at) : 0.0f;
            v += g.bias != nullptr ? element(g.bias, g.dtype, j) : 0.0f;
            put(g.c, g.c_dtype, at, v);
        }
    }
}
} // namespace

dr_status dr_cuda_gemm(void *stream, const dr_cuda_gemm_args *args)
{
    const dr_cuda_gemm_args g = *args;
    emu_count(EMU_PRODUCT);
    emu_enqueue(static_cast<cudaStream_t>(stream), [g]() {
        for (int64_t i = 0; i < g.batch; i++) {
            multiply(g, i);
        }
    });
    return DR_OK;
}

dr_status dr_cuda_gemm_open(bool)
{
    return DR_OK;
}

void dr_cuda_gemm_close(void)
{
}
