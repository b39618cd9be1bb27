/*
 * tests/support/golden_input.h - the deterministic numbers behind all golden vectors.
 *
 * u_i = (splitmix64(fnv1a64(key) + i) >> 40) * 2^-24 - 0.5: uniform in [-0.5, 0.5), the same in
 * the generating Python scripts. Every value is rounded to f32, so that f32 and f64 runs start
 * from equal numbers.
 */
#ifndef DR_GOLDEN_INPUT_H
#define DR_GOLDEN_INPUT_H

#include <stddef.h>
#include <stdint.h>

/* Standard deviation 1 for dr_golden_fill. */
#define DR_GOLDEN_UNIT 3.4641016151377544 /* sqrt(12) */

/* out[i] = u_i * scale */
void dr_golden_fill(const char *key, size_t n, double scale, double *out);
/*
 * A parameter by its Diffusers name, in the order of files. rank >= 2: u * sqrt(12 / fan in);
 * rank 1 ending in ".bias": 0.1 u; other rank 1: 1 + 0.2 u.
 */
void dr_golden_param(const char *key, int rank, const int64_t *dim, double *out);

#endif
