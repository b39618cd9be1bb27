/*
 * apps/tool_check.h - `dreamrun check`: a dataset, looked at before it is trained on.
 *
 * Layer:    apps.
 */
#ifndef DR_APPS_TOOL_CHECK_H
#define DR_APPS_TOOL_CHECK_H

#include "dreamrun/status.h"

/* argv: the words after the tool's name. DR_FORMAT when the dataset has errors. */
DR_MUST_USE dr_status dr_tool_check(int argc, const char *const *argv);

#endif
