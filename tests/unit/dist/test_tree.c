/*
 * The fixed tree as text: a leaf is its number, a sum is "(left right)". The expression of the
 * whole step must be the tree's for every way of sharing the leaves.
 */
#include "base/arena.h"
#include "dist/tree.h"
#include "dr_test.h"

#include <string.h>

enum { MAX_LEAVES = 70, MAX_WORLD = 9 };

/* Expression of node (level, index), from the definition in dist/tree.h. */
static const char *expected(dr_arena *a, int64_t n_leaves, int level, int64_t index)
{
    if (level == 0) {
        return dr_arena_printf(a, "%lld", (long long)index);
    }
    const char *left = expected(a, n_leaves, level - 1, 2 * index);
    if ((2 * index + 1) << (level - 1) >= n_leaves) {
        return left;
    }
    return dr_arena_printf(a, "(%s %s)", left, expected(a, n_leaves, level - 1, 2 * index + 1));
}

static const char *expected_root(dr_arena *a, int64_t n_leaves)
{
    int level = 0;
    while ((int64_t)1 << level < n_leaves) {
        level++;
    }
    return expected(a, n_leaves, level, 0);
}

typedef struct sums { /* expressions by slot */
    dr_tree_stack stack;
    const char *text[MAX_LEAVES];
    int n;
} sums;

static void push(dr_arena *a, sums *s, dr_tree_node node, const char *text)
{
    int merged[DR_TREE_MAX_PARTIALS];
    const int slot = s->n++;
    const int n = dr_tree_stack_push(&s->stack, node, slot, merged);
    for (int i = 0; i < n; i++) {
        assert_in_range(merged[i], 0, slot - 1);
        text = dr_arena_printf(a, "(%s %s)", s->text[merged[i]], text);
    }
    s->text[slot] = text;
    assert_true(s->stack.n >= 1);
    assert_int_equal(s->stack.slot[s->stack.n - 1], slot);
}

/* Each part sums its leaves, then the parts' sums are pushed in order. bounds (n_parts + 1). */
static const char *sum_in_parts(dr_arena *a, int64_t n_leaves, int n_parts, const int64_t *bounds)
{
    sums total = {.n = 0};
    dr_tree_stack_init(&total.stack, n_leaves);
    for (int q = 0; q < n_parts; q++) {
        sums part = {.n = 0};
        dr_tree_stack_init(&part.stack, n_leaves);
        for (int64_t i = bounds[q]; i < bounds[q + 1]; i++) {
            push(a, &part, (dr_tree_node){.index = i}, dr_arena_printf(a, "%lld", (long long)i));
        }
        for (int k = 0; k < part.stack.n; k++) {
            push(a, &total, part.stack.node[k], part.text[part.stack.slot[k]]);
        }
    }
    assert_int_equal(total.stack.n, 1);
    return total.text[total.stack.slot[0]];
}

static void share_covers_all_leaves(void **state)
{
    (void)state;
    for (int64_t leaves = 1; leaves <= MAX_LEAVES; leaves++) {
        for (int world = 1; world <= leaves; world++) {
            int64_t next = 0;
            for (int rank = 0; rank < world; rank++) {
                int64_t begin;
                int64_t end;
                dr_tree_share(leaves, world, rank, &begin, &end);
                assert_int_equal(begin, next);
                assert_in_range(end - begin, leaves / world, (leaves + world - 1) / world);
                next = end;
            }
            assert_int_equal(next, leaves);
        }
    }
}

static void a_known_tree(void **state)
{
    (void)state;
    dr_arena a;
    dr_arena_init(&a);
    assert_string_equal(sum_in_parts(&a, 1, 1, (int64_t[]){0, 1}), "0");
    assert_string_equal(sum_in_parts(&a, 5, 1, (int64_t[]){0, 5}), "(((0 1) (2 3)) 4)");
    assert_string_equal(sum_in_parts(&a, 6, 2, (int64_t[]){0, 3, 6}), "(((0 1) (2 3)) (4 5))");
    assert_string_equal(sum_in_parts(&a, 7, 3, (int64_t[]){0, 2, 4, 7}),
                        "(((0 1) (2 3)) ((4 5) 6))");
    dr_arena_deinit(&a);
}

static void every_share_gives_the_tree(void **state)
{
    (void)state;
    for (int64_t leaves = 1; leaves <= MAX_LEAVES; leaves++) {
        dr_arena a;
        dr_arena_init(&a);
        const char *want = expected_root(&a, leaves);
        for (int world = 1; world <= MAX_WORLD && world <= leaves; world++) {
            int64_t bounds[MAX_WORLD + 1] = {0};
            for (int rank = 0; rank < world; rank++) {
                int64_t begin;
                dr_tree_share(leaves, world, rank, &begin, &bounds[rank + 1]);
            }
            assert_string_equal(sum_in_parts(&a, leaves, world, bounds), want);
        }
        dr_arena_deinit(&a);
    }
}

/* Any cut into three parts, empty ones and single leaves included. */
static void every_cut_gives_the_tree(void **state)
{
    (void)state;
    for (int64_t leaves = 1; leaves <= 33; leaves++) {
        dr_arena a;
        dr_arena_init(&a);
        const char *want = expected_root(&a, leaves);
        for (int64_t i = 0; i <= leaves; i++) {
            for (int64_t j = i; j <= leaves; j++) {
                const int64_t bounds[] = {0, i, j, leaves};
                assert_string_equal(sum_in_parts(&a, leaves, 3, bounds), want);
            }
        }
        dr_arena_deinit(&a);
    }
}

static void every_leaf_alone_gives_the_tree(void **state)
{
    (void)state;
    int64_t bounds[MAX_LEAVES + 1];
    for (int64_t i = 0; i <= MAX_LEAVES; i++) {
        bounds[i] = i;
    }
    for (int leaves = 1; leaves <= MAX_LEAVES; leaves++) {
        dr_arena a;
        dr_arena_init(&a);
        assert_string_equal(sum_in_parts(&a, leaves, leaves, bounds), expected_root(&a, leaves));
        dr_arena_deinit(&a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(share_covers_all_leaves),
        cmocka_unit_test(a_known_tree),
        cmocka_unit_test(every_share_gives_the_tree),
        cmocka_unit_test(every_cut_gives_the_tree),
        cmocka_unit_test(every_leaf_alone_gives_the_tree),
    };
    return DR_TEST_MAIN("tree", tests);
}
