/*
 * apps/tool_inspect.h - `dreamrun inspect`: what a model file or directory holds.
 *
 * Layer:    apps.
 */
#ifndef DR_APPS_TOOL_INSPECT_H
#define DR_APPS_TOOL_INSPECT_H

#include "dreamrun/status.h"

/* argv: the words after the tool's name. Reads headers only. */
DR_MUST_USE dr_status dr_tool_inspect(int argc, const char *const *argv);

#endif
