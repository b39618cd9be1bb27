/*
 * data/validation.h - which pictures are kept for validation.
 *
 * Layer:    data.
 * Source:   sd-scripts' --validation_split: of n pictures of a folder round(n * split), half to
 *           even. There the two halves are shuffled apart and overlap; here one permutation makes
 *           both.
 */
#ifndef DR_DATA_VALIDATION_H
#define DR_DATA_VALIDATION_H

#include "data/dataset.h"

/*
 * Moves pictures of every training folder whose part has a split into subsets of their own, behind
 * all others, with is_validation, the same folder and captions, and options that change nothing
 * from use to use. Which ones depends on the part's seed and on the number of pictures in the
 * folder alone. Unless everything of a part is wanted (1.0), a folder keeps one to train on.
 * Regularisation folders are left alone. Errors: DR_FORMAT when a split is wanted and no folder has
 * enough pictures for it.
 */
DR_MUST_USE dr_status dr_validation_split(dr_arena *arena, const dr_dataset_part *parts,
                                          dr_folder_scan *scan);

/* The settings with everything left out that differs from use to use. */
dr_subset_options dr_subset_options_still(const dr_subset_options *o);

#endif
