/*
 * tests/emu/include/cuda_bf16.h - bfloat16 for the emulated build (see cuda_runtime.h there).
 */
#ifndef DR_EMU_CUDA_BF16_H
#define DR_EMU_CUDA_BF16_H

#include "tensor/dtype.h"

struct __nv_bfloat16 {
    uint16_t bits;
};
inline float __bfloat162float(__nv_bfloat16 h)
{
    return dr_bf16_to_f32(h.bits);
}
inline __nv_bfloat16 __float2bfloat16(float f)
{
    return __nv_bfloat16{dr_f32_to_bf16(f)};
}

#endif
