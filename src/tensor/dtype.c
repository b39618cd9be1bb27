#include "tensor/dtype.h"

#include <string.h>

static const struct {
    const char *name;
    size_t bytes;
} dtype_table[DR_DTYPE_COUNT] = {
#define DTYPE_ROW(n, b) {#n, b},
    DR_DTYPE_LIST(DTYPE_ROW)
#undef DTYPE_ROW
};

size_t dr_dtype_size(dr_dtype t)
{
    return dtype_table[t].bytes;
}

const char *dr_dtype_name(dr_dtype t)
{
    return dtype_table[t].name;
}

bool dr_dtype_from_name(const char *name, dr_dtype *out)
{
    for (int i = 0; i < DR_DTYPE_COUNT; i++) {
        if (strcmp(name, dtype_table[i].name) == 0) {
            *out = (dr_dtype)i;
            return true;
        }
    }
    return false;
}

static uint32_t float_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float bits_float(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

float dr_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t exponent = (h >> 10) & 31u;
    uint32_t mantissa = h & 0x3ffu;
    if (exponent == 0) { /* zero and subnormals: mantissa * 2^-24 is exact in f32 */
        float f = (float)mantissa * 0x1p-24f;
        return sign != 0 ? -f : f;
    }
    if (exponent == 31) {
        return bits_float(sign | 0x7f800000u | mantissa << 13);
    }
    return bits_float(sign | (exponent + 112) << 23 | mantissa << 13);
}

uint16_t dr_f32_to_f16(float f)
{
    uint32_t u = float_bits(f);
    uint32_t sign = u >> 16 & 0x8000u;
    uint32_t a = u & 0x7fffffffu;
    if (a > 0x7f800000u) {
        return (uint16_t)(sign | 0x7e00u);
    }
    if (a >= 0x477ff000u) { /* rounds to 65536 or more */
        return (uint16_t)(sign | 0x7c00u);
    }
    if (a < 0x38800000u) { /* below 2^-14: add 0.5 so that the FPU rounds to multiples of 2^-24 */
        uint32_t r = float_bits(bits_float(a) + 0.5f) - 0x3f000000u;
        return (uint16_t)(sign | r);
    }
    uint32_t r = a - (112u << 23);
    r += 0xfffu + (r >> 13 & 1u);
    return (uint16_t)(sign | r >> 13);
}

float dr_bf16_to_f32(uint16_t h)
{
    return bits_float((uint32_t)h << 16);
}

uint16_t dr_f32_to_bf16(float f)
{
    uint32_t u = float_bits(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) {
        return (uint16_t)(u >> 16 | 0x40u);
    }
    return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

/* Elements are read and written by memcpy, which any address allows and compilers turn into moves.
 */
static double load_element(const char *p, dr_dtype t)
{
    double d;
    float f;
    uint16_t h;
    switch (t) {
    case DR_F64:
        memcpy(&d, p, sizeof d);
        return d;
    case DR_F32:
        memcpy(&f, p, sizeof f);
        return (double)f;
    case DR_F16:
        memcpy(&h, p, sizeof h);
        return (double)dr_f16_to_f32(h);
    case DR_BF16:
        memcpy(&h, p, sizeof h);
        return (double)dr_bf16_to_f32(h);
    default:
        DR_CHECK(false, "cannot convert from %s", dr_dtype_name(t));
    }
    return 0.0;
}

static void store_element(char *p, dr_dtype t, double v)
{
    const float f = (float)v;
    uint16_t h = 0;
    switch (t) {
    case DR_F64:
        memcpy(p, &v, sizeof v);
        return;
    case DR_F32:
        memcpy(p, &f, sizeof f);
        return;
    case DR_F16:
        h = dr_f32_to_f16(f);
        break;
    case DR_BF16:
        h = dr_f32_to_bf16(f);
        break;
    default:
        DR_CHECK(false, "cannot convert to %s", dr_dtype_name(t));
    }
    memcpy(p, &h, sizeof h);
}

/* The pairs of which a model has billions, each a loop that the compiler can vectorise. */
#define CONVERT_LOOP(name, from, to, expr)                                                         \
    static void name(char *dst, const char *src, size_t n)                                         \
    {                                                                                              \
        for (size_t i = 0; i < n; i++) {                                                           \
            from v;                                                                                \
            memcpy(&v, src + i * sizeof v, sizeof v);                                              \
            const to w = expr;                                                                     \
            memcpy(dst + i * sizeof w, &w, sizeof w);                                              \
        }                                                                                          \
    }
CONVERT_LOOP(f16_to_f32, uint16_t, float, dr_f16_to_f32(v))
CONVERT_LOOP(bf16_to_f32, uint16_t, float, dr_bf16_to_f32(v))
CONVERT_LOOP(f32_to_f16, float, uint16_t, dr_f32_to_f16(v))
CONVERT_LOOP(f32_to_bf16, float, uint16_t, dr_f32_to_bf16(v))
#undef CONVERT_LOOP

void dr_convert(void *dst, dr_dtype dst_type, const void *src, dr_dtype src_type, size_t n)
{
    if (dst_type == src_type) {
        memcpy(dst, src, n * dr_dtype_size(src_type));
    } else if (src_type == DR_F16 && dst_type == DR_F32) {
        f16_to_f32(dst, src, n);
    } else if (src_type == DR_BF16 && dst_type == DR_F32) {
        bf16_to_f32(dst, src, n);
    } else if (src_type == DR_F32 && dst_type == DR_F16) {
        f32_to_f16(dst, src, n);
    } else if (src_type == DR_F32 && dst_type == DR_BF16) {
        f32_to_bf16(dst, src, n);
    } else {
        for (size_t i = 0; i < n; i++) {
            store_element((char *)dst + i * dr_dtype_size(dst_type), dst_type,
                          load_element((const char *)src + i * dr_dtype_size(src_type), src_type));
        }
    }
}

void dr_round_floats(float *values, dr_dtype type, size_t n)
{
    for (size_t i = 0; type != DR_F32 && type != DR_F64 && i < n; i++) {
        unsigned char rounded[4];
        const float exact = values[i];
        dr_convert(rounded, type, &exact, DR_F32, 1);
        dr_convert(&values[i], DR_F32, rounded, type, 1);
    }
}
