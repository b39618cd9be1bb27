/*
 * tests/support/model_case.h - a model's parameters filled with golden weights on any host backend,
 * and a walk of it, planned dry and then run in exactly the planned memory.
 */
#ifndef DR_MODEL_CASE_H
#define DR_MODEL_CASE_H

#include "nn/params.h"

typedef struct dr_model_case {
    const dr_backend *backend;
    dr_arena arena; /* of the set's entries and of the tensors made below */
    dr_params params;
    void *values, *grads; /* flat, of the backend's dtype */
    size_t plan_bytes;    /* peak of the latest walk */
} dr_model_case;

/* Starts with an empty set: initialise models into c->params, then bind. */
void dr_model_case_begin(dr_model_case *c, const dr_backend *backend);
/* Allocates and fills the values by dr_golden_param; gradients, when wanted, are zero. */
void dr_model_case_bind(dr_model_case *c, bool gradients);
void dr_model_case_end(dr_model_case *c);

typedef dr_status (*dr_model_walk)(dr_context *cx, void *user);
/* Calls walk twice, dry and real; the real pool has the planned size, its peak must be the same
 * and nothing may be left in it. */
void dr_model_case_run(dr_model_case *c, dr_model_walk walk, void *user);

/* Tensors of the backend's dtype, which live as long as the case. Sizes are in memory order. */
dr_tensor dr_model_case_tensor(dr_model_case *c, int rank, const int64_t *dim);
/* Golden fill in the order of files: rank 4 is filled as (N,C,H,W). */
dr_tensor dr_model_case_input(dr_model_case *c, const char *key, double scale, int rank,
                              const int64_t *dim);
/* Values in the order of files ((N,C,H,W) for rank 4); the caller frees them. */
double *dr_model_case_logical(const dr_tensor *t);
/* Gradient of an entry in the order of files; the caller frees it. */
double *dr_model_case_gradient(const dr_param *p);
double dr_model_case_l2(const double *v, size_t n);

#endif
