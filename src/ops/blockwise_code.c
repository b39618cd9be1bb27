/*
 * bitsandbytes' dynamic 8-bit map (create_dynamic_map, with its defaults), rebuilt bit for bit:
 * decade i holds 2^i (signed) or 2^(i+1) (unsigned) means of neighbours in linspace(0.1, 1), times
 * 10^(i-6).
 */
#include "ops/optimizer_ops.h"

#include <math.h>

/* torch.linspace in f32: from both ends towards the middle, with one rounding per value. */
static float linspace(float start, float end, int steps, int i)
{
    const float step = (end - start) / (float)(steps - 1);
    return i < steps / 2 ? fmaf(step, (float)i, start) : fmaf(-step, (float)(steps - 1 - i), end);
}

void dr_blockwise_code(bool is_signed, float code[256])
{
    enum { DECADES = 7 };
    const int zero = is_signed ? 127 : 0;
    int n = 0;
    for (int i = 0; i < DECADES; i++) {
        const int values = 1 << (is_signed ? i : i + 1);
        const float scale = (float)pow(10.0, i - (DECADES - 1));
        for (int k = 0; k < values; k++) {
            const float mean =
                (linspace(0.1f, 1.0f, values + 1, k) + linspace(0.1f, 1.0f, values + 1, k + 1)) /
                2.0f;
            n++;
            code[zero + n] = scale * mean;
            if (is_signed) {
                code[zero - n] = -(scale * mean);
            }
        }
    }
    code[zero] = 0.0f;
    code[255] = 1.0f;
}

int dr_blockwise_nearest(const float code[256], float x)
{
    int low = 0; /* the answer is in low .. low + n - 1 */
    for (int n = 256; n > 1;) {
        const int half = n / 2;
        const float middle = (code[low + half - 1] + code[low + half]) * 0.5f;
        low += x > middle ? half : 0;
        n -= half;
    }
    return low;
}
