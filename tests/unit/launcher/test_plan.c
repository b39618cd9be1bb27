#include "dr_test.h"

#include "base/file.h"
#include "launcher/plan.h"

#include <stdio.h>
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
    "/usr/bin/mpirun -n 2 --bind-to none --mca btl ^tcp,openib --mca mpi_yield_when_idle 1 "       \
    "/opt/bin/dreamrun agent "
#define ALONE    "DREAMRUN_HANG_TIMEOUT=auto DREAMRUN_WORLD=1 "
#define BELOW(n) "DREAMRUN_HANG_TIMEOUT=auto DREAMRUN_WORLD=" n " DREAMRUN_ATTEMPT=1 "

static void one_rank_is_the_trainer_in_place(void **state)
{
    (void)state;
    dr_launch_facts f = machine();
    expect_line(&f, WORDS("train_db", "--v2"),
                "env OMP_NUM_THREADS=8 DREAMRUN_THREADS=8 " ALONE "/opt/bin/train_db --v2\n");
    expect_line(&f,
                WORDS("--cpu", "--num_cpu_threads_per_process", "3", "a/train_db.py", "--x", "y z"),
                "env OMP_NUM_THREADS=3 DREAMRUN_THREADS=3 " ALONE "/opt/bin/train_db --x 'y z'\n");
    f.mpirun = NULL; /* is not needed */
    expect_line(&f, WORDS("--num_processes=1", "--", "train_db"),
                "env OMP_NUM_THREADS=8 DREAMRUN_THREADS=8 " ALONE "/opt/bin/train_db\n");
}

