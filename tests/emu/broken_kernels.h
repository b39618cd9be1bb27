/*
 * tests/emu/broken_kernels.h - a kernel with a mistake to choose.
 */
#ifndef DR_BROKEN_KERNELS_H
#define DR_BROKEN_KERNELS_H

#include "dreamrun/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum dr_mistake {
    DR_MISTAKE_NONE,
    DR_MISTAKE_NO_BARRIER,
    DR_MISTAKE_OFF_BY_ONE,
    DR_MISTAKE_UNSET,
    DR_MISTAKE_DIVERGENT_BARRIER,
    DR_MISTAKE_DIVERGENT_SHUFFLE,
    DR_MISTAKE_TOO_LITTLE_SHARED,
    DR_MISTAKE_PAST_THE_END
} dr_mistake;

/* y[0] = x[0] + ... + x[63], on the open GPU. */
DR_MUST_USE dr_status dr_broken_sum(const void *x, void *y, dr_mistake mistake);

#ifdef __cplusplus
}
#endif
#endif
