/*
 * tests/grad/grad_case.h - a block's backward against central differences of its forward, in f64.
 *
 * With L = sum of dy times y, element i of a gradient must be (L(i + h) - L(i - h)) / 2h. The same
 * gradients must come out when they are added to what is there, when parameters are frozen (all,
 * all but vectors, all but adapters) and when the input's gradient is not wanted.
 */
#ifndef DR_GRAD_CASE_H
#define DR_GRAD_CASE_H

#include "model_case.h"
#include "nn/adapter.h"

enum { DR_GRAD_MAX_INPUTS = 2 };

typedef struct dr_grad_case dr_grad_case;

typedef struct dr_grad_block {
    const char *name;
    const void *config;
    /* Registers the block's parameters and puts the block into g->block. */
    void (*init)(dr_grad_case *g);
    void (*end)(dr_grad_case *g); /* frees what init made besides; may be NULL */
    /* Forward into y and, when g->backward, backward into g->dx[i] (NULL: not wanted). */
    dr_status (*step)(dr_context *cx, dr_grad_case *g, dr_tensor *y, dr_frame f);
    int n_inputs; /* with a gradient */
    int input_rank[DR_GRAD_MAX_INPUTS];
    int64_t input_dim[DR_GRAD_MAX_INPUTS][DR_MAX_RANK];
    bool only_adds[DR_GRAD_MAX_INPUTS]; /* the block has no mode for this input: always += */
    int64_t output_dim[DR_MAX_RANK];
    int output_rank;
    int checked; /* elements per gradient, spread over it; 0: one direction through all */
} dr_grad_block;

struct dr_grad_case {
    const dr_grad_block *spec;
    dr_model_case model;
    dr_pool *forward, *training; /* of the two kinds of run */
    void *block;
    dr_tensor x[DR_GRAD_MAX_INPUTS], dy;
    dr_tensor *dx[DR_GRAD_MAX_INPUTS]; /* into the two below */
    dr_tensor dx_set[DR_GRAD_MAX_INPUTS], dx_other[DR_GRAD_MAX_INPUTS];
    dr_write mode;
    bool backward;
    double loss; /* of the latest run */
};

typedef struct dr_grad_adapter { /* zeroed: plain LoRA */
    dr_adapter_kind kind;
    bool cores;    /* convolutions with a window */
    bool whole[2]; /* KRONECKER */
    bool scalar, magnitude, by_input;
    dr_adapter_dropout dropout;
} dr_grad_adapter;

/*
 * For init: an adapter of rank 2 for every weight so far whose name holds the text. Its parameters
 * are registered as "lora_<role>.<name>". Weights of KRONECKER have even sizes.
 */
void dr_grad_add_adapters(dr_grad_case *g, const char *text, const dr_grad_adapter *how);

/* The CMocka test of a block: *state is its dr_grad_block. */
void dr_grad_check_block(void **state);
/* Runs blocks as one group each named after its block. */
int dr_grad_run(const char *group, const dr_grad_block *blocks, size_t n);

#endif
