/*
 * apps/objective_settings.h - the options of noise, timesteps and loss as settings of a run.
 *
 * Layer:    apps.
 */
#ifndef DR_APPS_OBJECTIVE_SETTINGS_H
#define DR_APPS_OBJECTIVE_SETTINGS_H

#include "apps/options.h"
#include "train/train.h"

/* Sets the objective and the loss; warns of options that change nothing. */
void dr_settings_objective(const dr_options *o, dr_train_config *c);

#endif
