/*
 * apps/tool_convert.h - `dreamrun convert`: a model in another form, precision or with another VAE.
 *
 * Layer:    apps.
 */
#ifndef DR_APPS_TOOL_CONVERT_H
#define DR_APPS_TOOL_CONVERT_H

#include "dreamrun/status.h"

/* argv without the tool's name. Errors: DR_INVALID (usage), those of train/model/model_file.h. */
DR_MUST_USE dr_status dr_tool_convert(int argc, const char *const *argv);

#endif
