/*
 * tests/golden/golden_compare.h - comparing tensors with the few numbers that golden vectors keep.
 */
#ifndef DR_GOLDEN_COMPARE_H
#define DR_GOLDEN_COMPARE_H

#include "tensor/tensor.h"

typedef struct golden_stats { /* of a tensor in the order of files */
    double l2, first[4], last;
} golden_stats;

/* All differences, also those of single elements, are relative to the tensor's root mean square. */
void golden_check(const char *what, const dr_tensor *got, const golden_stats *want, double limit);
/* The same for n numbers in the order of files, of which n_first were kept. floor: root mean
 * squares below it count as that (gradients that are zero but for rounding). */
typedef struct golden_numbers {
    double l2;
    const double *first;
    size_t n_first;
} golden_numbers;
void golden_check_numbers(const char *what, const double *got, size_t n, const golden_numbers *want,
                          double floor, double limit);
/* stats at "case/part" of golden.json in the shared folder; skips the test when that is absent
 * (then false). */
bool golden_load(const char *key, golden_stats *out);

#endif
