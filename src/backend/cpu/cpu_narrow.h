/*
 * backend/cpu/cpu_narrow.h - F16 and BF16 memory seen as floats, piece by piece.
 *
 * Layer:    backend/cpu, private. Rounds to nearest even; on one thread.
 */
#ifndef DR_CPU_NARROW_H
#define DR_CPU_NARROW_H

#include "backend/cpu/cpu_internal.h"

/* n numbers of memory of that type (F32, F16, BF16) into floats, and back. */
void dr_cpu_widen(float *out, const void *in, dr_dtype type, int64_t n);
void dr_cpu_narrow(void *out, dr_dtype type, const float *in, int64_t n);

/* Element `at` of memory of that type. */
DR_CPU_INLINE void *dr_cpu_at(const void *data, dr_dtype type, int64_t at)
{
    return (char *)(uintptr_t)data + at * (type == DR_F32 ? 4 : 2);
}

/* n numbers from `at` on: the memory itself where it holds floats, else converted into buffer. */
DR_CPU_INLINE const float *dr_cpu_floats(const dr_tensor *t, int64_t at, int64_t n, float *buffer)
{
    if (t->dtype == DR_F32) {
        return (const float *)t->data + at;
    }
    dr_cpu_widen(buffer, dr_cpu_at(t->data, t->dtype, at), t->dtype, n);
    return buffer;
}

#endif
