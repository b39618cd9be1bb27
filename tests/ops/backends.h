/*
 * tests/ops/backends.h - the backends that the op tests compare with ref64.
 */
#ifndef DR_OP_BACKENDS_H
#define DR_OP_BACKENDS_H

#include "ops/context.h"

extern const dr_backend *const dr_op_backends[]; /* ends with NULL */

/* Largest accepted errors of an op: |got - want|2 / |want|2, and max |got - want| / max |want|. */
typedef struct dr_op_tolerance {
    double l2, max;
} dr_op_tolerance;
dr_op_tolerance dr_op_tolerance_of(dr_op_id op);

#endif
