/*
 * apps/tool_tokenize.h - `dreamrun tokenize`: captions on stdin, token ids on stdout.
 *
 * Layer:    apps.
 */
#ifndef DR_APPS_TOOL_TOKENIZE_H
#define DR_APPS_TOOL_TOKENIZE_H

#include "dreamrun/status.h"

/* argv: the words after the tool's name. */
DR_MUST_USE dr_status dr_tool_tokenize(int argc, const char *const *argv);

#endif
