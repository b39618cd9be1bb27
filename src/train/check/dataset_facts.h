/*
 * train/check/dataset_facts.h - what a LoRA file says of its dataset, as sd-scripts writes it: JSON
 * in Python's spelling, with everything beyond ASCII escaped.
 *
 * Layer:    train.
 * Source:   sd-scripts train_network.py; spec sdscripts.md 9.7.
 */
#ifndef DR_TRAIN_DATASET_FACTS_H
#define DR_TRAIN_DATASET_FACTS_H

#include "data/dataset.h"
#include "train/model/metadata.h"

/*
 * Folder mode: ss_dataset_dirs, ss_reg_dataset_dirs, ss_tag_frequency, ss_bucket_info. With a
 * dataset file (o->n_parts > 0): ss_datasets in their stead, with ss_dataset_dirs and
 * ss_tag_frequency over all. Texts live in the arena.
 */
void dr_dataset_facts(const dr_dataset *d, const dr_dataset_options *o, uint32_t batch_size,
                      dr_arena *arena, dr_ss_facts *out);
/* text as a JSON string, ASCII alone; what is no UTF-8 becomes U+FFFD. */
void dr_json_add_ascii(dr_str *s, const char *text);

#endif
