/*
 * base/tree.h - whole directories: appear at once, are replaced at once, go at once; and what is
 * left of them when a process is killed.
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
/* The same at once: it goes from its name, then from the disk. What is left when the process is
 * killed in between is swept later. */
void dr_tree_discard(const char *path);
/*
 * Removes what processes that are gone have left in dir under temporary names (NAME.tmp.PID, also
 * of base/file.h), where NAME begins with one of the prefixes (the last is NULL). A tree that was
 * being replaced and whose place is empty is put back. Returns how many. The caller sees to it
 * that no process of another host writes there.
 */
int dr_tree_sweep(const char *dir, const char *const *prefixes);

#endif