static void more_ranks_go_through_mpirun(void **state)
{
    (void)state;
    dr_launch_facts f = machine();
    expect_line(&f, WORDS("--num-processes", "2", "train_db", "--num_processes", "9"),
                "env OMP_NUM_THREADS=4 DREAMRUN_THREADS=4 " BELOW("2") MPIRUN_2
                "/opt/bin/train_db --num_processes 9\n");
    f.is_root = true;
    expect_line(&f, WORDS("--num_processes=2", "train_db"),
                "env OMP_NUM_THREADS=4 DREAMRUN_THREADS=4 " BELOW(
                    "2") "OMPI_ALLOW_RUN_AS_ROOT=1 "
                         "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 " MPIRUN_2 "/opt/bin/train_db\n");
    f.is_root = false;
    expect_line(
        &f,
        WORDS("--num_processes=9", "-q", "--mca", "btl", "self,vader", "--mca", "x", "1",
              "train_db"),
        "env OMP_NUM_THREADS=1 DREAMRUN_THREADS=1 " BELOW(
            "9") "/usr/bin/mpirun -n 9 --bind-to none "
                 "--oversubscribe --mca mpi_yield_when_idle 1 --mca btl self,vader --mca x 1 "
                 "/opt/bin/dreamrun agent /opt/bin/train_db\n");
    expect_line(&f, WORDS("--launcher=mpirun", "--oversubscribe", "train_db"),
                "env OMP_NUM_THREADS=8 DREAMRUN_THREADS=8 " BELOW(
                    "1") "/usr/bin/mpirun -n 1 --bind-to none "
                         "--oversubscribe --mca btl ^tcp,openib --mca mpi_yield_when_idle 1 "
                         "/opt/bin/dreamrun agent /opt/bin/train_db\n");
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
        assert_int_equal(p.env.n, 5); /* OMP_NUM_THREADS once, SLURM_..., DREAMRUN_... */
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
                "env OMP_NUM_THREADS=9 DREAMRUN_THREADS=9 OMP_WAIT_POLICY=passive " BELOW("2")
                    MPIRUN_2 "/opt/bin/train_db\n");
    f.env = env; /* the user's choice stands */
    dr_launch_plan p;
    assert_ok(make(&p, &f, words));
    assert_string_equal(p.env.at[0], "OMP_WAIT_POLICY=active");
    assert_int_equal(p.env.n, 6);
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
                                       "DREAMRUN_THREADS=4",
                                       "DREAMRUN_HANG_TIMEOUT=auto",
                                       "DREAMRUN_WORLD=2",
                                       "DREAMRUN_ATTEMPT=1"};
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
    static const char *const srun_env[] = {"SLURM_JOB_ID=7", "SLURM_STEP_ID=0",
                                           "PMIX_NAMESPACE=slurm.pmix.7.0", "SLURM_NTASKS=6", NULL};
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
                "env OMP_NUM_THREADS=8 DREAMRUN_THREADS=8 " ALONE
                "/opt/bin/train_db --mixed_precision=bf16 "
                "--v2\n");
    expect_line(&f, WORDS("--mixed_precision=bf16", "train_db", "--mixed_prec", "bf16"),
                "env OMP_NUM_THREADS=8 DREAMRUN_THREADS=8 " ALONE
                "/opt/bin/train_db --mixed_prec bf16\n");
    expect_line(&f, WORDS("--mixed_precision=bf16", "dreamrun_selftest", "folder"),
                "env OMP_NUM_THREADS=8 DREAMRUN_THREADS=8 " ALONE
                "/opt/bin/dreamrun_selftest folder\n"); /* it has no such option */
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
    expect_error(&f, WORDS("--launcher=srun", "train_db"), DR_INVALID,
                 "--launcher srun works inside an allocation of Slurm");
    expect_error(&f, WORDS("--launcher=fork", "train_db"), DR_UNSUPPORTED,
                 "--launcher fork is not available: ranks talk to each other through MPI");
    expect_error(&f, WORDS("--num_machines=2", "train_db"), DR_INVALID, "which machines?");
    expect_error(&f, WORDS("--multi_gpu", "train_db"), DR_INVALID,
                 "needs at least 2 ranks, found 1");
    expect_error(&f, WORDS("--multi_gpu", "--cpu", "--num_processes=2", "train_db"), DR_INVALID,
                 "exclude each other");
    expect_error(&f, WORDS("--cpu", "train_db", "--device=cuda"), DR_INVALID, "contradict");
    expect_error(&f, WORDS("--num_processes=2", "--min_processes=3", "train_db"), DR_INVALID,
                 "--min_processes 3 is more than the 2 ranks (command line)");
    expect_error(&f, WORDS("--num_processes=2", "--backend=none", "train_db"), DR_INVALID,
                 "--backend none is for one rank");
    expect_error(&f, WORDS("--gpu_ids=0,x", "train_db"), DR_INVALID, "--gpu_ids: found '0,x'");
    expect_error(&f, WORDS("--tee=4", "train_db"), DR_INVALID, "--tee: found '4'");
    expect_error(&f, WORDS("--signal_save=KILL", "train_db"), DR_INVALID, "--signal_save");
    expect_error(&f, WORDS("--rdzv_conf=x=1", "train_db"), DR_INVALID, "--rdzv_conf");
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
                "env OMP_NUM_THREADS=8 DREAMRUN_THREADS=8 " ALONE "/opt/bin/train_db\n");
}

#define MEETING "--num_machines=3", "--main_process_ip=10.0.0.1"

