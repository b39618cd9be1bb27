/*
 * apps/tool_extract_lora.h - `dreamrun extract_lora`: the LoRA between two models.
 *
 * Layer:    apps.
 */
#ifndef DR_APPS_TOOL_EXTRACT_LORA_H
#define DR_APPS_TOOL_EXTRACT_LORA_H

#include "dreamrun/status.h"

/* argv without the tool's name. Errors: DR_INVALID (usage), DR_FORMAT (the models differ in shape,
 * or not at all), those of train/model/model_file.h, train/lora/lora_set.h and linalg/svd.h. */
DR_MUST_USE dr_status dr_tool_extract_lora(int argc, const char *const *argv);

#endif
