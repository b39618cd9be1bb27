/*
 * Messages between two ranks, and dealing batches of pictures to all of them.
 */
#include "base/arena.h"
#include "dist/messages.h"
#include "mpi_main.h"
#include "train/latents/latents_work.h"

#include <stdlib.h>
#include <string.h>

enum { N_ENTRIES = 23, VALUES = 5000, BATCH = 3 };

static void messages_arrive_in_order(void **state)
{
    (void)state;
    int rank = dr_dist_rank(dr_mpi_ranks);
    int world = dr_dist_world(dr_mpi_ranks);
    int from = 0;
    size_t bytes = 0;
    bool good = true;
    if (rank > 0) { /* rank r: an empty message, then r numbers, the last one large */
        int64_t *data = dr_xcalloc(1 << 16, sizeof *data);
        data[7] = rank;
        good = dr_dist_send(dr_mpi_ranks, 0, data, 0) == DR_OK &&
               dr_dist_send(dr_mpi_ranks, 0, data, (1 << 16) * sizeof *data) == DR_OK;
        free(data);
    } else {
        int64_t *data = dr_xcalloc(1 << 16, sizeof *data);
        for (int r = world - 1; r > 0 && good; r--) {
            good = dr_dist_wait(dr_mpi_ranks, r, &from, &bytes) == DR_OK && from == r &&
                   bytes == 0 && dr_dist_receive(dr_mpi_ranks, r, data, 0) == DR_OK &&
                   dr_dist_wait(dr_mpi_ranks, r, &from, &bytes) == DR_OK &&
                   bytes == (1 << 16) * sizeof *data &&
                   dr_dist_receive(dr_mpi_ranks, r, data, bytes) == DR_OK && data[7] == r;
        }
        free(data);
    }
    good = good && dr_dist_poll(dr_mpi_ranks, -1, &from, &bytes) == DR_OK;
    assert_everywhere(good && (rank != 0 || from == -1));
}

typedef struct job {
    int fails_on;  /* entry; -1: none */
    int n_encoded; /* by this rank */
    int accepted[N_ENTRIES];
    bool right;
} job;

static size_t n_values(void *user, uint32_t entry)
{
    (void)user;
    return (size_t)VALUES + entry / BATCH;
}

static float value(uint32_t entry, size_t i)
{
    return (float)(entry * 7919 + i % 1000);
}

static dr_status encode(void *user, dr_encode_batch b, float *out)
{
    job *j = user;
    size_t n = n_values(user, b.entries[0]);
    for (uint32_t k = 0; k < b.n; k++) {
        if ((int)b.entries[k] == j->fails_on) {
            DR_FAIL(DR_NUMERIC, "entry %d is bad", j->fails_on);
        }
        for (size_t i = 0; i < n; i++) {
            out[k * n + i] = value(b.entries[k], i);
        }
        j->n_encoded++;
    }
    return DR_OK;
}

static dr_status accept(void *user, dr_encode_batch b, const float *values)
{
    job *j = user;
    size_t n = n_values(user, b.entries[0]);
    for (uint32_t k = 0; k < b.n; k++) {
        j->accepted[b.entries[k]]++;
        for (size_t i = 0; i < n; i++) {
            j->right = j->right && values[k * n + i] == value(b.entries[k], i);
        }
    }
    return DR_OK;
}

static dr_status deal(job *j, size_t n_batches)
{
    uint32_t entries[N_ENTRIES];
    dr_encode_batch batches[N_ENTRIES];
    for (uint32_t i = 0; i < N_ENTRIES; i++) {
        entries[i] = i;
        batches[i / BATCH] = (dr_encode_batch){entries + i / BATCH * BATCH, i % BATCH + 1};
    }
    const dr_encode_work w = {.batches = batches,
                              .n_batches = n_batches,
                              .max_entries = BATCH,
                              .n_values = n_values,
                              .encode = encode,
                              .accept = accept,
                              .max_values = (VALUES + N_ENTRIES) * (size_t)BATCH,
                              .user = j};
    return dr_dist_agree(dr_mpi_ranks, dr_encode_all(dr_mpi_ranks, &w));
}

static void every_entry_is_accepted_once(void **state)
{
    (void)state;
    job j = {.fails_on = -1, .right = true};
    assert_everywhere(deal(&j, (N_ENTRIES + BATCH - 1) / BATCH) == DR_OK);
    bool good = j.right;
    for (int i = 0; i < N_ENTRIES && dr_dist_rank(dr_mpi_ranks) == 0; i++) {
        good = good && j.accepted[i] == 1;
    }
    assert_everywhere(good);
    int all[16] = {0};
    int sum = 0;
    assert_everywhere(dr_dist_allgather(dr_mpi_ranks, &j.n_encoded, all, sizeof sum) == DR_OK);
    for (int r = 0; r < dr_dist_world(dr_mpi_ranks); r++) {
        sum += all[r];
    }
    assert_everywhere(sum == N_ENTRIES);
    job none = {.fails_on = -1, .right = true};
    assert_everywhere(deal(&none, 0) == DR_OK && none.n_encoded == 0);
}

static void a_failure_ends_the_work_everywhere(void **state)
{
    (void)state;
    for (int bad = 0; bad < N_ENTRIES; bad += 11) {
        job j = {.fails_on = bad, .right = true};
        dr_error_clear();
        dr_status st = deal(&j, (N_ENTRIES + BATCH - 1) / BATCH);
        assert_everywhere(st == DR_NUMERIC && strstr(dr_error_message(), " is bad") != NULL);
        assert_everywhere(j.right && j.accepted[bad] == 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_arrive_in_order),
        cmocka_unit_test(every_entry_is_accepted_once),
        cmocka_unit_test(a_failure_ends_the_work_everywhere),
    };
    return DR_MPI_MAIN("latents_work", tests);
}
