/*
 * train/lora/lora_parts.h - the parameters of a module's adapter.
 *
 * Layer:    train, for lora_network.
 * Source:   sd-scripts networks/lora.py; LyCORIS 4.1.3 lycoris/modules/{locon,loha,lokr}.py.
 */
#ifndef DR_TRAIN_LORA_PARTS_H
#define DR_TRAIN_LORA_PARTS_H

#include "train/lora/lora_network.h"

/*
 * Adds the parameters of the site's adapter to the set, by the settings and the site's rank and
 * alpha, and makes the adapter of them; alpha becomes what a file has. from_file: rank and alpha
 * are a file's. Errors: DR_UNSUPPORTED (a scale that the file could not tell).
 */
DR_MUST_USE dr_status dr_lora_parts_add(dr_params *set, const dr_lora_settings *s, bool from_file,
                                        dr_lora_site *site);

#endif
