/*
 * apps/tool_merge_lora.h - `dreamrun merge_lora`: LoRAs into a model, or several LoRAs into one.
 *
 * Layer:    apps.
 */
#ifndef DR_APPS_TOOL_MERGE_LORA_H
#define DR_APPS_TOOL_MERGE_LORA_H

#include "dreamrun/status.h"

/* argv without the tool's name. Errors: DR_INVALID (usage), those of train/lora/lora_file.h,
 * train/model/model_file.h and apps/lora_join.h. */
DR_MUST_USE dr_status dr_tool_merge_lora(int argc, const char *const *argv);

#endif
