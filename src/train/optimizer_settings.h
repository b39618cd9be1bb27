/*
 * train/optimizer_settings.h - the optimizers by name, their settings, and --optimizer_args.
 *
 * Layer:    train.
 * Source:   sd-scripts library/train_util.py get_optimizer; spec sdscripts.md 7.1. Names of
 * settings and defaults are those of the packages it takes the optimizers from.
 */
#ifndef DR_TRAIN_OPTIMIZER_SETTINGS_H
#define DR_TRAIN_OPTIMIZER_SETTINGS_H

#include "base/str.h"

/* X(enum name, --optimizer_type) */
#define DR_OPTIM_LIST(X) X(ADAMW, "AdamW")

typedef enum dr_optim_kind {
#define DR_OPTIM_ENUM(name, text) DR_OPTIM_##name,
    DR_OPTIM_LIST(DR_OPTIM_ENUM)
#undef DR_OPTIM_ENUM
        DR_OPTIM_COUNT
} dr_optim_kind;

typedef struct dr_optim_settings { /* a kind uses some of them */
    dr_optim_kind kind;
    double beta1, beta2, eps, weight_decay;
} dr_optim_settings;

/* "AdamW" */
const char *dr_optim_kind_name(dr_optim_kind kind);
/* Any case; DR_UNSUPPORTED with the nearest name. */
DR_MUST_USE dr_status dr_optim_kind_from_name(const char *name, dr_optim_kind *out);
/* Defaults of the kind, then "key=value" texts over them: DR_INVALID, DR_UNSUPPORTED in words. */
DR_MUST_USE dr_status dr_optim_settings_parse(dr_optim_kind kind, const dr_strv *args,
                                              dr_optim_settings *out);

#endif
