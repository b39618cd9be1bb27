/*
 * apps/tool_resize_lora.h - `dreamrun resize_lora`: a LoRA of smaller rank, by singular values.
 *
 * Layer:    apps.
 */
#ifndef DR_APPS_TOOL_RESIZE_LORA_H
#define DR_APPS_TOOL_RESIZE_LORA_H

#include "dreamrun/status.h"

/* argv without the tool's name. Errors: DR_INVALID (usage), DR_UNSUPPORTED (DoRA), those of
 * train/lora/lora_file.h, train/lora/lora_set.h and linalg/svd.h. */
DR_MUST_USE dr_status dr_tool_resize_lora(int argc, const char *const *argv);

#endif
