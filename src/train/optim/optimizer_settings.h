/*
 * train/optim/optimizer_settings.h - the optimizers by name, their settings, and --optimizer_args.
 *
 * Layer:    train.
 * Source:   sd-scripts library/train_util.py get_optimizer; spec sdscripts.md 7.1. Names of
 * settings and defaults are those of the packages it takes the optimizers from.
 */
#ifndef DR_TRAIN_OPTIMIZER_SETTINGS_H
#define DR_TRAIN_OPTIMIZER_SETTINGS_H

#include "base/str.h"

/* X(enum name, --optimizer_type) */
#define DR_OPTIM_LIST(X)                                                                           \
    X(ADAMW, "AdamW")                                                                              \
    X(ADAMW8BIT, "AdamW8bit")                                                                      \
    X(PAGED_ADAMW, "PagedAdamW")                                                                   \
    X(PAGED_ADAMW8BIT, "PagedAdamW8bit")                                                           \
    X(PAGED_ADAMW32BIT, "PagedAdamW32bit")                                                         \
    X(LION, "Lion")                                                                                \
    X(LION8BIT, "Lion8bit")                                                                        \
    X(PAGED_LION8BIT, "PagedLion8bit")                                                             \
    X(SGD_NESTEROV, "SGDNesterov")                                                                 \
    X(SGD_NESTEROV8BIT, "SGDNesterov8bit")                                                         \
    X(DADAPTATION, "DAdaptation")                                                                  \
    X(DADAPT_ADAM_PREPRINT, "DAdaptAdamPreprint")                                                  \
    X(DADAPT_ADAM, "DAdaptAdam")                                                                   \
    X(DADAPT_LION, "DAdaptLion")                                                                   \
    X(PRODIGY, "Prodigy")                                                                          \
    X(ADAFACTOR, "AdaFactor")                                                                      \
    X(RADAM_SCHEDULE_FREE, "RAdamScheduleFree")                                                    \
    X(ADAMW_SCHEDULE_FREE, "AdamWScheduleFree")                                                    \
    X(SGD_SCHEDULE_FREE, "SGDScheduleFree")

typedef enum dr_optim_kind {
#define DR_OPTIM_ENUM(name, text) DR_OPTIM_##name,
    DR_OPTIM_LIST(DR_OPTIM_ENUM)
#undef DR_OPTIM_ENUM
        DR_OPTIM_COUNT
} dr_optim_kind;

#define DR_OPTIM_NONE (-1.0) /* Python's None */

typedef struct dr_optim_settings { /* a kind uses some of them; truth values are 0 and 1 */
    dr_optim_kind kind;
    double beta1, beta2; /* follow each other; Adafactor's beta1 may be DR_OPTIM_NONE */
    double beta3;        /* Prodigy; DR_OPTIM_NONE: sqrt(beta2) */
    double eps, eps2;    /* follow each other; eps2: Adafactor's least scale */
    double weight_decay;
    double momentum, dampening, nesterov;
    double decouple, d0, d_coef, growth_rate, use_bias_correction, safeguard_warmup;
    double relative_step, scale_parameter, warmup_init, clip_threshold, decay_rate;
    double warmup_steps, r, weight_lr_power, silent_sgd_phase;
} dr_optim_settings;

/* "AdamW" */
const char *dr_optim_kind_name(dr_optim_kind kind);
/* Any case; DR_UNSUPPORTED with the nearest name. */
DR_MUST_USE dr_status dr_optim_kind_from_name(const char *name, dr_optim_kind *out);
/* Prodigy and D-Adaptation: the learning rate is a factor of what they estimate, 1 as a rule. */
bool dr_optim_estimates_rate(dr_optim_kind kind);
/* The schedule-free ones: a schedule of the learning rate is not used. */
bool dr_optim_is_schedule_free(dr_optim_kind kind);
/* Says what the settings mean beyond what was asked for (warnings of sd-scripts), on every rank. */
void dr_optim_settings_advise(const dr_optim_settings *s, double lr, double max_grad_norm);
/* Defaults of the kind, then "key=value" texts over them: DR_INVALID, DR_UNSUPPORTED in words. */
DR_MUST_USE dr_status dr_optim_settings_parse(dr_optim_kind kind, const dr_strv *args,
                                              dr_optim_settings *out);

#endif
