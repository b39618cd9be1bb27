/*
 * A program that was not started by mpirun: rank 0 of 1, MPI untouched; srun without PMIx refused.
 */
#include "dist/dist.h"
#include "dist/reducer.h"
#include "dr_test.h"

#include <mpi.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int forget_launchers(void **state)
{
    (void)state;
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_NAMESPACE", "SLURM_NTASKS",
                                        "SLURM_STEP_ID"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        assert_int_equal(unsetenv(names[i]), 0);
    }
    return 0;
}

static bool mpi_was_touched(void)
{
    int begun = 1;
    int ended = 1;
    assert_int_equal(MPI_Initialized(&begun), MPI_SUCCESS);
    assert_int_equal(MPI_Finalized(&ended), MPI_SUCCESS);
    return begun != 0 || ended != 0;
}

static void use_alone(dr_dist *d)
{
    int in = 5;
    int out = 0;
    size_t bytes = sizeof in;
    assert_int_equal(dr_dist_rank(d), 0);
    assert_int_equal(dr_dist_world(d), 1);
    assert_int_equal(dr_dist_local_rank(d), 0);
    assert_int_equal(dr_dist_local_world(d), 1);
    assert_ok(dr_dist_barrier(d));
    assert_ok(dr_dist_bcast(d, &in, sizeof in, 0));
    assert_ok(dr_dist_allgather(d, &in, &out, sizeof in));
    assert_int_equal(out, 5);
    out = 0;
    assert_ok(dr_dist_gatherv(d, &in, sizeof in, &out, &bytes));
    assert_int_equal(out, 5);
    assert_ok(dr_dist_agree(d, DR_OK));
    assert_int_equal(dr_dist_agree(d, DR_IO), DR_IO);
    assert_ok(dr_dist_check_equal(d, &in, sizeof in, "number"));
}

static void alone_never_touches_mpi(void **state)
{
    (void)state;
    dr_dist *d = NULL;
    assert_ok(dr_dist_init(&d));
    use_alone(d);
    float grads[3] = {1.0F, 2.0F, 3.0F};
    dr_reducer *r = NULL;
    const dr_reducer_config c = {.n_leaves = 1, .grads = grads, .n_elems = 3};
    assert_int_equal(dr_reducer_plan_bytes(d, &c), 0);
    assert_ok(dr_reducer_create(d, &c, &r));
    dr_reducer_begin_step(r);
    dr_reducer_ready(r, 1, 3);
    dr_reducer_end_leaf(r);
    assert_ok(dr_reducer_wait(r));
    dr_reducer_destroy(r);
    dr_dist_finalize(d);
    dr_dist_finalize(NULL);
    assert_false(mpi_was_touched());
}

static void one_slurm_task_needs_no_pmix(void **state)
{
    (void)state;
    dr_dist *d = NULL;
    assert_int_equal(setenv("SLURM_STEP_ID", "0", 1), 0);
    assert_int_equal(setenv("SLURM_NTASKS", "1", 1), 0);
    assert_ok(dr_dist_init(&d));
    assert_int_equal(dr_dist_world(d), 1);
    dr_dist_finalize(d);
    assert_false(mpi_was_touched());
}

/* An allocation's shell (salloc) has SLURM_NTASKS but is no step: it may run alone. */
static void an_allocation_without_a_step_runs_alone(void **state)
{
    (void)state;
    dr_dist *d = NULL;
    assert_int_equal(setenv("SLURM_NTASKS", "8", 1), 0);
    assert_ok(dr_dist_init(&d));
    dr_dist_finalize(d);
    assert_false(mpi_was_touched());
}

static void srun_without_pmix_is_refused(void **state)
{
    (void)state;
    dr_dist *d = NULL;
    assert_int_equal(setenv("SLURM_STEP_ID", "0", 1), 0);
    assert_int_equal(setenv("SLURM_NTASKS", "8", 1), 0);
    assert_error(dr_dist_init(&d), DR_DEVICE, "one of 8 tasks");
    assert_error(DR_DEVICE, DR_DEVICE, "srun --mpi=pmix");
    assert_null(d);
    assert_false(mpi_was_touched());
}

static void abort_ends_with_the_exit_code(void **state)
{
    (void)state;
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dr_dist *d = NULL;
        if (dr_dist_init(&d) != DR_OK) {
            _exit(1);
        }
        dr_dist_abort(d, dr_error_set(DR_NUMERIC, __FILE__, __LINE__, "expected in this test"));
    }
    int st = 0;
    assert_int_equal(waitpid(child, &st, 0), child);
    assert_true(WIFEXITED(st));
    assert_int_equal(WEXITSTATUS(st), 76);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(alone_never_touches_mpi, forget_launchers),
        cmocka_unit_test_setup(one_slurm_task_needs_no_pmix, forget_launchers),
        cmocka_unit_test_setup(an_allocation_without_a_step_runs_alone, forget_launchers),
        cmocka_unit_test_setup(srun_without_pmix_is_refused, forget_launchers),
        cmocka_unit_test_setup(abort_ends_with_the_exit_code, forget_launchers),
    };
    return DR_TEST_MAIN("dist alone", tests);
}
