/*
 * Conversions between F32 and the 16-bit types. BF16 is integer arithmetic that compilers
 * vectorise; F16 has instructions of its own, chosen when the program runs (F16C, AVX-512).
 */
#include "backend/cpu/cpu_narrow.h"

#include <math.h>
#include <string.h>
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define HAVE_F16C 1
#endif

DR_CPU_CLONES
static void widen_bf16(float *restrict out, const uint16_t *restrict in, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const uint32_t bits = (uint32_t)in[i] << 16;
        memcpy(&out[i], &bits, sizeof bits);
    }
}

DR_CPU_CLONES
static void narrow_bf16(uint16_t *restrict out, const float *restrict in, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, &in[i], sizeof u);
        const uint32_t rounded = (u + 0x7fffU + (u >> 16 & 1U)) >> 16;
        const uint32_t quiet = u >> 16 | 0x40U;
        out[i] = (uint16_t)((u & 0x7fffffffU) > 0x7f800000U ? quiet : rounded);
    }
}

#ifdef HAVE_F16C
__attribute__((target("avx512f"))) static int64_t widen_f16_wide(float *out, const uint16_t *in,
                                                                 int64_t n)
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        _mm512_storeu_ps(out + i, _mm512_cvtph_ps(_mm256_loadu_si256((const void *)(in + i))));
    }
    return i;
}

__attribute__((target("avx512f"))) static int64_t narrow_f16_wide(uint16_t *out, const float *in,
                                                                  int64_t n)
{
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        _mm256_storeu_si256((void *)(out + i),
                            _mm512_cvtps_ph(_mm512_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT));
    }
    return i;
}

__attribute__((target("avx,f16c"))) static int64_t widen_f16_half(float *out, const uint16_t *in,
                                                                  int64_t n)
{
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128((const void *)(in + i))));
    }
    return i;
}

__attribute__((target("avx,f16c"))) static int64_t narrow_f16_half(uint16_t *out, const float *in,
                                                                   int64_t n)
{
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        _mm_storeu_si128((void *)(out + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(in + i), _MM_FROUND_TO_NEAREST_INT));
    }
    return i;
}
#endif

/* Returns how many elements were done by instructions. */
static int64_t widen_f16_fast(float *out, const uint16_t *in, int64_t n)
{
#ifdef HAVE_F16C
    if (__builtin_cpu_supports("avx512f")) {
        return widen_f16_wide(out, in, n);
    }
    if (__builtin_cpu_supports("f16c")) {
        return widen_f16_half(out, in, n);
    }
#endif
    (void)out;
    (void)in;
    (void)n;
    return 0;
}

static int64_t narrow_f16_fast(uint16_t *out, const float *in, int64_t n)
{
#ifdef HAVE_F16C
    if (__builtin_cpu_supports("avx512f")) {
        return narrow_f16_wide(out, in, n);
    }
    if (__builtin_cpu_supports("f16c")) {
        return narrow_f16_half(out, in, n);
    }
#endif
    (void)out;
    (void)in;
    (void)n;
    return 0;
}

void dr_cpu_widen(float *out, const void *in, dr_dtype type, int64_t n)
{
    if (type == DR_BF16) {
        widen_bf16(out, in, n);
    } else if (type == DR_F32) {
        memcpy(out, in, (size_t)n * sizeof *out);
    } else {
        for (int64_t i = widen_f16_fast(out, in, n); i < n; i++) {
            out[i] = dr_f16_to_f32(((const uint16_t *)in)[i]);
        }
    }
}

void dr_cpu_narrow(void *out, dr_dtype type, const float *in, int64_t n)
{
    if (type == DR_BF16) {
        narrow_bf16(out, in, n);
    } else if (type == DR_F32) {
        memcpy(out, in, (size_t)n * sizeof *in);
    } else {
        for (int64_t i = narrow_f16_fast(out, in, n); i < n; i++) {
            ((uint16_t *)out)[i] = dr_f32_to_f16(in[i]);
        }
    }
}

/* ---- the op -----------------------------------------------------------------------------------
 */

DR_CPU_CLONES
static void round_block(uint16_t *restrict y, const float *restrict x, const uint16_t random[8],
                        int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t u;
        memcpy(&u, &x[i], sizeof u);
        const uint32_t moved = (u + random[i]) >> 16;
        const uint32_t special = u >> 16 | ((u & 0x7fffffU) != 0 ? 0x40U : 0U);
        y[i] = (uint16_t)((u & 0x7f800000U) == 0x7f800000U ? special : moved);
    }
}

static void cast_stochastic(const dr_cast_args *a, int64_t at, int64_t n)
{
    uint16_t random[8];
    for (int64_t i = at; i < at + n; i += 8) {
        dr_cast_random(a, (a->first + (uint64_t)i) / 8, random);
        round_block((uint16_t *)a->y->data + i, (const float *)a->x->data + i, random,
                    dr_cpu_min(8, at + n - i));
    }
}

static void cast_task(const void *job, int64_t i, int thread)
{
    (void)thread;
    const dr_cast_args *a = job;
    const int64_t at = i * DR_CPU_CHUNK;
    const int64_t n = dr_cpu_min(DR_CPU_CHUNK, dr_numel(a->x) - at);
    const void *x = dr_cpu_at(a->x->data, a->x->dtype, at);
    void *y = dr_cpu_at(a->y->data, a->y->dtype, at);
    if (a->stochastic) {
        cast_stochastic(a, at, n);
    } else if (a->y->dtype == DR_F32) {
        dr_cpu_widen(y, x, a->x->dtype, n);
    } else if (a->x->dtype == DR_F32) {
        dr_cpu_narrow(y, a->y->dtype, x, n);
    } else {
        dr_convert(y, a->y->dtype, x, a->x->dtype, (size_t)n);
    }
}

dr_status dr_cpu_cast(dr_context *cx, const dr_cast_args *a)
{
    dr_cpu_run(cx, dr_cpu_ceil_div(dr_numel(a->x), DR_CPU_CHUNK), cast_task, a);
    return DR_OK;
}
