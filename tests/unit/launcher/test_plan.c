#include "dr_test.h"

#include "launcher/plan.h"

#include <string.h>

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static bool all_programs(const char *path)
{
    return strstr(path, "network") == NULL;
}

static bool no_program(const char *path)
{
    (void)path;
    return false;
}

static const char *const plain_env[] = {"HOME=/home/u", "PATH=/usr/bin", NULL};

static dr_launch_facts machine(void)
{
    return (dr_launch_facts){.n_cpus = 16,
                             .n_cores = 8,
                             .mpirun = "/usr/bin/mpirun",
                             .bin_dir = "/opt/bin",
                             .env = plain_env,
                             .can_run = all_programs};
}

static dr_status make(dr_launch_plan *p, const dr_launch_facts *f, const char *const *argv)
{
    int argc = 0;
    while (argv[argc] != NULL) {
        argc++;
    }
    return dr_launch_plan_make(p, f, argc, argv);
}

static void expect_line(const dr_launch_facts *f, const char *const *argv, const char *line)
{
    dr_launch_plan p;
    assert_ok(make(&p, f, argv));
    dr_str text = {0};
    dr_launch_plan_print(&p, &text);
    assert_string_equal(dr_str_get(&text), line);
    dr_str_free(&text);
    dr_launch_plan_deinit(&p);
}

static void expect_error(const dr_launch_facts *f, const char *const *argv, dr_status want,
                         const char *text)
{
    dr_launch_plan p;
    assert_error(make(&p, f, argv), want, text);
    dr_launch_plan_deinit(&p);
}

#define MPIRUN_2                                                                                   \
    "/usr/bin/mpirun -n 2 --bind-to none --mca btl ^tcp,openib --mca mpi_yield_when_idle 1 "

static void one_rank_is_the_trainer_in_place(void **state)
{
    (void)state;
    dr_launch_facts f = machine();
    expect_line(&f, WORDS("train_db", "--v2"),
                "env OMP_NUM_THREADS=8 DREAMRUN_THREADS=8 /opt/bin/train_db --v2\n");
    expect_line(&f,
                WORDS("--cpu", "--num_cpu_threads_per_process", "3", "a/train_db.py", "--x", "y z"),
                "env OMP_NUM_THREADS=3 DREAMRUN_THREADS=3 /opt/bin/train_db --x 'y z'\n");
    f.mpirun = NULL; /* is not needed */
    expect_line(&f, WORDS("--num_processes=1", "--", "train_db"),
                "env OMP_NUM_THREADS=8 DREAMRUN_THREADS=8 /opt/bin/train_db\n");
}

static void more_ranks_go_through_mpirun(void **state)
{
    (void)state;
    dr_launch_facts f = machine();
    expect_line(&f, WORDS("--num-processes", "2", "train_db", "--num_processes", "9"),
                "env OMP_NUM_THREADS=4 DREAMRUN_THREADS=4 " MPIRUN_2
                "/opt/bin/train_db --num_processes 9\n");
    f.is_root = true;
    expect_line(&f, WORDS("--num_processes=2", "train_db"),
                "env OMP_NUM_THREADS=4 DREAMRUN_THREADS=4 OMPI_ALLOW_RUN_AS_ROOT=1 "
                "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 " MPIRUN_2 "/opt/bin/train_db\n");
    f.is_root = false;
    expect_line(&f,
                WORDS("--num_processes=9", "-q", "--mca", "btl", "self,vader", "--mca", "x", "1",
                      "train_db"),
                "env OMP_NUM_THREADS=1 DREAMRUN_THREADS=1 /usr/bin/mpirun -n 9 --bind-to none "
                "--oversubscribe -q --mca mpi_yield_when_idle 1 --mca btl self,vader --mca x 1 "
                "/opt/bin/train_db\n");
    expect_line(&f, WORDS("--launcher=mpirun", "--oversubscribe", "train_db"),
                "env OMP_NUM_THREADS=8 DREAMRUN_THREADS=8 /usr/bin/mpirun -n 1 --bind-to none "
                "--oversubscribe --mca btl ^tcp,openib --mca mpi_yield_when_idle 1 "
                "/opt/bin/train_db\n");
    f.mpirun = NULL;
    expect_error(&f, WORDS("--num_processes=2", "train_db"), DR_DEVICE, "apt install openmpi-bin");
}

