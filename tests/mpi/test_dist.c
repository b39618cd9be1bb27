/*
 * Control messages on 1 to 4 ranks, and without MPI at all.
 */
#include "base/arena.h"
#include "mpi_main.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_RANKS = 16, BIG = 3000001 };

static int rank(void)
{
    return dr_dist_rank(dr_mpi_ranks);
}

static int world(void)
{
    return dr_dist_world(dr_mpi_ranks);
}

/* Byte i of what a rank sends. */
static unsigned char pattern(int of_rank, size_t i)
{
    return (unsigned char)(31U * (unsigned)of_rank + 7U * i + i / 251U);
}

static void knows_its_place(void **state)
{
    (void)state;
    const char *size = getenv("OMPI_COMM_WORLD_SIZE");
    int on = 0;
    assert_int_equal(MPI_Initialized(&on), MPI_SUCCESS);
    assert_int_equal(on, size != NULL);
    assert_everywhere(world() == (size != NULL ? (int)strtol(size, NULL, 10) : 1));
    assert_everywhere(rank() >= 0 && rank() < world());
    /* the tests run on one host */
    assert_everywhere(dr_dist_local_rank(dr_mpi_ranks) == rank());
    assert_everywhere(dr_dist_local_world(dr_mpi_ranks) == world());
}

static bool bcast_is_right(int root, size_t n)
{
    unsigned char *data = dr_xcalloc(n + 1, 1);
    for (size_t i = 0; i < n; i++) {
        data[i] = rank() == root ? pattern(root, i) : 0;
    }
    data[n] = 77;
    bool right = dr_dist_bcast(dr_mpi_ranks, data, n, root) == DR_OK && data[n] == 77;
    for (size_t i = 0; i < n; i++) {
        right = right && data[i] == pattern(root, i);
    }
    free(data);
    return right;
}

static void bcast_from_every_root(void **state)
{
    (void)state;
    for (int root = 0; root < world(); root++) {
        assert_everywhere(bcast_is_right(root, 0));
        assert_everywhere(bcast_is_right(root, 1));
        assert_everywhere(bcast_is_right(root, 1000));
        assert_everywhere(bcast_is_right(root, BIG));
    }
}

static bool allgather_is_right(size_t n)
{
    const size_t ranks = (size_t)world();
    unsigned char *in = dr_xcalloc(n + 1, 1);
    unsigned char *out = dr_xcalloc(n * ranks + 1, 1);
    for (size_t i = 0; i < n; i++) {
        in[i] = pattern(rank(), i);
    }
    out[n * ranks] = 77;
    bool right = dr_dist_allgather(dr_mpi_ranks, in, out, n) == DR_OK && out[n * ranks] == 77;
    for (size_t i = 0; i < n * ranks; i++) {
        right = right && out[i] == pattern((int)(i / n), i % n);
    }
    free(in);
    free(out);
    return right;
}

static void allgather_in_rank_order(void **state)
{
    (void)state;
    assert_everywhere(allgather_is_right(1));
    assert_everywhere(allgather_is_right(16));
    assert_everywhere(allgather_is_right(100003));
}

/* Rank r sends step * (r + 1) bytes; rank `empty` sends none. */
static bool gatherv_is_right(size_t step, int empty)
{
    size_t bytes[MAX_RANKS];
    size_t total = 0;
    for (int r = 0; r < world(); r++) {
        bytes[r] = r == empty ? 0 : step * (size_t)(r + 1);
        total += bytes[r];
    }
    const size_t n = bytes[rank()];
    unsigned char *in = dr_xcalloc(n + 1, 1);
    unsigned char *out = rank() == 0 ? dr_xcalloc(total + 1, 1) : NULL;
    for (size_t i = 0; i < n; i++) {
        in[i] = pattern(rank(), i);
    }
    bool right = dr_dist_gatherv(dr_mpi_ranks, in, n, out, rank() == 0 ? bytes : NULL) == DR_OK;
    size_t at = 0;
    for (int r = 0; out != NULL && r < world(); r++) {
        for (size_t i = 0; i < bytes[r]; i++) {
            right = right && out[at++] == pattern(r, i);
        }
    }
    free(in);
    free(out);
    return right;
}

