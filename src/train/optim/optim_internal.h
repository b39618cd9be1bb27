/*
 * train/optim/optim_internal.h - what the optimizer families share. Private to train.
 *
 * A family says which state a span of parameters has and how a span is updated; memory, names,
 * counting and the listing of state are optimizer.c's.
 */
#ifndef DR_TRAIN_OPTIM_INTERNAL_H
#define DR_TRAIN_OPTIM_INTERNAL_H

#include "train/optim/optimizer.h"

enum { DR_OPTIM_EMA = 5, DR_OPTIM_MAX_STATES, DR_OPTIM_MAX_SCALARS = 8 }; /* EMA: its state */

/* One state array of a span; n 0: this span has none. */
typedef struct dr_optim_state {
    const char *name; /* "exp_avg" */
    dr_dtype dtype;
    int64_t n;
    size_t at; /* byte in the allocation */
} dr_optim_state;

/* Consecutive parameters that are updated by one call: several when that makes no difference. */
typedef struct dr_optim_span {
    size_t group;
    const dr_param *const *params;
    size_t n_params;
    int64_t offset, n; /* elements of the set, holes between parameters included */
    dr_optim_state state[DR_OPTIM_MAX_STATES];
    int owner;
    dr_tensor wide_values, wide_grads; /* in place of narrow memory; data NULL: the memory itself */
} dr_optim_span;

typedef struct dr_optim_family {
    bool per_tensor; /* a span is one parameter */
    bool local;      /* a span's update needs nothing of other spans */
    /* Fills s->state. */
    void (*describe)(const dr_optimizer *o, dr_optim_span *s);
    /* Refuses groups it cannot do; names its scalars. NULL: nothing to do. */
    dr_status (*check)(dr_optimizer *o);
    /* States that start from the weights. NULL: all start from zero. */
    dr_status (*begin)(dr_optimizer *o, dr_context *cx, const dr_optim_span *s);
    /* Once per step before the spans: numbers of the step. NULL: none. */
    void (*prepare)(dr_optimizer *o);
    /* local: updates one span. */
    dr_status (*update)(dr_optimizer *o, dr_context *cx, const dr_optim_span *s);
    /* The same for n spans of one group whose values and gradients are f32. NULL: one by one. */
    dr_status (*update_many)(dr_optimizer *o, dr_context *cx, const dr_optim_span *s, size_t n);
    /* not local: the whole step over dr_optim_active spans. */
    dr_status (*step)(dr_optimizer *o, dr_context *cx);
    /* Trained weights of a span into its parameters, which are kept elsewhere. NULL: they are. */
    dr_status (*eval)(dr_optimizer *o, dr_context *cx, const dr_optim_span *s);
} dr_optim_family;

typedef struct dr_optim_group_state {
    dr_optim_group g;
    double step; /* updates so far, the running one included */
    double last_lr;
    bool frozen; /* in the running step */
} dr_optim_group_state;

struct dr_optimizer {
    dr_arena arena;
    dr_optim_settings s;
    const dr_optim_family *family;
    dr_optim_group_state *groups;
    size_t n_groups;
    dr_optim_span *spans;
    size_t n_spans;
    const dr_device *device;
    char *memory;
    size_t *bytes_of;                    /* (world): what each rank holds */
    int rank, world;                     /* 0 of 1 without owners */
    double scalar[DR_OPTIM_MAX_SCALARS]; /* the family's own */
    const char *scalar_name[DR_OPTIM_MAX_SCALARS];
    size_t n_scalars;
    dr_optim_step now; /* of the running step */
    double ema_decay, ema_step;
    bool narrow;
    uint64_t seed;
    bool evaluating;
};

/* What is done with a span's floats. */
typedef dr_status (*dr_optim_body)(dr_optimizer *o, dr_context *cx, const dr_optim_span *s,
                                   void *user);
typedef enum dr_optim_rounding {                /* of what a body leaves in the values */
                                 DR_OPTIM_KEEP, /* it leaves them alone */
                                 DR_OPTIM_UPDATE,
                                 DR_OPTIM_NEAREST
} dr_optim_rounding;
/* Calls body, with wide copies of narrow values and gradients; values are rounded back. */
DR_MUST_USE dr_status dr_optim_on_floats(dr_optimizer *o, dr_context *cx, const dr_optim_span *s,
                                         dr_optim_rounding rounding, dr_optim_body body,
                                         void *user);

/* A family's scalar, for its check function. */
void dr_optim_add_scalar(dr_optimizer *o, const char *name, double first);
/* A view of state i of the span. */
dr_tensor dr_optim_state_of(const dr_optimizer *o, const dr_optim_span *s, int i);
/* The span's values and gradients as flat arrays. */
dr_tensor dr_optim_values(const dr_optim_span *s);
dr_tensor dr_optim_grads(const dr_optim_span *s);
/* The group's lr in this step. */
double dr_optim_lr(const dr_optimizer *o, const dr_optim_span *s);
/* False for another rank's span, and in a step in which the span's group is frozen. */
bool dr_optim_active(const dr_optimizer *o, const dr_optim_span *s);

extern const dr_optim_family dr_optim_adamw, dr_optim_blockwise, dr_optim_lion, dr_optim_sgd,
    dr_optim_adafactor, dr_optim_dadapt, dr_optim_schedule_free;

#endif
