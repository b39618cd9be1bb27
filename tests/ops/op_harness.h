/*
 * tests/ops/op_harness.h - runs one op scenario on one backend and keeps what came out.
 *
 * A scenario's body makes its tensors by name and calls one op (a backward op after its forward).
 * The same body serves the backend comparison, the determinism check, the golden vectors and the
 * finite differences; only the setup changes where the numbers come from. Every run walks a dry
 * pool first and gets a real pool of exactly the measured size, so each op's planning is tested
 * too.
 *
 * Around every tensor lie guard bytes; after the run guards and inputs must be unchanged.
 */
#ifndef DR_OP_HARNESS_H
#define DR_OP_HARNESS_H

#include "ops/context.h"

typedef struct dr_op_setup {
    const dr_backend *backend;
    int threads;
    dr_dtype dtype;      /* of activations, when narrow: F16 or BF16; else the backend's own */
    dr_dtype rounded_to; /* when rounded: activations get numbers that this dtype can hold   */
    bool narrow, rounded;
    bool wide_gradients; /* of parameters: of the compute dtype */
    uint64_t seed;       /* of the random numbers; a tensor's numbers depend on (seed, name) */
    const char *golden;  /* case: numbers come from dr_golden_fill("<case>.<name>"); NULL: Philox */
    bool zero_gradients; /* accumulated outputs start from zero, not from random numbers */
    const char *nudged;  /* name of the input of which ...              */
    int64_t nudged_index; /* ... this element (memory order) is changed ... */
    double nudge;         /* ... by this much                            */
} dr_op_setup;

typedef enum dr_op_role {
    DR_OP_INPUT,       /* must not change                                                    */
    DR_OP_CHANGED,     /* input and output                                                   */
    DR_OP_SET,         /* output; NaN before                                                 */
    DR_OP_ACCUMULATED, /* output that is added to: random before, zero with golden numbers   */
    DR_OP_SAVED        /* output of a forward, input of its backward: not compared           */
} dr_op_role;

typedef struct dr_op_array {
    const char *name;
    dr_op_role role;
    dr_tensor tensor;
    dr_tensor block;       /* bytes: guard, elements, guard */
    unsigned char *before; /* the block before the run */
    unsigned char *after;  /* and after it */
} dr_op_array;

enum { DR_OP_MAX_ARRAYS = 16 };
typedef struct dr_op_run {
    dr_op_setup setup;
    dr_context cx;
    dr_frame frame;
    size_t n;
    dr_op_array array[DR_OP_MAX_ARRAYS];
} dr_op_run;

typedef struct dr_op_scenario {
    dr_op_id op;      /* what is judged */
    const char *name; /* what is special about it */
    void (*body)(dr_op_run *r, const void *params);
    const void *params;
} dr_op_scenario;

/* Runs the scenario; fails the test on a bad status, a touched guard or a changed input.
 * dr_op_run_free frees what the run kept. */
void dr_op_run_execute(dr_op_run *r, const dr_op_setup *setup, const dr_op_scenario *s);
void dr_op_run_free(dr_op_run *r);

/* For bodies: a tensor of the activation dtype; scale is the standard deviation of its numbers. */
dr_tensor *dr_op_tensor(dr_op_run *r, dr_op_role role, const char *name, double scale, int rank,
                        const int64_t *dim);
/* The same, of the compute dtype (statistics, per-sample numbers) or of a given one. */
dr_tensor *dr_op_stat(dr_op_run *r, dr_op_role role, const char *name, int rank,
                      const int64_t *dim);
dr_tensor *dr_op_typed(dr_op_run *r, dr_op_role role, const char *name, dr_dtype dtype, int rank,
                       const int64_t *dim);
/* DR_SET or DR_ADD output of the activation dtype. */
dr_tensor *dr_op_gradient(dr_op_run *r, dr_write mode, const char *name, int rank,
                          const int64_t *dim);
/* A parameter's gradient, which is added to. */
dr_tensor *dr_op_param_gradient(dr_op_run *r, const char *name, int rank, const int64_t *dim);
/* The same, or one that is set. */
dr_tensor *dr_op_weight_gradient(dr_op_run *r, bool fresh, const char *name, int rank,
                                 const int64_t *dim);
/* I32 ids (5 i^2 + 3 i) mod limit: some repeat. F32 timesteps 333 i mod 1000. */
dr_tensor *dr_op_ids(dr_op_run *r, const char *name, int64_t limit, int rank, const int64_t *dim);
dr_tensor *dr_op_timesteps(dr_op_run *r, const char *name, int64_t n);

/* The array of that name, or NULL; its elements as doubles (caller frees), before or after. */
const dr_op_array *dr_op_find(const dr_op_run *r, const char *name);
double *dr_op_values_before(const dr_op_array *a);
double *dr_op_values_after(const dr_op_array *a);
/* True when the run wrote this array for its own sake. */
bool dr_op_is_output(const dr_op_array *a);

#endif
