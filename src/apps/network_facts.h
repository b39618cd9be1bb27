/*
 * apps/network_facts.h - what the options of train_network say in the metadata of a LoRA file.
 *
 * Layer:    apps.
 * Source:   sd-scripts train_network.py; spec sdscripts.md 9.7.
 */
#ifndef DR_APPS_NETWORK_FACTS_H
#define DR_APPS_NETWORK_FACTS_H

#include "apps/options.h"
#include "train/model/metadata.h"

/* Values are spelled as sd-scripts' argparse would have them. Texts live in the arena. */
const dr_ss_facts *dr_network_facts(const dr_options *o, dr_arena *arena);

#endif
