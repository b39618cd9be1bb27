/*
 * backend/cuda/cuda_blockwise.cu - bitsandbytes' optimizers with 8-bit states
 * (ops/optimizer_ops.h): 256 threads take blocks of 256 elements one after another, of as many
 * tensors as a launch's arguments can name; the code maps stand in shared memory.
 */
#include "backend/cuda/cuda_internal.cuh"

extern "C" {
#include "ops/optimizer_ops.h"
}

enum { BLOCK = DR_BLOCKWISE_BLOCK, GRID = 1056 }; /* eight blocks on each of an H100's 132 SMs */

static float once(double x)
{
    return static_cast<float>(x);
}

typedef struct maps {
    float code[2][BLOCK]; /* of state1 (signed), of state2 (unsigned) */
} maps;

typedef struct state { /* codes with absmax, or plain, or none */
    uint8_t *codes;
    float *absmax, *plain;
} state;

/* Tensors of one launch: all of them have together first[n] blocks. Arguments may have 32,764 bytes
 * (CUDA 12.1). */
enum { PARTS = 64 };
typedef struct part {
    int64_t n;
    float *p;
    const float *grad;
    state s1, s2;
} part;
typedef struct parts {
    int64_t n, first[PARTS + 1];
    part at[PARTS];
} parts;

typedef struct settings {
    float scale, decay, beta1, rest1, beta2, rest2, step_size, eps, lr, l2;
    bool first;
} settings;

/* The index of the nearest value; halfway: the lower one. */
static __device__ int nearest(dr_shared<float> code, float x)
{
    int low = 0;
    for (int half = BLOCK / 2; half > 0; half /= 2) {
        const float middle = (code[low + half - 1] + code[low + half]) * 0.5f;
        low += x > middle ? half : 0;
    }
    return low;
}

static __device__ float read_state(const state &s, dr_shared<float> code, int64_t i)
{
    if (s.codes != nullptr) {
        return code[s.codes[i]] * s.absmax[i / BLOCK];
    }
    return s.plain != nullptr ? s.plain[i] : 0.0f;
}

/* All threads of the block call it; inside: this one has an element. */
static __device__ void write_state(const state &s, dr_shared<float> code, dr_shared<float> scratch,
                                   int64_t i, bool inside, bool is_signed, float x)
{
    if (s.codes == nullptr) {
        if (s.plain != nullptr && inside) {
            s.plain[i] = x;
        }
        return;
    }
    const float largest = dr_block_max(inside ? fabsf(x) : 0.0f, scratch);
    if (!inside) {
        return;
    }
    const float scaled = largest > 0.0f ? x / largest : 0.0f;
    int c = nearest(code, scaled);
    if (is_signed && (code[c] < 0.0f) != (scaled < 0.0f)) { /* a code of the other sign */
        c += scaled > 0.0f ? 1 : -1;
    }
    s.codes[i] = static_cast<uint8_t>(c);
    if (i % BLOCK == 0) {
        s.absmax[i / BLOCK] = largest;
    }
}

/* The new value of p; m and v are updated. */
static __device__ float adam(const settings &s, float p, float g, float *m, float *v)
{
    if (!(fabsf(g) < INFINITY)) {
        *m = 0.0f;
        *v = 0.0f;
        return p;
    }
    *m = s.beta1 * *m + s.rest1 * g;
    *v = s.beta2 * *v + s.rest2 * g * g;
    return s.decay * (p + s.step_size * (*m / (sqrtf(*v) + s.eps)));
}

static __device__ float lion(const settings &s, float p, float g, float *m)
{
    const float u = s.beta1 * *m + s.rest1 * g;
    *m = s.beta2 * *m + s.rest2 * g;
    return s.decay * p - s.lr * static_cast<float>((u > 0.0f) - (u < 0.0f));
}

static __device__ float momentum(const settings &s, float p, float g, float *m)
{
    g = g + s.l2 * p;
    *m = s.first ? g : s.beta1 * *m + g;
    return p - s.lr * *m;
}

template <int KIND>
static __device__ void update_block(const part &t, const settings &s, dr_shared<float> code1,
                                    dr_shared<float> code2, dr_shared<float> scratch, int64_t i)
{
    const bool inside = i < t.n;
    float m = 0.0f;
    float v = 0.0f;
    if (inside) {
        m = read_state(t.s1, code1, i);
        v = read_state(t.s2, code2, i);
        const float g = s.scale * t.grad[i];
        const float x = t.p[i];
        t.p[i] = KIND == DR_BLOCKWISE_ADAM   ? adam(s, x, g, &m, &v)
                 : KIND == DR_BLOCKWISE_LION ? lion(s, x, g, &m)
                                             : momentum(s, x, g, &m);
    }
    write_state(t.s1, code1, scratch, i, inside, true, m);
    write_state(t.s2, code2, scratch, i, inside, false, v);
}

