/*
 * dist/tree.h - the fixed binary tree over the leaves of a step, and who sums what.
 *
 * Layer:    dist.  Pure arithmetic, no communication.
 *
 * A step has L leaves (virtual shards x accumulation). Node (level k, index j) covers the leaves
 * j 2^k .. (j+1) 2^k - 1 that exist; its sum is left + right, or left alone where right is empty.
 * The order of additions depends on L only, so any split of the leaves over ranks gives the same
 * bits.
 */
#ifndef DR_DIST_TREE_H
#define DR_DIST_TREE_H

#include "dreamrun/status.h"

enum { DR_TREE_MAX_PARTIALS = 64 };

typedef struct dr_tree_node {
    int level;
    int64_t index;
} dr_tree_node;

/* Leaves [begin, end) of the rank: contiguous runs that differ by at most one in length. */
void dr_tree_share(int64_t n_leaves, int world, int rank, int64_t *begin, int64_t *end);

/*
 * A stack of node sums. Pushing a node merges it with finished left siblings, as far as the tree
 * goes; the caller is told which additions to make.
 */
typedef struct dr_tree_stack {
    int64_t n_leaves;
    int n;
    dr_tree_node node[DR_TREE_MAX_PARTIALS];
    int slot[DR_TREE_MAX_PARTIALS]; /* the caller's name for the memory of each sum */
} dr_tree_stack;

void dr_tree_stack_init(dr_tree_stack *s, int64_t n_leaves);
/*
 * Pushes the sum of a node, held in the caller's slot. Returns the number of merges: the new sum is
 * to be added to the sums in merged[0], merged[1], ... in that order (sum = merged[i] + sum); the
 * total then stands for the node on top of the stack, whose slot is `slot`.
 */
int dr_tree_stack_push(dr_tree_stack *s, dr_tree_node node, int slot,
                       int merged[DR_TREE_MAX_PARTIALS]);

#endif
