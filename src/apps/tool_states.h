/*
 * apps/tool_states.h - `dreamrun status DIR`: what became of a run; `dreamrun verify PATH`: its
 * states, every byte.
 *
 * Layer:    apps.
 */
#ifndef DR_APPS_TOOL_STATES_H
#define DR_APPS_TOOL_STATES_H

#include "dreamrun/status.h"

/* argv: the words after the tool's name. */
DR_MUST_USE dr_status dr_tool_status(int argc, const char *const *argv);
/* DR_FORMAT when a state is damaged. */
DR_MUST_USE dr_status dr_tool_verify(int argc, const char *const *argv);

#endif
