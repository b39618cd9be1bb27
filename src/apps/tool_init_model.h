/*
 * apps/tool_init_model.h - `dreamrun init_model`: a model with random weights.
 *
 * Layer:    apps.
 */
#ifndef DR_APPS_TOOL_INIT_MODEL_H
#define DR_APPS_TOOL_INIT_MODEL_H

#include "dreamrun/status.h"

/* argv: the words after the tool's name. */
DR_MUST_USE dr_status dr_tool_init_model(int argc, const char *const *argv);

#endif
