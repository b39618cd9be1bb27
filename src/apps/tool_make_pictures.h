/*
 * apps/tool_make_pictures.h - `dreamrun make_pictures`: a small synthetic DreamBooth dataset.
 *
 * Layer:    apps.
 */
#ifndef DR_APPS_TOOL_MAKE_PICTURES_H
#define DR_APPS_TOOL_MAKE_PICTURES_H

#include "dreamrun/status.h"

/* argv: the words after the tool's name. */
DR_MUST_USE dr_status dr_tool_make_pictures(int argc, const char *const *argv);

#endif
