/*
 * apps/lora_join.h - several LoRAs as one.
 *
 * Layer:    apps.
 */
#ifndef DR_APPS_LORA_JOIN_H
#define DR_APPS_LORA_JOIN_H

#include "train/lora/lora_merge.h"
#include "train/lora/lora_set.h"

typedef struct dr_join_options {
    bool concat;      /* ranks add up, the sum is exact */
    int64_t new_rank; /* of the result, where it cannot be exact; 0: the largest of the inputs */
    int64_t new_conv_rank; /* of kernels over 1x1; 0: as new_rank */
} dr_join_options;

typedef struct dr_join_report {
    size_t exact, cut;  /* modules */
    double kept, total; /* squared Frobenius norms of what is kept, and of the sums */
} dr_join_report;

/*
 * out (empty) = sum over the stack of ratio * (alpha / rank) * up down. A module whose factors,
 * side by side, have no more than the wished rank is exact; another is the best approximation of
 * that rank.
 * Errors: DR_FORMAT (two files change a weight of two sizes), DR_UNSUPPORTED (DoRA; with concat,
 * kinds that are no product of two factors), DR_INVALID (new_rank is needed), DR_NOMEM,
 * DR_NUMERIC, those of reading.
 */
DR_MUST_USE dr_status dr_lora_join(const dr_lora_stack *s, const dr_join_options *o,
                                   dr_lora_set *out, dr_join_report *report);

#endif