/* The tensor that block b belongs to. */
static __device__ int64_t part_of(const parts &list, int64_t b)
{
    int64_t low = 0;
    int64_t high = list.n;
    while (high - low > 1) {
        const int64_t middle = (low + high) / 2;
        (list.first[middle] <= b ? low : high) = middle;
    }
    return low;
}

template <int KIND>
__global__ void blockwise_kernel(const __grid_constant__ parts list,
                                 const __grid_constant__ settings s,
                                 const __grid_constant__ maps map)
{
    DR_SHARED(float, code1, 0, BLOCK);
    DR_SHARED(float, code2, BLOCK * sizeof(float), BLOCK);
    DR_SHARED(float, scratch, 2 * BLOCK * sizeof(float), BLOCK / 32);
    code1[threadIdx.x] = map.code[0][threadIdx.x];
    code2[threadIdx.x] = map.code[1][threadIdx.x];
    __syncthreads();
    for (int64_t b = blockIdx.x; b < list.first[list.n]; b += gridDim.x) {
        const int64_t k = part_of(list, b);
        update_block<KIND>(list.at[k], s, code1, code2, scratch,
                           (b - list.first[k]) * BLOCK + threadIdx.x);
    }
}

static state state_of(dr_tensor *t, dr_tensor *absmax)
{
    return absmax != nullptr ? state{dr_data<uint8_t>(t), dr_data<float>(absmax), nullptr}
                             : state{nullptr, nullptr, dr_data<float>(t)};
}

static settings settings_of(const dr_blockwise_args *a)
{
    const double step = static_cast<double>(a->step);
    const double c1 = 1.0 - pow(a->beta1, step);
    const double c2 = sqrt(1.0 - pow(a->beta2, step));
    return settings{once(a->grad_scale),
                    once(1.0 - a->lr * a->weight_decay),
                    once(a->beta1),
                    once(1.0 - a->beta1),
                    once(a->beta2),
                    once(1.0 - a->beta2),
                    once(-a->lr * c2 / c1),
                    once(a->eps * c2),
                    once(a->lr),
                    once(a->weight_decay),
                    a->step == 1};
}

static parts parts_of(const dr_blockwise_args *a, size_t n)
{
    parts list = {};
    for (size_t i = 0; i < n; i++) {
        const int64_t size = dr_numel(a[i].p);
        list.at[i] = part{size, dr_data<float>(a[i].p), dr_floats(a[i].g),
                          state_of(a[i].state1, a[i].absmax1), state_of(a[i].state2, a[i].absmax2)};
        list.first[i + 1] = list.first[i] + (size + BLOCK - 1) / BLOCK;
    }
    list.n = static_cast<int64_t>(n);
    return list;
}

template <int KIND> static dr_status launch(const dr_blockwise_args *a, size_t n)
{
    const parts list = parts_of(a, n);
    maps map;
    dr_blockwise_code(true, map.code[0]);
    dr_blockwise_code(false, map.code[1]);
    return DR_LAUNCH((blockwise_kernel<KIND>), dim3(dr_blocks(list.first[n], 1, GRID)), dim3(BLOCK),
                     (2 * BLOCK + BLOCK / 32) * sizeof(float), dr_cuda_stream(), list,
                     settings_of(a), map);
}

static dr_status run_blockwise(const dr_blockwise_args *a, size_t n)
{
    switch (a->kind) {
    case DR_BLOCKWISE_ADAM:
        return launch<DR_BLOCKWISE_ADAM>(a, n);
    case DR_BLOCKWISE_LION:
        return launch<DR_BLOCKWISE_LION>(a, n);
    case DR_BLOCKWISE_MOMENTUM:
        break;
    }
    return launch<DR_BLOCKWISE_MOMENTUM>(a, n);
}

dr_status dr_cuda_blockwise(dr_context *, const dr_blockwise_args *a)
{
    return run_blockwise(a, 1);
}

dr_status dr_cuda_blockwise_all(dr_context *, const dr_blockwise_args *a, size_t n)
{
    const size_t most = PARTS;
    for (size_t i = 0; i < n; i += most) {
        DR_TRY(run_blockwise(a + i, n - i < most ? n - i : most));
    }
    return DR_OK;
}
