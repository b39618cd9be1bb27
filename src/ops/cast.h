/*
 * ops/cast.h - numbers from one floating-point type to another.
 *
 * Layer:    ops.  May include base/ and tensor/ only.
 * Errors:   DR_UNSUPPORTED when the backend lacks the op; otherwise the backend's own.
 *           Shapes and dtypes are contracts (DR_CHECK). Nothing is owned or kept.
 */
#ifndef DR_OPS_CAST_H
#define DR_OPS_CAST_H

#include "ops/context.h"

/*
 * y = x, rounded to nearest even. Stochastic (F32 to BF16 only): the bits of x below y's are kept
 * with a chance of their size, by adding a random integer of 16 bits to the bits of x and cutting
 * off; infinity and NaN stay. The integer of element i is 16 bits of Philox keyed by (seed,
 * DR_RANDOM_ROUNDING, time), block (first + i) / 8: it depends on the element alone, not on how
 * memory is cut into calls.
 */
struct dr_cast_args {
    const dr_tensor *x; /* F32, F16, BF16, or the compute dtype */
    dr_tensor *y;       /* as x, of any of these types           */
    bool stochastic;
    uint64_t seed;
    uint32_t time;  /* the step */
    uint64_t first; /* number of element 0; a multiple of 8 */
};
DR_MUST_USE dr_status dr_cast(dr_context *cx, const dr_cast_args *a);

/* The 8 random integers of a block of elements. */
void dr_cast_random(const dr_cast_args *a, uint64_t block, uint16_t out[8]);

#endif
