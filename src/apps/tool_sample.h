/*
 * apps/tool_sample.h - `dreamrun sample`: pictures from prompts.
 *
 * Layer:    apps.
 */
#ifndef DR_APPS_TOOL_SAMPLE_H
#define DR_APPS_TOOL_SAMPLE_H

#include "dreamrun/status.h"

/* argv: the words after the tool's name. Paths of written pictures go to stdout, progress and the
 * memory plan to stderr. */
DR_MUST_USE dr_status dr_tool_sample(int argc, const char *const *argv);

#endif
