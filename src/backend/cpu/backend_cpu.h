/*
 * backend/cpu/backend_cpu.h - the backend that a machine without a GPU trains with.
 *
 * Layer:    backend/cpu.  Included by the apps and by tests only.
 * Threads:  a call uses dr_context.threads OpenMP threads. Work is cut into blocks by the problem's
 *           size alone and each block is computed by one thread, so results do not depend on the
 *           number of threads. They may differ in the last bits between machines with different
 *           vector units; dr_sumsq and the updates of optimizers do not.
 * Memory:   ops allocate nothing, scratch comes from dr_context.work. F16 and BF16 are types of
 *           storage: arithmetic is in float32.
 */
#ifndef DR_BACKEND_CPU_H
#define DR_BACKEND_CPU_H

#include "ops/context.h"

extern const dr_backend dr_backend_cpu; /* "cpu", host memory, compute F32 */

#endif
