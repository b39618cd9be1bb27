/*
 * The reducer against a serial sum over the tree of dist/tree.h, bit for bit, on 1 to 4 ranks and
 * without MPI. MPI_Alltoallv is replaced here (MPI's profiling interface) to count exchanges, to
 * time the first one and to make one fail; dr_try_calloc is wrapped to measure the allocations.
 */
#include "base/arena.h"
#include "base/clock.h"
#include "dist/reducer.h"
#include "mpi_main.h"

#include <math.h>
#include <mpi.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static atomic_int n_exchanges;
static atomic_int failing_exchange; /* number of the one that fails; 0: none */
static _Atomic double first_exchange_s;

int MPI_Alltoallv(const void *send, const int *send_n, const int *send_at, MPI_Datatype send_type,
                  void *recv, const int *recv_n, const int *recv_at, MPI_Datatype recv_type,
                  MPI_Comm comm)
{
    const int i = atomic_fetch_add(&n_exchanges, 1) + 1;
    if (i == 1) {
        first_exchange_s = dr_now_s();
    }
    if (i == failing_exchange) {
        return MPI_ERR_OTHER;
    }
    return PMPI_Alltoallv(send, send_n, send_at, send_type, recv, recv_n, recv_at, recv_type, comm);
}

static size_t allocated_bytes;
dr_status __real_dr_try_calloc(size_t n, size_t size, void **out);
dr_status __wrap_dr_try_calloc(size_t n, size_t size, void **out);
dr_status __wrap_dr_try_calloc(size_t n, size_t size, void **out)
{
    allocated_bytes += n * size;
    return __real_dr_try_calloc(n, size, out);
}

static uint64_t mix(uint64_t x)
{
    x += 0x9E3779B97F4A7C15U;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9U;
    x = (x ^ x >> 27) * 0x94D049BB133111EBU;
    return x ^ x >> 31;
}

/* Signed values over 40 powers of two, so that another order of additions shows in the bits. */
static float leaf_value(int step, int64_t leaf, int64_t i)
{
    const uint64_t r = mix(mix(mix((uint64_t)step) ^ (uint64_t)leaf) ^ (uint64_t)i);
    const double mantissa = 1.0 + (double)(r >> 40) * 0x1p-24;
    return (float)ldexp((r & 1) != 0 ? mantissa : -mantissa, (int)(r >> 8 & 63) % 40 - 20);
}

/* Sum of node (level, index): left + right, or left alone where right has no leaves. */
static float node_sum(int64_t n_leaves, int step, int level, int64_t index, int64_t i)
{
    if (level == 0) {
        return leaf_value(step, index, i);
    }
    const float left = node_sum(n_leaves, step, level - 1, 2 * index, i);
    if ((2 * index + 1) << (level - 1) >= n_leaves) {
        return left;
    }
    return left + node_sum(n_leaves, step, level - 1, 2 * index + 1, i);
}

static float serial_sum(int64_t n_leaves, int step, int64_t i)
{
    int level = 0;
    while ((int64_t)1 << level < n_leaves) {
        level++;
    }
    return node_sum(n_leaves, step, level, 0, i);
}

typedef enum reporting { IN_PARTS, IN_ONE_GO, NOT_AT_ALL, UPPER_PART, N_REPORTINGS } reporting;

/* Backward of one leaf: writes each range just before it is reported, from the top down. */
static void run_leaf(dr_reducer *r, float *grads, int64_t n, int step, int64_t leaf, reporting how)
{
    int64_t end = n;
    memset(grads, 0, (size_t)n * sizeof *grads);
    for (int part = 0; end > 0; part++) {
        int64_t len = end;
        if (how == IN_PARTS || how == UPPER_PART) { /* parts differ from rank to rank */
            len = 1 + (int64_t)(mix((uint64_t)(leaf * 100 + part)) % (uint64_t)(n / 5 + 1));
            len = len < end ? len : end;
        }
        for (int64_t i = end - len; i < end; i++) {
            grads[i] = leaf_value(step, leaf, i);
        }
        if (how != NOT_AT_ALL && (how != UPPER_PART || end > n / 2)) {
            dr_reducer_ready(r, end - len, end);
        }
        end -= len;
    }
    dr_reducer_end_leaf(r);
}

static bool run_step(dr_reducer *r, float *grads, int64_t n, int step, reporting how)
{
    int64_t first;
    int64_t count;
    dr_reducer_leaves(r, &first, &count);
    dr_reducer_begin_step(r);
    for (int64_t leaf = first; leaf < first + count; leaf++) {
        run_leaf(r, grads, n, step, leaf, how);
    }
    return dr_reducer_wait(r) == DR_OK;
}

