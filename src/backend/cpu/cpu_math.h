/*
 * backend/cpu/cpu_math.h - exponential, sigmoid and GELU that compilers turn into vector code.
 *
 * Layer:    backend/cpu, private. Branch-free; NaN in, NaN out.
 */
#ifndef DR_CPU_MATH_H
#define DR_CPU_MATH_H

#include "backend/cpu/cpu_internal.h"

#include <string.h>

/*
 * e^x, relative error below 2e-7 on [-87.3, 88]; arguments outside are moved to the nearer end.
 * x = n ln 2 + r, |r| <= ln(2)/2; polynomial of Cephes' expf; 2^n put into the exponent bits.
 * Adding 1.5 * 2^23 leaves n, rounded to nearest, in the low bits of the sum.
 */
DR_CPU_INLINE float dr_cpu_expf(float x)
{
    x = x < -87.3f ? -87.3f : x;
    x = x > 88.0f ? 88.0f : x;
    const float shifted = x * 1.44269504f + 12582912.0f;
    const float n = shifted - 12582912.0f;
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits << 23) + 0x3F800000u;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

DR_CPU_INLINE float dr_cpu_sigmoid(float x)
{
    return 1.0f / (1.0f + dr_cpu_expf(-x));
}

DR_CPU_INLINE float dr_cpu_silu(float x)
{
    return x * dr_cpu_sigmoid(x);
}

DR_CPU_INLINE float dr_cpu_silu_slope(float x)
{
    const float s = dr_cpu_sigmoid(x);
    return s * (1.0f + x * (1.0f - s));
}

/*
 * Normal distribution function (1 + erf(x/sqrt 2)) / 2 by the Chebyshev form of erfc in Numerical
 * Recipes (6.2): relative error of erfc 1.2e-7, so Phi keeps its relative accuracy on both sides.
 */
DR_CPU_INLINE float dr_cpu_normal_cdf(float x)
{
    const float z = (x < 0.0f ? -x : x) * 0.70710678f;
    const float t = 1.0f / (1.0f + 0.5f * z);
    float p = 0.17087277f;
    p = p * t - 0.82215223f;
    p = p * t + 1.48851587f;
    p = p * t - 1.13520398f;
    p = p * t + 0.27886807f;
    p = p * t - 0.18628806f;
    p = p * t + 0.09678418f;
    p = p * t + 0.37409196f;
    p = p * t + 1.00002368f;
    p = p * t - 1.26551223f;
    const float half_erfc = 0.5f * t * dr_cpu_expf(p - z * z);
    return x < 0.0f ? half_erfc : 1.0f - half_erfc;
}

DR_CPU_INLINE float dr_cpu_gelu(float x)
{
    return x * dr_cpu_normal_cdf(x);
}

/* Phi(x) + x phi(x) */
DR_CPU_INLINE float dr_cpu_gelu_slope(float x)
{
    return dr_cpu_normal_cdf(x) + x * 0.39894228f * dr_cpu_expf(-0.5f * x * x);
}

#endif