static void machines_meet(void **state)
{
    (void)state;
    dr_launch_facts f = machine();
    f.host = "a";
    /* the names of machines that have not come stand in for their addresses */
    expect_line(
        &f, WORDS(MEETING, "--machine_rank=0", "--num_processes=5", "train_db"),
        "env OMP_NUM_THREADS=4 DREAMRUN_THREADS=4 " BELOW(
            "5") "/usr/bin/mpirun -n 5 --bind-to none --host a:2,MACHINE_1:2,MACHINE_2:1 "
                 "--mca plm_rsh_agent '/opt/bin/dreamrun relay' --mca plm_rsh_num_concurrent 128 "
                 "--mca plm_rsh_no_tree_spawn 1 --mca orte_leave_session_attached 1 "
                 "--mca oob_tcp_keepalive_time 3 --mca oob_tcp_keepalive_intvl 1 "
                 "--mca oob_tcp_keepalive_probes 3 -x OMP_NUM_THREADS -x DREAMRUN_THREADS "
                 "-x DREAMRUN_HANG_TIMEOUT -x DREAMRUN_WORLD -x DREAMRUN_ATTEMPT "
                 "-x DREAMRUN_SUPERVISOR -x DREAMRUN_TOKEN "
                 "--mca mpi_yield_when_idle 1 /opt/bin/dreamrun agent /opt/bin/train_db\n");
    f.mpirun_is_v5 = true;
    expect_line(&f, WORDS(MEETING, "--machine_rank=0", "--interface=e0", "train_db"),
                "env OMP_NUM_THREADS=8 DREAMRUN_THREADS=8 " BELOW(
                    "3") "NCCL_SOCKET_IFNAME=e0 /usr/bin/mpirun -n 3 --bind-to none "
                         "--host a:1,MACHINE_1:1,MACHINE_2:1 "
                         "--prtemca plm_ssh_agent '/opt/bin/dreamrun relay' "
                         "--prtemca plm_ssh_num_concurrent 128 --prtemca plm_ssh_no_tree_spawn 1 "
                         "--prtemca prte_leave_session_attached 1 --mca btl_tcp_if_include e0 "
                         "--prtemca prte_if_include e0 -x OMP_NUM_THREADS -x DREAMRUN_THREADS "
                         "-x DREAMRUN_HANG_TIMEOUT -x DREAMRUN_WORLD -x DREAMRUN_ATTEMPT "
                         "-x NCCL_SOCKET_IFNAME -x DREAMRUN_SUPERVISOR -x DREAMRUN_TOKEN "
                         "--mca mpi_yield_when_idle 1 /opt/bin/dreamrun agent /opt/bin/train_db\n");
}

static void wrong_meetings_are_named(void **state)
{
    (void)state;
    dr_launch_facts f = machine();
    f.host = "a";
    expect_error(&f, WORDS("--machine_rank=1", "train_db"), DR_INVALID,
                 "--machine_rank 1: there is one machine (--num_machines)");
    expect_error(&f, WORDS("--num_machines=2", "--machine_rank=1", "train_db"), DR_INVALID,
                 "found --machine_rank, but not --main_process_ip");
    expect_error(&f, WORDS(MEETING, "train_db"), DR_INVALID, "but not --machine_rank");
    expect_error(&f, WORDS(MEETING, "--machine_rank=3", "train_db"), DR_INVALID,
                 "--machine_rank: found 3, expected 0 to 2 (--num_machines 3)");
    expect_error(&f, WORDS(MEETING, "--machine_rank=0", "--main_process_port=0", "train_db"),
                 DR_INVALID, "the other machines have to know the port");
    expect_error(&f, WORDS(MEETING, "--machine_rank=0", "--rsh_agent=ssh", "train_db"), DR_INVALID,
                 "give one of them");
    expect_error(&f, WORDS(MEETING, "--machine_rank=0", "--num_processes=2", "train_db"),
                 DR_INVALID, "2 ranks (command line) on 3 machines");
    expect_error(&f, WORDS("--launcher=manual", "train_db"), DR_INVALID, "--launcher manual: give");
    f.bin_dir = "/opt/my bin";
    expect_error(&f, WORDS(MEETING, "--machine_rank=0", "train_db"), DR_INVALID,
                 "a folder with a space in its name");
}

/* The hosts of a file, written into the folder of this test. */
static const char *hostfile(const char *text)
{
    static char path[4200];
    (void)snprintf(path, sizeof path, "%s/hosts", dr_test_tmpdir());
    assert_ok(dr_file_write(path, text, strlen(text)));
    return path;
}

