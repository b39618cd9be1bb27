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

/*
 * Products with narrow weights. Few rows meet each weight once, and reading it is what costs: a
 * task converts a panel of weights that stays in L2, and uses it at once. More rows use weights
 * again and again: the dispatcher widens them as a whole.
 */
enum {
    DR_CPU_FEW_ROWS = 256,
    DR_CPU_WEIGHT_PANEL = 96 * 1024 /* floats: 384 KiB, beside rows of activations */
};
/* rows: the tensor whose rows meet the weights. */
dr_widening dr_cpu_weight_widening(const dr_tensor *rows);
/*
 * C = or += op(A) op(B) as g says, with B, `type`, in place of g->b; panel: DR_CPU_WEIGHT_PANEL
 * floats. On the calling thread.
 */
void dr_cpu_gemm_narrow(const dr_cpu_matmul *g, const void *b, dr_dtype type, float *panel);

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