static void gatherv_of_unequal_parts(void **state)
{
    (void)state;
    assert_true(world() <= MAX_RANKS);
    for (int empty = -1; empty < world(); empty++) {
        assert_everywhere(gatherv_is_right(1, empty));
        assert_everywhere(gatherv_is_right(70001, empty));
    }
}

static void agree_keeps_ok(void **state)
{
    (void)state;
    dr_error_clear();
    assert_everywhere(dr_dist_agree(dr_mpi_ranks, DR_OK) == DR_OK);
    assert_everywhere(dr_error_status() == DR_OK);
    assert_everywhere(dr_dist_barrier(dr_mpi_ranks) == DR_OK);
}

/* Ranks in the bit set fail, each with a status and a message of its own. */
static void agree_for_set(unsigned failing)
{
    static const dr_status kinds[] = {DR_FORMAT, DR_IO, DR_NUMERIC, DR_NOMEM};
    char want[64];
    int first = 0;
    while ((failing >> first & 1U) == 0) {
        first++;
    }
    (void)snprintf(want, sizeof want, "picture of rank %d is broken", first);
    dr_error_clear();
    dr_status mine = DR_OK;
    if ((failing >> rank() & 1U) != 0) {
        mine = dr_error_set(kinds[rank() % 4], __FILE__, __LINE__, "picture of rank %d is broken",
                            rank());
    }
    const dr_status st = dr_dist_agree(dr_mpi_ranks, mine);
    assert_everywhere(st == kinds[first % 4]);
    assert_everywhere(dr_error_status() == st);
    assert_everywhere(strcmp(dr_error_message(), want) == 0);
}

static void agree_spreads_the_first_record(void **state)
{
    (void)state;
    for (unsigned failing = 1; failing < 1U << world(); failing++) {
        agree_for_set(failing);
    }
}

/* A status that was never written into the record must not turn into DR_OK on the way. */
static void agree_takes_a_status_without_record(void **state)
{
    (void)state;
    dr_error_clear();
    const dr_status mine = rank() + 1 == world() ? DR_CANCELLED : DR_OK;
    assert_everywhere(dr_dist_agree(dr_mpi_ranks, mine) == DR_CANCELLED);
}

static void check_equal_names_the_odd_rank(void **state)
{
    (void)state;
    int data[3] = {1, 2, 3};
    assert_everywhere(dr_dist_check_equal(dr_mpi_ranks, data, sizeof data, "option set") == DR_OK);
    assert_everywhere(dr_dist_check_equal(dr_mpi_ranks, data, 0, "option set") == DR_OK);
    for (int odd = 0; world() > 1 && odd < world(); odd++) {
        char want[64];
        data[2] = rank() == odd ? 4 : 3;
        dr_error_clear();
        (void)snprintf(want, sizeof want, "rank %d has another option set", odd == 0 ? 1 : odd);
        const dr_status st = dr_dist_check_equal(dr_mpi_ranks, data, sizeof data, "option set");
        assert_everywhere(st == DR_INVALID);
        assert_everywhere(strstr(dr_error_message(), want) != NULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(knows_its_place),
        cmocka_unit_test(bcast_from_every_root),
        cmocka_unit_test(allgather_in_rank_order),
        cmocka_unit_test(gatherv_of_unequal_parts),
        cmocka_unit_test(agree_keeps_ok),
        cmocka_unit_test(agree_spreads_the_first_record),
        cmocka_unit_test(agree_takes_a_status_without_record),
        cmocka_unit_test(check_equal_names_the_odd_rank),
    };
    return DR_MPI_MAIN("dist", tests);
}
