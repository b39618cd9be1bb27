/*
 * tests/ops/op_cases.h - the scenarios: bodies with their parameters, and the table of all of them.
 *
 * Bodies name the gradient of tensor "x" "dx", which is how golden vectors and finite differences
 * find what belongs together.
 */
#ifndef DR_OP_CASES_H
#define DR_OP_CASES_H

#include "op_harness.h"
#include "ops/conv2d.h"
#include "ops/pointwise.h"

typedef struct dr_op_suite {
    const dr_op_scenario *scenario;
    size_t n;
} dr_op_suite;

extern const dr_op_suite dr_linear_suite, dr_conv_suite, dr_norm_suite, dr_attention_suite,
    dr_pointwise_suite, dr_layout_suite, dr_embedding_suite, dr_diffusion_suite, dr_optimizer_suite;

typedef struct dr_linear_case {
    int64_t rows, in, out;
    dr_write mode;
    bool no_bias; /* b, db NULL */
    bool no_dw, fresh;
} dr_linear_case;
void dr_case_linear(dr_op_run *r, const void *params);
void dr_case_linear_dx(dr_op_run *r, const void *params);
void dr_case_linear_dw(dr_op_run *r, const void *params);

typedef struct dr_conv_case {
    int64_t n, h, w, in, out;
    dr_conv2d_geom geom;
    dr_write mode;
    bool no_bias, no_dw;
} dr_conv_case;
void dr_case_conv2d(dr_op_run *r, const void *params);
void dr_case_conv2d_dx(dr_op_run *r, const void *params);
void dr_case_conv2d_dw(dr_op_run *r, const void *params);

typedef struct dr_groupnorm_case {
    int64_t n, h, w, c;
    int groups;
    float eps;
    bool silu;
    dr_write mode;
    bool no_dx, no_dgamma;
} dr_groupnorm_case;
void dr_case_groupnorm(dr_op_run *r, const void *params);
void dr_case_groupnorm_backward(dr_op_run *r, const void *params);

typedef struct dr_layernorm_case {
    int64_t rows, c;
    float eps;
    dr_write mode;
    bool no_dx, no_dgamma;
} dr_layernorm_case;
void dr_case_layernorm(dr_op_run *r, const void *params);
void dr_case_layernorm_backward(dr_op_run *r, const void *params);

typedef struct dr_attention_case {
    int64_t n, sq, sk, d;
    int heads;
    bool causal, no_lse;
} dr_attention_case;
void dr_case_attention(dr_op_run *r, const void *params);
void dr_case_attention_backward(dr_op_run *r, const void *params);

typedef struct dr_activation_case {
    dr_act kind;
    int64_t n;
    dr_write mode;
    bool in_place;
} dr_activation_case;
void dr_case_activation(dr_op_run *r, const void *params);
void dr_case_activation_backward(dr_op_run *r, const void *params);

typedef struct dr_grid_case { /* a few sizes, whose meaning the body documents */
    int64_t n, h, w, c, c2;
    dr_write mode, mode2;
    bool variant; /* a NULL argument, or in place */
} dr_grid_case;
void dr_case_geglu(dr_op_run *r, const void *params);               /* h rows, c columns      */
void dr_case_geglu_backward(dr_op_run *r, const void *params);      /* the same               */
void dr_case_add(dr_op_run *r, const void *params);                 /* c; variant: z NULL     */
void dr_case_add_rows(dr_op_run *r, const void *params);            /* n, h pixels, c         */
void dr_case_sum_rows(dr_op_run *r, const void *params);            /* the same, mode         */
void dr_case_multiply(dr_op_run *r, const void *params);            /* n, h pixels, c         */
void dr_case_dropout(dr_op_run *r, const void *params);             /* n outer, h, c inner    */
void dr_case_swap(dr_op_run *r, const void *params);                /* n, h, w, c             */
void dr_case_concat(dr_op_run *r, const void *params);              /* n, h, w, c and c2      */
void dr_case_split(dr_op_run *r, const void *params);               /* variant: da NULL       */
void dr_case_upsample2x(dr_op_run *r, const void *params);          /* n, h, w, c             */
void dr_case_upsample2x_backward(dr_op_run *r, const void *params); /* the same, mode         */
void dr_case_cast(dr_op_run *r, const void *params);                /* c; variant: to wide     */
void dr_case_embedding(dr_op_run *r, const void *params);           /* n, h tokens, w ids, c  */
void dr_case_embedding_backward(dr_op_run *r, const void *params);  /* variant: dtokens NULL  */
void dr_case_timestep_embedding(dr_op_run *r, const void *params);  /* n, c                   */
void dr_case_mix(dr_op_run *r, const void *params);                 /* n, h, w, c             */
void dr_case_mse(dr_op_run *r, const void *params);                 /* dpred NULL; c2: a mask  */
void dr_case_posterior_sample(dr_op_run *r, const void *params);    /* variant: noise NULL    */
void dr_case_checksum(dr_op_run *r, const void *params);            /* c                      */
void dr_case_sumsq(dr_op_run *r, const void *params);               /* c                      */
void dr_case_adamw(dr_op_run *r, const void *params);               /* c; three steps         */
void dr_case_lerp(dr_op_run *r, const void *params);                /* c; variant: 0.7        */
void dr_case_lion(dr_op_run *r, const void *params);                /* c; variant: with s     */
void dr_case_momentum(dr_op_run *r, const void *params);            /* c; variant: nesterov   */
void dr_case_dadapt(dr_op_run *r, const void *params);              /* c; h: the kind         */
void dr_case_adam_apply(dr_op_run *r, const void *params);          /* c                      */
void dr_case_schedule_free(dr_op_run *r, const void *params);       /* c; variant: plain      */
void dr_case_adafactor_moments(dr_op_run *r, const void *params);   /* n outer, h, w, c inner */
void dr_case_adafactor_sums(dr_op_run *r, const void *params);      /* the same               */
void dr_case_adafactor_apply(dr_op_run *r, const void *params);     /* variant: with m        */
void dr_case_blockwise(dr_op_run *r, const void *params);           /* c; h kind; variant f32 */

#define DR_OP_SUITE(table)                                                                         \
    {                                                                                              \
        table, sizeof(table) / sizeof((table)[0])                                                  \
    }

#endif