static void hosts_come_from_a_file(void **state)
{
    (void)state;
    dr_launch_facts f = machine();
    f.host = "a";
    const char *file = hostfile("a slots=2\nb slots=2\n");
    expect_line(
        &f,
        WORDS("--hostfile", file, "--num_processes=3", "--interface=e0", "--rsh_agent=/bin/agent",
              "train_db"),
        "env OMP_NUM_THREADS=4 DREAMRUN_THREADS=4 " BELOW(
            "3") "NCCL_SOCKET_IFNAME=e0 "
                 "/usr/bin/mpirun -n 3 --bind-to none --host a:2,b:1 --mca btl_tcp_if_include e0 "
                 "--mca oob_tcp_if_include e0 --mca plm_rsh_agent /bin/agent "
                 "--mca oob_tcp_keepalive_time 3 --mca oob_tcp_keepalive_intvl 1 "
                 "--mca oob_tcp_keepalive_probes 3 -x OMP_NUM_THREADS -x DREAMRUN_THREADS "
                 "-x DREAMRUN_HANG_TIMEOUT -x DREAMRUN_WORLD -x DREAMRUN_ATTEMPT "
                 "-x NCCL_SOCKET_IFNAME -x DREAMRUN_SUPERVISOR -x DREAMRUN_TOKEN "
                 "--mca mpi_yield_when_idle 1 /opt/bin/dreamrun agent /opt/bin/train_db\n");
    f.mpirun_is_v5 = true; /* the daemons' settings have other names there */
    expect_line(
        &f, WORDS("--hostfile", file, "--interface=e0", "--rsh_agent=/bin/agent", "train_db"),
        "env OMP_NUM_THREADS=4 DREAMRUN_THREADS=4 " BELOW(
            "4") "NCCL_SOCKET_IFNAME=e0 "
                 "/usr/bin/mpirun -n 4 --bind-to none --host a:2,b:2 --mca btl_tcp_if_include e0 "
                 "--prtemca prte_if_include e0 --prtemca plm_ssh_agent /bin/agent "
                 "-x OMP_NUM_THREADS -x DREAMRUN_THREADS "
                 "-x DREAMRUN_HANG_TIMEOUT -x DREAMRUN_WORLD -x DREAMRUN_ATTEMPT "
                 "-x NCCL_SOCKET_IFNAME -x DREAMRUN_SUPERVISOR -x DREAMRUN_TOKEN "
                 "--mca mpi_yield_when_idle 1 /opt/bin/dreamrun agent /opt/bin/train_db\n");
    expect_error(&f, WORDS("--hostfile", file, "--num_processes=5", "train_db"), DR_DEVICE,
                 "5 ranks (command line), but the 2 hosts offer 4 slots");
    expect_error(&f, WORDS("--hostfile", file, "--num_machines=3", "train_db"), DR_INVALID,
                 "--num_machines: found 3, but the hostfile names 2");
    expect_error(&f, WORDS("--hostfile", file, "--exclude=a,b", "train_db"), DR_DEVICE,
                 "no host is left");
}

static bool with_pmix(const char *srun)
{
    return srun != NULL;
}

static bool without_pmix(const char *srun)
{
    return srun == NULL;
}

static void allocations_start_through_srun(void **state)
{
    (void)state;
    static const char *const env[] = {"SLURM_JOB_ID=7",        "SLURM_JOB_NODELIST=dn[1-3]",
                                      "SLURM_NTASKS=6",        "SLURM_TASKS_PER_NODE=2(x3)",
                                      "SLURM_JOB_NUM_NODES=3", "SLURM_PROCID=0",
                                      "SLURM_CPUS_PER_TASK=2", NULL};
    dr_launch_facts f = machine();
    f.env = env;
    f.host = "dn1";
    f.srun = "/usr/bin/srun";
    f.srun_has_pmix = with_pmix;
    const char *const *words = WORDS("train_db", "--v2");
    expect_line(
        &f, words,
        "env -u SLURM_PROCID OMP_NUM_THREADS=2 DREAMRUN_THREADS=2 " BELOW(
            "6") "/usr/bin/srun --mpi=pmix --overlap --no-kill --kill-on-bad-exit=0 "
                 "--cpu-bind=none "
                 "--ntasks=6 "
                 "--cpus-per-task=2 --nodes=3 --nodelist=dn1,dn2,dn3 /opt/bin/dreamrun agent "
                 "/opt/bin/train_db --v2\n");
    dr_strv lost = {0};
    dr_strv_push(&lost, "dn2");
    f.lost = &lost; /* after a failure: the rest, from the newest state */
    f.n_ranks = 4;
    f.attempt = 1;
    expect_line(&f, words,
                "env -u SLURM_PROCID OMP_NUM_THREADS=2 DREAMRUN_THREADS=2 "
                "DREAMRUN_HANG_TIMEOUT=auto DREAMRUN_WORLD=4 DREAMRUN_ATTEMPT=2 "
                "/usr/bin/srun --mpi=pmix --overlap --no-kill --kill-on-bad-exit=0 --cpu-bind=none "
                "--ntasks=4 "
                "--cpus-per-task=2 --nodes=2 --nodelist=dn1,dn3 /opt/bin/dreamrun agent "
                "/opt/bin/train_db --v2 --resume=auto\n");
    dr_strv_free(&lost);
    f = machine();
    f.env = env;
    f.host = "dn1";
    f.srun = "/usr/bin/srun";
    f.srun_has_pmix = without_pmix;
    dr_launch_plan p;
    assert_ok(make(&p, &f, words));
    assert_int_equal(p.starter, DR_START_MPIRUN);
    assert_string_equal(p.n_ranks_from, "$SLURM_NTASKS");
    dr_launch_plan_deinit(&p);
}

