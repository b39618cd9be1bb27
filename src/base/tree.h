/*
 * base/tree.h - whole directories: appear at once, are replaced at once, go at once.
 *
 * Layer:    base.  Linux.
 * Errors:   DR_IO with both paths and the reason.
 */
#ifndef DR_BASE_TREE_H
#define DR_BASE_TREE_H

#include "dreamrun/status.h"

/*
 * Moves the directory tmp to path. What was at path is then at tmp (*swapped true), where the file
 * system can exchange them there is no moment without either; *swapped false: nothing was there.
 */
DR_MUST_USE dr_status dr_tree_swap(const char *tmp, const char *path, bool *swapped);
/* Removes a tree that this program has written; what cannot be removed stays. */
void dr_tree_remove(const char *path);

#endif
