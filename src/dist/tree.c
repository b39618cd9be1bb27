#include "dist/tree.h"

void dr_tree_share(int64_t n_leaves, int world, int rank, int64_t *begin, int64_t *end)
{
    *begin = n_leaves * rank / world;
    *end = n_leaves * (rank + 1) / world;
}

void dr_tree_stack_init(dr_tree_stack *s, int64_t n_leaves)
{
    *s = (dr_tree_stack){.n_leaves = n_leaves};
}

/* The parent of a node that is alone under it (its right sibling has no leaves), as far up as that
 * holds; the root is its own. */
static dr_tree_node rise(dr_tree_node node, int64_t n_leaves)
{
    while (node.index % 2 == 0 && node.index > 0 && (node.index + 1) << node.level >= n_leaves) {
        node.index /= 2;
        node.level++;
    }
    return node;
}

int dr_tree_stack_push(dr_tree_stack *s, dr_tree_node node, int slot,
                       int merged[DR_TREE_MAX_PARTIALS])
{
    int n = 0;
    node = rise(node, s->n_leaves);
    while (s->n > 0) {
        const dr_tree_node *top = &s->node[s->n - 1];
        if (node.index % 2 != 1 || top->level != node.level || top->index != node.index - 1) {
            break;
        }
        merged[n++] = s->slot[--s->n];
        node.index /= 2;
        node.level++;
        node = rise(node, s->n_leaves);
    }
    DR_CHECK(s->n < DR_TREE_MAX_PARTIALS, "tree: %d partial sums", s->n);
    s->node[s->n] = node;
    s->slot[s->n++] = slot;
    return n;
}