static void gpus_give_the_number_of_ranks(void **state)
{
    (void)state;
    dr_launch_facts f = machine();
    f.n_gpus = 4;
    dr_launch_plan p;
    assert_ok(make(&p, &f, WORDS("--multi_gpu", "train_db")));
    assert_int_equal(p.n_ranks, 4);
    assert_string_equal(p.argv.at[p.argv.n - 1], "--device=cuda");
    dr_launch_plan_deinit(&p);
    assert_ok(make(&p, &f, WORDS("--gpu_ids=1,3", "train_db", "--device", "cuda")));
    assert_int_equal(p.n_ranks, 2);
    assert_string_equal(p.argv.at[p.argv.n - 1], "cuda");
    dr_launch_plan_deinit(&p);
    assert_ok(make(&p, &f, WORDS("--cpu", "train_db"))); /* GPUs nobody asked for are left alone */
    assert_int_equal(p.n_ranks, 1);
    dr_launch_plan_deinit(&p);
    expect_error(&f, WORDS("--gpu_ids=4", "train_db"), DR_DEVICE,
                 "found GPU 4, but this host has 4");
}

static void a_watched_rank_has_an_agent(void **state)
{
    (void)state;
    dr_launch_facts f = machine();
    expect_line(&f,
                WORDS("--max_restarts=2", "--hang_timeout=5", "--inject=kill:step=3", "train_db"),
                "env OMP_NUM_THREADS=8 DREAMRUN_THREADS=8 DREAMRUN_HANG_TIMEOUT=5 DREAMRUN_WORLD=1 "
                "DREAMRUN_ATTEMPT=1 DREAMRUN_INJECT=kill:step=3 /opt/bin/dreamrun agent "
                "/opt/bin/train_db\n");
    expect_line(&f, WORDS("--max_restarts=2", "--hang_timeout=5", "--start_timeout=20", "train_db"),
                "env OMP_NUM_THREADS=8 DREAMRUN_THREADS=8 DREAMRUN_HANG_TIMEOUT=5 "
                "DREAMRUN_START_TIMEOUT=20 DREAMRUN_WORLD=1 DREAMRUN_ATTEMPT=1 "
                "/opt/bin/dreamrun agent /opt/bin/train_db\n");
    f.n_numa = 2; /* ranks are bound where memory is nearer to some cores */
    expect_line(&f, WORDS("--num_processes=2", "--min_processes=1", "train_db"),
                "env OMP_NUM_THREADS=4 DREAMRUN_THREADS=4 " BELOW(
                    "2") "DREAMRUN_BIND=cores " MPIRUN_2 "/opt/bin/train_db --virtual_shards=2\n");
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
        cmocka_unit_test(machines_meet),
        cmocka_unit_test(wrong_meetings_are_named),
        cmocka_unit_test(hosts_come_from_a_file),
        cmocka_unit_test(allocations_start_through_srun),
        cmocka_unit_test(gpus_give_the_number_of_ranks),
        cmocka_unit_test(a_watched_rank_has_an_agent),
    };
    return DR_TEST_MAIN("plan", tests);
}
