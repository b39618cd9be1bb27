/*
 * tests/emu/emu_cudnn.cc - the convolutions that src/backend/cuda gets from cuDNN, as plain loops
 * in the order of a stream.
 *
 * As with cuDNN some descriptions have no plan (here a third of them, by their sizes), plans want
 * workspace, and pointers must be aligned. A run fills its workspace, so work that is too small or
 * shared is seen; what the real library refuses is refused.
 */
#include "backend/cuda/cuda_cudnn.h"

#include "emu_internal.h"

#include <cstdint>
#include <cstring>
#include <cuda_runtime.h>
#include <set>
#include <string>
#include <vector>

namespace
{
std::set<std::string> planned, refused;

std::string name_of(const dr_cuda_conv &c)
{
    return std::string(reinterpret_cast<const char *>(&c), sizeof c);
}

bool has_plan(const dr_cuda_conv &c)
{
    return c.result == c.dtype && (c.n + c.h + c.w + c.in + c.out) % 3 != 0;
}

size_t work_bytes(const dr_cuda_conv &c)
{
    return static_cast<size_t>((c.in * 13 + c.out * 7 + c.kind) % 257);
}

void aligned(const void *p, const char *what)
{
    DR_CHECK(reinterpret_cast<uintptr_t>(p) % DR_CUDA_CUDNN_ALIGNMENT == 0,
             "cuDNN: %s is not aligned to %d bytes", what, DR_CUDA_CUDNN_ALIGNMENT);
}

float element(const void *p, dr_dtype t, int64_t i)
{
    float v = 0.0f;
    dr_convert(&v, DR_F32, static_cast<const char *>(p) + static_cast<size_t>(i) * dr_dtype_size(t),
               t, 1);
    return v;
}

/* out[i] = or += sums[i] */
void store(const dr_cuda_conv &c, void *out, const std::vector<double> &sums)
{
    for (size_t i = 0; i < sums.size(); i++) {
        const float old = c.adds ? element(out, c.result, static_cast<int64_t>(i)) : 0.0f;
        const float v = old + static_cast<float>(sums[i]);
        dr_convert(static_cast<char *>(out) + i * dr_dtype_size(c.result), c.result, &v, DR_F32, 1);
    }
}

std::vector<double> dense(const void *p, dr_dtype t, int64_t n)
{
    std::vector<double> v(static_cast<size_t>(n));
    dr_convert(v.data(), DR_F64, p, t, v.size());
    return v;
}

/* Calls f(image pixel, output pixel, tap) for every triple that meets. */
template <typename F> void each_meeting(const dr_cuda_conv &c, F f)
{
    for (int64_t y = 0; y < c.n * c.ho * c.wo; y++) {
        const int64_t n = y / (c.ho * c.wo);
        for (int64_t tap = 0; tap < c.geom.kh * c.geom.kw; tap++) {
            const int64_t h = y / c.wo % c.ho * c.geom.stride - c.geom.top + tap / c.geom.kw;
            const int64_t w = y % c.wo * c.geom.stride - c.geom.left + tap % c.geom.kw;
            if (h >= 0 && h < c.h && w >= 0 && w < c.w) {
                f((n * c.h + h) * c.w + w, y, tap);
            }
        }
    }
}

void run(const dr_cuda_conv &c, const void *a, const void *b, void *out)
{
    const int64_t taps = c.geom.kh * c.geom.kw;
    const int64_t images = c.n * c.h * c.w * c.in;
    const int64_t outputs = c.n * c.ho * c.wo * c.out;
    const int64_t weights = c.out * taps * c.in;
    const bool forward = c.kind == DR_CUDA_CONV_Y;
    const bool dx = c.kind == DR_CUDA_CONV_DX;
    std::vector<double> x = dx ? std::vector<double>(static_cast<size_t>(images))
                               : dense(forward ? a : b, c.dtype, images);
    std::vector<double> w = c.kind == DR_CUDA_CONV_DW
                                ? std::vector<double>(static_cast<size_t>(weights))
                                : dense(b, c.dtype, weights);
    std::vector<double> y =
        forward ? std::vector<double>(static_cast<size_t>(outputs)) : dense(a, c.dtype, outputs);
    each_meeting(c, [&](int64_t pixel, int64_t at, int64_t tap) {
        double *xs = &x[static_cast<size_t>(pixel * c.in)];
        for (int64_t o = 0; o < c.out; o++) {
            double *ws = &w[static_cast<size_t>((o * taps + tap) * c.in)];
            double &sum = y[static_cast<size_t>(at * c.out + o)];
            for (int64_t i = 0; i < c.in; i++) {
                if (forward) {
                    sum += xs[i] * ws[i];
                } else if (dx) {
                    xs[i] += sum * ws[i];
                } else {
                    ws[i] += sum * xs[i];
                }
            }
        }
    });
    store(c, out, forward ? y : dx ? x : w);
}
} // namespace

dr_status dr_cuda_cudnn_open(bool, const char **why)
{
    *why = nullptr;
    return DR_OK;
}

void dr_cuda_cudnn_close(void)
{
    planned.clear();
    refused.clear();
}

int dr_cuda_cudnn_version(void)
{
    return 90000;
}

dr_cuda_cudnn_counts dr_cuda_cudnn_counted(void)
{
    return dr_cuda_cudnn_counts{static_cast<int64_t>(planned.size()),
                                static_cast<int64_t>(refused.size())};
}

bool dr_cuda_cudnn_has(const dr_cuda_conv *c, size_t *bytes)
{
    const bool found = has_plan(*c);
    (found ? planned : refused).insert(name_of(*c));
    *bytes = found ? work_bytes(*c) : 0;
    return found;
}

dr_status dr_cuda_cudnn_run(void *stream, const dr_cuda_conv *conv, const void *a, const void *b,
                            void *out, void *work)
{
    const dr_cuda_conv c = *conv;
    DR_CHECK(has_plan(c), "a convolution without a plan");
    aligned(a, "the first operand");
    aligned(b, "the second operand");
    aligned(out, "the result");
    aligned(work, "the workspace");
    emu_enqueue(static_cast<cudaStream_t>(stream), [=]() {
        if (work_bytes(c) > 0) {
            memset(work, 0xff, work_bytes(c));
        }
        run(c, a, b, out);
    });
    return DR_OK;
}