static void threads_come_from_option_environment_or_cores(void **state)
{
    (void)state;
    static const char *const env[] = {"OMP_NUM_THREADS=5", "SLURM_CPUS_PER_TASK=6", NULL};
    dr_launch_facts f = machine();
    dr_launch_plan p;
    f.env = env;
    static const struct {
        const char *option;
        int want;
    } cases[] = {{"--quiet", 5},
                 {"--num_cpu_threads_per_process=2", 2},
                 {"--num_cpu_threads_per_process=0", 6}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_ok(make(&p, &f, WORDS(cases[i].option, "train_db")));
        assert_int_equal(p.n_threads, cases[i].want);
        assert_int_equal(p.env.n, 3); /* OMP_NUM_THREADS once, SLURM_..., DREAMRUN_THREADS */
        dr_launch_plan_deinit(&p);
    }
}

static void threads_beyond_the_cpus_wait_without_spinning(void **state)
{
    (void)state;
    static const char *const env[] = {"OMP_WAIT_POLICY=active", NULL};
    dr_launch_facts f = machine();
    const char *const *words =
        WORDS("--num_processes=2", "-q", "--num_cpu_threads_per_process=9", "train_db");
    expect_line(&f, words,
                "env OMP_NUM_THREADS=9 DREAMRUN_THREADS=9 OMP_WAIT_POLICY=passive /usr/bin/mpirun "
                "-n 2 --bind-to none -q --mca btl ^tcp,openib --mca mpi_yield_when_idle 1 "
                "/opt/bin/train_db\n");
    f.env = env; /* the user's choice stands */
    dr_launch_plan p;
    assert_ok(make(&p, &f, words));
    assert_int_equal(p.env.n, 3);
    dr_launch_plan_deinit(&p);
}

static void stale_job_variables_are_taken_out(void **state)
{
    (void)state;
    static const char *const env[] = {"A=1",
                                      "OMPI_UNIVERSE_SIZE=2",
                                      "OMPI_MCA_orte_hnp_uri=x",
                                      "OMPI_MCA_btl=self,vader",
                                      "PMIX_RANK=0",
                                      "PMIX_MCA_gds=hash",
                                      "PMI_FD=3",
                                      "SLURM_PROCID=0",
                                      "SLURM_JOB_ID=7",
                                      "OMPI_ALLOW_RUN_AS_ROOT=1",
                                      NULL};
    dr_launch_facts f = machine();
    dr_launch_plan p;
    f.env = env;
    assert_ok(make(&p, &f, WORDS("--num_processes=2", "train_db")));
    static const char *const kept[] = {"A=1",
                                       "OMPI_MCA_btl=self,vader",
                                       "PMIX_MCA_gds=hash",
                                       "SLURM_JOB_ID=7",
                                       "OMPI_ALLOW_RUN_AS_ROOT=1",
                                       "OMP_NUM_THREADS=4",
                                       "DREAMRUN_THREADS=4"};
    assert_int_equal(p.env.n, sizeof kept / sizeof *kept);
    for (size_t i = 0; i < p.env.n; i++) {
        assert_string_equal(p.env.at[i], kept[i]);
    }
    static const char *const gone[] = {"OMPI_UNIVERSE_SIZE", "OMPI_MCA_orte_hnp_uri", "PMIX_RANK",
                                       "PMI_FD", "SLURM_PROCID"};
    assert_int_equal(p.unset.n, sizeof gone / sizeof *gone);
    for (size_t i = 0; i < p.unset.n; i++) {
        assert_string_equal(p.unset.at[i], gone[i]);
    }
    dr_str line = {0};
    dr_launch_plan_print(&p, &line);
    assert_non_null(
        strstr(dr_str_get(&line), "env -u OMPI_UNIVERSE_SIZE -u OMPI_MCA_orte_hnp_uri "));
    assert_null(strstr(dr_str_get(&line), "btl ^tcp")); /* the user's own OMPI_MCA_btl holds */
    dr_str_free(&line);
    dr_launch_plan_deinit(&p);
}

static void inside_a_job_it_is_a_rank(void **state)
{
    (void)state;
    static const char *const mpirun_env[] = {"OMPI_COMM_WORLD_SIZE=4", "OMPI_COMM_WORLD_RANK=1",
                                             "SLURM_NTASKS=1", NULL};
    static const char *const srun_env[] = {"SLURM_STEP_ID=0", "PMIX_NAMESPACE=slurm.pmix.7.0",
                                           "SLURM_NTASKS=6", NULL};
    dr_launch_facts f = machine();
    dr_launch_plan p;
    f.env = mpirun_env;
    expect_line(&f, WORDS("train_db", "--v2"), "env /opt/bin/train_db --v2\n");
    assert_ok(make(&p, &f, WORDS("--num_processes=4", "train_db")));
    assert_true(p.is_rank && !p.supervised && p.n_ranks == 4 && p.env.n == 3);
    dr_launch_plan_deinit(&p);
    expect_error(&f, WORDS("--num_processes=2", "train_db"), DR_INVALID,
                 "found 2, but this process was started by mpirun or srun with 4 ranks");
    f.env = srun_env;
    assert_ok(make(&p, &f, WORDS("train_db")));
    assert_true(p.is_rank && p.n_ranks == 6);
    dr_launch_plan_deinit(&p);
}

