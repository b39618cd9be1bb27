/*
 * tests/golden/golden_backends.h - the backends that golden tests compare.
 */
#ifndef DR_GOLDEN_BACKENDS_H
#define DR_GOLDEN_BACKENDS_H

#include "backend/ref/backend_ref.h"
#ifdef DR_HAVE_CPU_BACKEND
#include "backend/cpu/backend_cpu.h"
#endif

/* NULL where this build has none. */
static inline const dr_backend *golden_cpu_backend(void)
{
#ifdef DR_HAVE_CPU_BACKEND
    return &dr_backend_cpu;
#else
    return NULL;
#endif
}

#endif
