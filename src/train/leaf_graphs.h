/*
 * train/leaf_graphs.h - forward and backward of a leaf as one recording of the device's work.
 * Private to train.
 *
 * The pool gives the same addresses in every step, and what differs between leaves of one shape
 * (latents, noise, ids, weights of the loss) is in device memory. So the work of a leaf is the same
 * list of kernels: the first leaf of a shape runs as it is, the second is recorded, and from then
 * on the recording is played, with one call in place of thousands.
 */
#ifndef DR_TRAIN_LEAF_GRAPHS_H
#define DR_TRAIN_LEAF_GRAPHS_H

#include "train/run_internal.h"

/* Says on rank 0 whether this run records, or why not; nothing where the device cannot. */
dr_leaf_graphs *dr_leaf_graphs_create(const dr_run *r);
void dr_leaf_graphs_destroy(dr_leaf_graphs *g);
/* As dr_leaf_run. The tensors of out that a recording has written stay as they are until the pool
 * is used again. Where recording fails the run goes on without, which is a warning. */
DR_MUST_USE dr_status dr_leaf_graphs_run(dr_run *r, dr_context *cx, const dr_leaf_input *in,
                                         const dr_leaf_options *o, dr_frame f, dr_leaf_output *out);

#endif