static int64_t count_wrong(const float *grads, int64_t n, int64_t n_leaves, int step)
{
    int64_t wrong = 0;
    for (int64_t i = 0; i < n; i++) {
        const float want = serial_sum(n_leaves, step, i);
        wrong += memcmp(&want, &grads[i], sizeof want) != 0 ? 1 : 0;
    }
    return wrong;
}

/* Several steps with every way of reporting; true when all bits are right on this rank. */
static bool sums_are_right(int64_t n_leaves, int64_t n, int64_t bucket)
{
    float *grads = dr_xcalloc((size_t)n, sizeof *grads);
    const dr_reducer_config c = {
        .n_leaves = n_leaves, .grads = grads, .n_elems = n, .bucket_elems = bucket};
    dr_reducer *r = NULL;
    allocated_bytes = 0;
    bool right = dr_reducer_create(dr_mpi_ranks, &c, &r) == DR_OK;
    if (allocated_bytes != dr_reducer_plan_bytes(dr_mpi_ranks, &c)) {
        print_error("%zu bytes are planned, %zu allocated\n",
                    dr_reducer_plan_bytes(dr_mpi_ranks, &c), allocated_bytes);
        right = false;
    }
    for (int step = 0; r != NULL && step < 2 * N_REPORTINGS; step++) {
        right = run_step(r, grads, n, step, (reporting)(step % N_REPORTINGS)) && right;
        const int64_t wrong = count_wrong(grads, n, n_leaves, step);
        if (wrong != 0) {
            print_error("%lld leaves, %lld elements, buckets of %lld, step %d: %lld are wrong\n",
                        (long long)n_leaves, (long long)n, (long long)bucket, step,
                        (long long)wrong);
            right = false;
        }
    }
    dr_reducer_destroy(r);
    free(grads);
    return right;
}

static void sums_in_tree_order(void **state)
{
    (void)state;
    static const int64_t sizes[][2] = {/* elements, bucket */
                                       {1, 1},     {3, 1},       {7, 2},    {65, 64},   {129, 10},
                                       {1537, 64}, {1537, 1536}, {1537, 0}, {777, 5000}};
    static const int64_t more_leaves[] = {16, 33};
    const int world = dr_dist_world(dr_mpi_ranks);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (int64_t leaves = world; leaves <= 9; leaves++) {
            assert_everywhere(sums_are_right(leaves, sizes[i][0], sizes[i][1]));
        }
        for (size_t k = 0; k < 2; k++) {
            assert_everywhere(sums_are_right(more_leaves[k], sizes[i][0], sizes[i][1]));
        }
    }
}

static void leaves_are_shared_in_order(void **state)
{
    (void)state;
    const int world = dr_dist_world(dr_mpi_ranks);
    float grads[4];
    dr_reducer *r = NULL;
    const dr_reducer_config c = {.n_leaves = 2 * world + 1, .grads = grads, .n_elems = 4};
    assert_everywhere(dr_reducer_create(dr_mpi_ranks, &c, &r) == DR_OK);
    int64_t range[2] = {0, 0};
    int64_t all[2 * 16];
    dr_reducer_leaves(r, &range[0], &range[1]);
    dr_reducer_destroy(r);
    assert_everywhere(world <= 16);
    assert_everywhere(dr_dist_allgather(dr_mpi_ranks, range, all, sizeof range) == DR_OK);
    int64_t next = 0;
    for (int q = 0; q < world; q++) {
        assert_everywhere(all[2 * q] == next && all[2 * q + 1] >= 2);
        next += all[2 * q + 1];
    }
    assert_everywhere(next == c.n_leaves);
}

static void fewer_leaves_than_ranks_are_refused(void **state)
{
    (void)state;
    float grads[4];
    dr_reducer *r = NULL;
    const dr_reducer_config c = {
        .n_leaves = dr_dist_world(dr_mpi_ranks) - 1, .grads = grads, .n_elems = 4};
    dr_error_clear();
    assert_everywhere(dr_reducer_create(dr_mpi_ranks, &c, &r) == DR_INVALID);
    assert_everywhere(strstr(dr_error_message(), "--virtual_shards") != NULL && r == NULL);
}

/* All ranks see the failure of one exchange, in this step and in later ones, and can still end. */
static void a_failed_exchange_reaches_wait(void **state)
{
    (void)state;
    const int world = dr_dist_world(dr_mpi_ranks);
    float grads[100];
    dr_reducer *r = NULL;
    const dr_reducer_config c = {
        .n_leaves = world, .grads = grads, .n_elems = 100, .bucket_elems = 30};
    assert_everywhere(dr_reducer_create(dr_mpi_ranks, &c, &r) == DR_OK);
    n_exchanges = 0;
    failing_exchange = 2;
    dr_error_clear();
    const bool done = run_step(r, grads, 100, 1, IN_ONE_GO);
    failing_exchange = 0;
    assert_everywhere(done == (world == 1));
    assert_everywhere(world == 1 || (dr_error_status() == DR_COMM &&
                                     strstr(dr_error_message(), "MPI_Alltoallv") != NULL));
    assert_everywhere(run_step(r, grads, 100, 2, IN_ONE_GO) == (world == 1));
    dr_reducer_destroy(r);
}

