/*
 * train/optim/lr_schedule.h - learning-rate factor as a pure function of the update's number.
 *
 * Layer:    train.
 * Source:   diffusers/transformers optimization.py as sd-scripts calls it; spec sdscripts.md 7.2.
 *           One scheduler step per optimizer update at any number of ranks.
 */
#ifndef DR_TRAIN_LR_SCHEDULE_H
#define DR_TRAIN_LR_SCHEDULE_H

#include "dreamrun/status.h"

/* X(enum name, option value) */
#define DR_LR_SCHEDULE_LIST(X)                                                                     \
    X(LINEAR, "linear")                                                                            \
    X(COSINE, "cosine")                                                                            \
    X(COSINE_WITH_RESTARTS, "cosine_with_restarts")                                                \
    X(POLYNOMIAL, "polynomial")                                                                    \
    X(CONSTANT, "constant")                                                                        \
    X(CONSTANT_WITH_WARMUP, "constant_with_warmup")                                                \
    X(PIECEWISE_CONSTANT, "piecewise_constant")                                                    \
    X(INVERSE_SQRT, "inverse_sqrt")                                                                \
    X(COSINE_WITH_MIN_LR, "cosine_with_min_lr")                                                    \
    X(WARMUP_STABLE_DECAY, "warmup_stable_decay")                                                  \
    X(ADAFACTOR, "adafactor")

typedef enum dr_lr_kind {
#define DR_LR_ENUM(name, text) DR_LR_##name,
    DR_LR_SCHEDULE_LIST(DR_LR_ENUM)
#undef DR_LR_ENUM
        DR_LR_COUNT
} dr_lr_kind;

typedef struct dr_lr_schedule {
    dr_lr_kind kind;
    int64_t first_step;   /* of the run: steps count from here; 0 as a rule */
    int64_t total_steps;  /* of the run */
    int64_t warmup_steps; /* linear from 0 */
    int64_t decay_steps;  /* warmup_stable_decay: the last ones */
    int64_t cycles;       /* cosine_with_restarts, cosine_with_min_lr, warmup_stable_decay */
    int64_t timescale;    /* inverse_sqrt; 0: the warm-up, or 10000 */
    double min_ratio;     /* cosine_with_min_lr, warmup_stable_decay */
    const char *rules;    /* piecewise_constant: "1:10,0.1:20,0.01"; outlives the schedule */
    double power;         /* polynomial */
    double base_lr;       /* polynomial ends at 1e-7, as a fraction of this */
} dr_lr_schedule;

bool dr_lr_kind_from_name(const char *name, dr_lr_kind *out);
/* DR_INVALID for what the peer refuses: warm-up with constant, polynomial with lr <= 1e-7, rules
 * that cannot be read. */
DR_MUST_USE dr_status dr_lr_schedule_check(const dr_lr_schedule *s);
/* Factor of the base lr in update global_step, counted from 0. */
double dr_lr_factor(const dr_lr_schedule *s, int64_t global_step);

#endif
