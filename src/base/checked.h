/*
 * base/checked.h - size arithmetic on numbers that came from a file: false on overflow.
 *
 * Layer:    base.
 */
#ifndef DR_BASE_CHECKED_H
#define DR_BASE_CHECKED_H

#include <stdbool.h>
#include <stdint.h>

static inline bool dr_mul_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    *out = a * b;
    return b == 0 || a <= UINT64_MAX / b;
}

static inline bool dr_add_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    *out = a + b;
    return a <= UINT64_MAX - b;
}

#endif