static void misuse_panics(void **state)
{
    (void)state;
    float grads[8];
    dr_reducer *r = NULL;
    const dr_reducer_config c = {
        .n_leaves = dr_dist_world(dr_mpi_ranks), .grads = grads, .n_elems = 8};
    assert_everywhere(dr_reducer_create(dr_mpi_ranks, &c, &r) == DR_OK);
    dr_reducer_begin_step(r);
    assert_panics(dr_reducer_ready(r, 2, 6));           /* leaves a gap above */
    assert_panics((void)(dr_reducer_wait(r) == DR_OK)); /* the leaf is not done */
    memset(grads, 0, sizeof grads);
    dr_reducer_end_leaf(r);
    assert_panics(dr_reducer_end_leaf(r)); /* there is no further leaf */
    assert_panics(dr_reducer_ready(r, 0, 0));
    assert_everywhere(dr_reducer_wait(r) == DR_OK);
    dr_reducer_destroy(r);
}

/* Control messages of the compute thread and exchanges of the other one do not mix. */
static void control_messages_pass_during_the_exchange(void **state)
{
    (void)state;
    enum { N = 4096 };
    const int world = dr_dist_world(dr_mpi_ranks);
    float *grads = dr_xcalloc(N, sizeof *grads);
    dr_reducer *r = NULL;
    const dr_reducer_config c = {
        .n_leaves = world, .grads = grads, .n_elems = N, .bucket_elems = 64};
    assert_everywhere(dr_reducer_create(dr_mpi_ranks, &c, &r) == DR_OK);
    bool right = true;
    dr_reducer_begin_step(r);
    for (int64_t end = N; end > 0; end -= 256) {
        for (int64_t i = end - 256; i < end; i++) {
            grads[i] = leaf_value(9, dr_dist_rank(dr_mpi_ranks), i);
        }
        dr_reducer_ready(r, end - 256, end);
        int64_t mine = end * (dr_dist_rank(dr_mpi_ranks) + 1);
        int64_t all[16] = {0};
        right = dr_dist_allgather(dr_mpi_ranks, &mine, all, sizeof mine) == DR_OK && right;
        for (int q = 0; q < world; q++) {
            right = right && all[q] == end * (q + 1);
        }
    }
    dr_reducer_end_leaf(r);
    right = dr_reducer_wait(r) == DR_OK && right;
    assert_everywhere(right && count_wrong(grads, N, world, 9) == 0);
    dr_reducer_destroy(r);
    free(grads);
}

/* Report only: how long before the end of backward the first exchange begins. */
static void measure_overlap(void **state)
{
    (void)state;
    enum { N = 1 << 20 };
    const struct timespec backward = {.tv_nsec = 100 * 1000 * 1000}; /* of the lower half */
    float *grads = dr_xcalloc(N, sizeof *grads);
    dr_reducer *r = NULL;
    const dr_reducer_config c = {.n_leaves = dr_dist_world(dr_mpi_ranks),
                                 .grads = grads,
                                 .n_elems = N,
                                 .bucket_elems = N / 16};
    assert_everywhere(dr_reducer_create(dr_mpi_ranks, &c, &r) == DR_OK);
    assert_everywhere(dr_dist_barrier(dr_mpi_ranks) == DR_OK);
    n_exchanges = 0;
    dr_reducer_begin_step(r);
    const double begin = dr_now_s();
    dr_reducer_ready(r, N / 2, N);
    (void)nanosleep(&backward, NULL);
    const int during = n_exchanges;
    dr_reducer_end_leaf(r);
    assert_everywhere(dr_reducer_wait(r) == DR_OK);
    const double end = dr_now_s();
    if (dr_dist_world(dr_mpi_ranks) > 1) {
        print_message("rank %d: first exchange after %.2f ms, %d of %d exchanges within 100 ms of "
                      "backward, step %.2f ms\n",
                      dr_dist_rank(dr_mpi_ranks), (first_exchange_s - begin) * 1e3, during,
                      (int)n_exchanges, (end - begin) * 1e3);
    }
    dr_reducer_destroy(r);
    free(grads);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(leaves_are_shared_in_order),
        cmocka_unit_test(fewer_leaves_than_ranks_are_refused),
        cmocka_unit_test(sums_in_tree_order),
        cmocka_unit_test(control_messages_pass_during_the_exchange),
        cmocka_unit_test(a_failed_exchange_reaches_wait),
        cmocka_unit_test(misuse_panics),
        cmocka_unit_test(measure_overlap),
    };
    return DR_MPI_MAIN("reducer", tests);
}
