/*
 * tests/ops/backends.h - the backends that the op tests compare with ref64.
 */
#ifndef DR_OP_BACKENDS_H
#define DR_OP_BACKENDS_H

#include "ops/context.h"

typedef struct dr_op_subject {
    const char *name; /* "cpu", "cuda BF16" */
    const dr_backend *backend;
    bool narrow; /* activations are of dtype, not of the backend's own type */
    dr_dtype dtype;
    bool wide_gradients; /* those of parameters are of the backend's own type all the same */
    bool no_optimizer;   /* its updates take the backend's own type only */
} dr_op_subject;

/* What this program tests: *n subjects; opens devices. */
const dr_op_subject *dr_op_subjects(size_t *n);
/* Gives devices back. */
void dr_op_subjects_close(void);

/* Largest accepted errors of an op: |got - want|2 / |want|2, and max |got - want| / max |want|. */
typedef struct dr_op_tolerance {
    double l2, max;
} dr_op_tolerance;
dr_op_tolerance dr_op_tolerance_of(const dr_op_subject *s, dr_op_id op);

#endif