static void precision_is_passed_on_once(void **state)
{
    (void)state;
    dr_launch_facts f = machine();
    expect_line(&f, WORDS("--mixed_precision=bf16", "train_db", "--v2"),
                "env OMP_NUM_THREADS=8 DREAMRUN_THREADS=8 /opt/bin/train_db --mixed_precision=bf16 "
                "--v2\n");
    expect_line(&f, WORDS("--mixed_precision=bf16", "train_db", "--mixed_prec", "bf16"),
                "env OMP_NUM_THREADS=8 DREAMRUN_THREADS=8 /opt/bin/train_db --mixed_prec bf16\n");
    expect_error(&f, WORDS("--mixed_precision", "no", "train_db", "--mixed_precision=fp16"),
                 DR_INVALID, "found no for dreamrun launch and fp16 for train_db");
    expect_error(&f, WORDS("--mixed_precision", "fp8", "train_db"), DR_UNSUPPORTED,
                 "--mixed_precision fp8 is not available yet; available: no, fp16, bf16");
}

static void wrong_use_is_named(void **state)
{
    (void)state;
    dr_launch_facts f = machine();
    expect_error(&f, WORDS("--cpu"), DR_INVALID, "no program given; expected train_db");
    expect_error(&f, WORDS("sdxl_train.py"), DR_INVALID, "found program 'sdxl_train.py'");
    expect_error(&f, WORDS("--num_proces", "2", "train_db"), DR_INVALID,
                 "unknown option --num_proces; did you mean --num_processes?");
    expect_error(&f, WORDS("--num_processes", "0", "train_db"), DR_INVALID,
                 "--num_processes: found 0, expected a value in 1..4096 ranks");
    expect_error(&f, WORDS("--num_processes", "train_db"), DR_INVALID,
                 "--num_processes: found 'train_db', expected a whole number");
    expect_error(&f, WORDS("--launcher=none", "--num_processes=2", "train_db"), DR_INVALID,
                 "--launcher none starts one rank, found --num_processes 2");
    expect_error(&f, WORDS("--launcher=srun", "train_db"), DR_UNSUPPORTED,
                 "--launcher srun is not available yet; available: auto, mpirun, none");
    expect_error(&f, WORDS("--num_machines=2", "train_db"), DR_UNSUPPORTED,
                 "--num_machines is not available yet");
    expect_error(&f, WORDS("--multi_gpu", "train_db"), DR_UNSUPPORTED, "this build trains on CPUs");
    expect_error(&f, WORDS("--use_deepspeed", "train_db"), DR_UNSUPPORTED, "--use_deepspeed");
    expect_error(&f, WORDS("--fsdp_version=2", "train_db"), DR_UNSUPPORTED,
                 "--fsdp_version is not supported: there is no FSDP here");
    expect_error(&f, WORDS("--dynamo_backend=inductor", "train_db"), DR_UNSUPPORTED,
                 "there is no graph compiler here");
    f.can_run = no_program;
    expect_error(&f, WORDS("train_db"), DR_IO, "/opt/bin/train_db: there is no such program");
}

static void accelerate_defaults_are_accepted(void **state)
{
    (void)state;
    dr_launch_facts f = machine();
    expect_line(&f,
                WORDS("--num_machines=1", "--dynamo_backend", "no", "--main_process_port", "29500",
                      "--machine_rank", "0", "-m", "--max_restarts=0", "-t", "0", "train_db"),
                "env OMP_NUM_THREADS=8 DREAMRUN_THREADS=8 /opt/bin/train_db\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_rank_is_the_trainer_in_place),
        cmocka_unit_test(more_ranks_go_through_mpirun),
        cmocka_unit_test(threads_come_from_option_environment_or_cores),
        cmocka_unit_test(threads_beyond_the_cpus_wait_without_spinning),
        cmocka_unit_test(stale_job_variables_are_taken_out),
        cmocka_unit_test(inside_a_job_it_is_a_rank),
        cmocka_unit_test(precision_is_passed_on_once),
        cmocka_unit_test(wrong_use_is_named),
        cmocka_unit_test(accelerate_defaults_are_accepted),
    };
    return DR_TEST_MAIN("plan", tests);
}
