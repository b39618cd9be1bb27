/*
 * tests/emu/include/cuda_fp16.h - IEEE half for the emulated build (see cuda_runtime.h there).
 */
#ifndef DR_EMU_CUDA_FP16_H
#define DR_EMU_CUDA_FP16_H

#include "tensor/dtype.h"

struct __half {
    uint16_t bits;
};
inline float __half2float(__half h)
{
    return dr_f16_to_f32(h.bits);
}
inline __half __float2half(float f)
{
    return __half{dr_f32_to_f16(f)};
}

#endif
