/*
 * apps/network_settings.h - the options that only train_network has.
 *
 * Layer:    apps.
 */
#ifndef DR_APPS_NETWORK_SETTINGS_H
#define DR_APPS_NETWORK_SETTINGS_H

#include "apps/options.h"
#include "train/train.h"

/*
 * The LoRA of c (after its learning rates). Texts live in the arena. DR_INVALID, DR_UNSUPPORTED.
 */
DR_MUST_USE dr_status dr_network_settings(const dr_options *o, dr_arena *arena, dr_train_config *c);

#endif
