/*
 * apps/debug_dataset.h - --debug_dataset: what the first epoch of a training would see.
 *
 * Layer:    apps.
 */
#ifndef DR_APPS_DEBUG_DATASET_H
#define DR_APPS_DEBUG_DATASET_H

#include "base/str.h"
#include "data/epoch_plan.h"
#include "image/image.h"
#include "train/train.h"

/*
 * On a terminal, pages through pictures and captions as they are trained on, in the order of the
 * first epoch; Esc or q ends it. Without one, writes the first pictures as <name>-dataset.png and
 * <name>-dataset.html into output_dir.
 */
DR_MUST_USE dr_status dr_debug_dataset(const dr_train_config *c);

/* --- its parts --- */

typedef struct dr_debug_view { /* the samples of the epoch, in order */
    const dr_train_config *c;
    const dr_dataset *dataset;
    const dr_epoch_plan *plan;
} dr_debug_view;

/* Sample i of the epoch: its pixels as trained on (the caller frees them), and a few lines. */
DR_MUST_USE dr_status dr_debug_sample(const dr_debug_view *v, uint32_t i, dr_image *img,
                                      dr_str *text);
/* Whether stdin and stdout are a terminal that can show pictures. */
bool dr_debug_has_terminal(void);
DR_MUST_USE dr_status dr_debug_page(const dr_debug_view *v);
DR_MUST_USE dr_status dr_debug_sheet(const dr_debug_view *v);

#endif
