/* Where ranks go: place, hosts, number, threads, and who starts them. */
#include "base/log.h"
#include "launcher/console.h"
#include "launcher/machines.h"
#include "launcher/plan_internal.h"

#include <stdio.h>
#include <string.h>

static int positive_env(const dr_launch_facts *f, const char *name)
{
    const char *text = dr_env_find(f->env, name);
    int64_t v = 0;
    return text != NULL && dr_parse_i64(text, &v) && v >= 1 && v <= 65536 ? (int)v : 0;
}

/* --- hosts --------------------------------------------------------------------------------------
 */

static dr_status read_hosts(dr_launch_plan *p, const dr_launch_facts *f)
{
    const dr_optset *o = &p->settings.options;
    const char *file = dr_opt_str(o, DR_LAUNCH_hostfile);
    const char *same = dr_opt_str(o, DR_LAUNCH_mpirun_hostfile);
    const char *nodes = dr_env_find(f->env, "SLURM_JOB_NODELIST");
    if (file != NULL && same != NULL && strcmp(file, same) != 0) {
        DR_FAIL(DR_INVALID, "--hostfile %s and --mpirun_hostfile %s: give one of them", file, same);
    }
    file = file != NULL ? file : same;
    if (file != NULL) {
        return dr_hosts_read(&p->hosts, file);
    }
    bool allocation = p->where.place == DR_PLACE_ALLOCATION || p->where.place == DR_PLACE_PER_NODE;
    if (allocation && nodes != NULL) {
        const char *tasks = dr_env_find(f->env, "SLURM_TASKS_PER_NODE");
        return dr_hosts_from_slurm(&p->hosts, nodes, tasks);
    }
    return DR_OK;
}

/* --exclude HOST,HOST and the hosts that failed in earlier attempts. */
static dr_status leave_out(dr_launch_plan *p, const dr_launch_facts *f)
{
    const char *list = dr_opt_str(&p->settings.options, DR_LAUNCH_exclude);
    for (const char *at = list; at != NULL && *at != '\0';) {
        size_t n = strcspn(at, ",");
        dr_str name = {0};
        dr_str_add_n(&name, at, n);
        bool there = dr_hosts_remove(&p->hosts, dr_str_get(&name));
        if (!there && f->run_dir == NULL) {
            dr_warn("--exclude %s: no host of this job has that name", dr_str_get(&name));
        }
        dr_str_free(&name);
        at += n + (at[n] == ',');
    }
    for (size_t i = 0; f->lost != NULL && i < f->lost->n; i++) {
        (void)dr_hosts_remove(&p->hosts, f->lost->at[i]);
    }
    return DR_OK;
}

/* --num_machines without a list of them: one launch on each. */
static dr_status plan_meeting(dr_launch_plan *p)
{
    const dr_optset *o = &p->settings.options;
    int64_t rank = dr_opt_int_or(o, DR_LAUNCH_machine_rank, -1);
    bool ip = dr_opt_has(o, DR_LAUNCH_main_process_ip);
    if (rank < 0 && !ip) {
        DR_FAIL(DR_INVALID,
                "--num_machines %d: which machines? Give --hostfile FILE (lines \"host "
                "slots=N\"), start inside an allocation of Slurm, or start this on every machine "
                "with its --machine_rank and machine 0's --main_process_ip",
                p->n_machines);
    }
    if (rank < 0 || !ip) {
        DR_FAIL(DR_INVALID, "--num_machines %d: found %s, but not %s", p->n_machines,
                ip ? "--main_process_ip" : "--machine_rank",
                ip ? "--machine_rank, the number of this machine (0 is the one of that address)"
                   : "--main_process_ip, an address of machine 0");
    }
    if (rank >= p->n_machines) {
        DR_FAIL(DR_INVALID, "--machine_rank: found %lld, expected 0 to %d (--num_machines %d)",
                (long long)rank, p->n_machines - 1, p->n_machines);
    }
    if (dr_opt_int_or(o, DR_LAUNCH_main_process_port, 1) == 0) {
        DR_FAIL(DR_INVALID, "--main_process_port 0: the other machines have to know the port; "
                            "give a free one of machine 0");
    }
    if (dr_opt_has(o, DR_LAUNCH_rsh_agent)) {
        DR_FAIL(DR_INVALID, "--rsh_agent starts ranks from one launch alone, --machine_rank is for "
                            "one launch on every machine; give one of them");
    }
    p->meets = true;
    p->machine_rank = (int)rank;
    return DR_OK;
}

/* Before they have come, names stand in for them. */
static void add_machines(dr_launch_plan *p, const dr_launch_facts *f)
{
    const dr_machines *m = f->machines;
    dr_hosts_add(&p->hosts, f->host, p->uses_gpus && m != NULL ? m->at[0].n_gpus : 1);
    for (int i = 1; m == NULL && i < p->n_machines; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "MACHINE_%d", i);
        dr_hosts_add(&p->hosts, name, 1);
    }
    for (int i = 1; m != NULL && i < m->n; i++) {
        if (m->at[i].here && (!p->uses_gpus || m->at[i].n_gpus > 0)) {
            dr_hosts_add(&p->hosts, m->at[i].ip, p->uses_gpus ? m->at[i].n_gpus : 1);
            dr_hosts_label(&p->hosts, m->at[i].label);
        }
    }
}

/* A number of one machine where hosts are known otherwise, or there are no others. */
static dr_status check_lone_machine(const dr_launch_plan *p)
{
    int64_t rank = dr_opt_int_or(&p->settings.options, DR_LAUNCH_machine_rank, 0);
    if (rank > 0 && p->where.place != DR_PLACE_PER_NODE) {
        DR_FAIL(DR_INVALID,
                "--machine_rank %lld: %s; leave it out, or give --num_machines, --machine_rank and "
                "--main_process_ip on every machine",
                (long long)rank,
                p->hosts.n > 0 ? "the hosts are known here, so the job is started once"
                               : "there is one machine (--num_machines)");
    }
    if (dr_opt_has(&p->settings.options, DR_LAUNCH_main_process_port) && !p->quiet) {
        dr_info("--main_process_port: not needed here, ranks find each other without a fixed port");
    }
    if (dr_opt_is(&p->settings.options, DR_LAUNCH_launcher, "manual")) {
        DR_FAIL(DR_INVALID,
                "--launcher manual: give --num_machines (2 or more), --machine_rank and "
                "--main_process_ip on every machine, and no --hostfile");
    }
    return DR_OK;
}

static dr_status plan_hosts(dr_launch_plan *p, const dr_launch_facts *f)
{
    const dr_optset *o = &p->settings.options;
    int64_t machines =
        dr_opt_given(o, DR_LAUNCH_num_machines) ? dr_opt_int(o, DR_LAUNCH_num_machines) : 0;
    DR_TRY(read_hosts(p, f));
    size_t n_found = p->hosts.n;
    p->n_machines = machines > 0 ? (int)machines : 1;
    if (machines > 1 && n_found == 0) {
        DR_TRY(plan_meeting(p));
        add_machines(p, f);
        return leave_out(p, f);
    }
    DR_TRY(check_lone_machine(p));
    if (machines > 0 && n_found > 0 && (size_t)machines != n_found) {
        DR_FAIL(DR_INVALID, "--num_machines: found %lld, but %s names %zu; correct one of them",
                (long long)machines,
                p->where.place == DR_PLACE_ALONE ? "the hostfile" : "the allocation", n_found);
    }
    DR_TRY(leave_out(p, f));
    if (n_found > 0 && p->hosts.n == 0) {
        DR_FAIL(DR_DEVICE, "no host is left: all %zu are excluded or have failed", n_found);
    }
    return DR_OK;
}

/* --- number of ranks ----------------------------------------------------------------------------
 */

int dr_plan_gpu_ids(const char *ids)
{
    int n = 1;
    for (const char *c = ids; *c != '\0'; c++) {
        n += *c == ',';
    }
    return n;
}

static void count_ranks(dr_launch_plan *p, const dr_launch_facts *f)
{
    const dr_optset *o = &p->settings.options;
    int hosts = p->hosts.n > 0 ? (int)p->hosts.n : 1;
    if (f->n_ranks > 0) {
        p->n_ranks = f->n_ranks;
        p->n_ranks_from = "what is left after a failure";
    } else if (dr_opt_has(o, DR_LAUNCH_num_processes)) {
        p->n_ranks = (int)dr_opt_int(o, DR_LAUNCH_num_processes);
        p->n_ranks_from = p->settings.origin[DR_LAUNCH_num_processes];
    } else if (p->uses_gpus && f->n_gpus > 0 && f->machines == NULL) {
        const char *ids = dr_opt_str(o, DR_LAUNCH_gpu_ids);
        bool some = ids != NULL && strcmp(ids, "all") != 0;
        p->n_ranks = hosts * (some ? dr_plan_gpu_ids(ids) : f->n_gpus);
        p->n_ranks_from = "GPUs found";
    } else if (p->where.n_tasks > 0 && p->where.place == DR_PLACE_ALLOCATION) {
        p->n_ranks = p->where.n_tasks;
        p->n_ranks_from = "$SLURM_NTASKS";
    } else if (p->hosts.n > 0) {
        p->n_ranks = dr_hosts_slots(&p->hosts);
        p->n_ranks_from = "slots of the hosts";
    } else {
        p->n_ranks = 1;
        p->n_ranks_from = "default";
    }
}

static dr_status check_ranks(const dr_launch_plan *p, const dr_launch_facts *f)
{
    const dr_optset *o = &p->settings.options;
    int64_t least = dr_opt_int_or(o, DR_LAUNCH_min_processes, 1);
    if (dr_opt_flag(o, DR_LAUNCH_multi_gpu) && p->n_ranks < 2) {
        DR_FAIL(DR_INVALID,
                "--multi_gpu needs at least 2 ranks, found %d (%s); give "
                "--num_processes, or leave --multi_gpu out",
                p->n_ranks, p->n_ranks_from);
    }
    if (dr_opt_flag(o, DR_LAUNCH_multi_gpu) && dr_opt_flag(o, DR_LAUNCH_cpu)) {
        DR_FAIL(DR_INVALID, "--cpu and --multi_gpu exclude each other");
    }
    if (least > p->n_ranks) {
        DR_FAIL(DR_INVALID, "--min_processes %lld is more than the %d ranks (%s)", (long long)least,
                p->n_ranks, p->n_ranks_from);
    }
    if (p->meets && p->n_ranks < p->n_machines && f->attempt == 0) {
        DR_FAIL(DR_INVALID,
                "%d ranks (%s) on %d machines: --num_processes counts those of all machines "
                "together, and each needs one",
                p->n_ranks, p->n_ranks_from, p->n_machines);
    }
    if (dr_opt_is(o, DR_LAUNCH_backend, "none") && p->n_ranks > 1) {
        DR_FAIL(DR_INVALID, "--backend none is for one rank, found %d (%s)", p->n_ranks,
                p->n_ranks_from);
    }
    return DR_OK;
}

/* Options whose text has rules of its own. */
static dr_status check_texts(const dr_launch_plan *p)
{
    const dr_optset *o = &p->settings.options;
    const char *conf = dr_opt_str(o, DR_LAUNCH_rdzv_conf);
    const char *list = dr_opt_str(o, DR_LAUNCH_signal_save);
    double s = 0.0;
    int streams = 0;
    DR_TRY(dr_console_tee(dr_opt_str(o, DR_LAUNCH_tee), 0, &streams));
    if (conf[0] != '\0' && !(dr_str_starts(conf, "timeout=") &&
                             dr_parse_f64(conf + strlen("timeout="), &s) && s > 0.0)) {
        DR_FAIL(DR_INVALID, "--rdzv_conf: found '%s', expected timeout=SECONDS", conf);
    }
    for (const char *at = list; *at != '\0';) {
        size_t n = strcspn(at, ",");
        bool known = (n == 4 && (strncmp(at, "USR1", n) == 0 || strncmp(at, "TERM", n) == 0)) ||
                     (n == 3 && (strncmp(at, "INT", n) == 0 || strncmp(at, "HUP", n) == 0));
        if (!known) {
            DR_FAIL(DR_INVALID, "--signal_save: found '%s', expected some of USR1,TERM,INT,HUP",
                    list);
        }
        at += n + (at[n] == ',');
    }
    return DR_OK;
}

/* Inside a running MPI job this process is one rank of it already. */
static dr_status join_job(dr_launch_plan *p)
{
    const dr_optset *o = &p->settings.options;
    int world = p->where.world;
    if (world == 0 || !dr_opt_is(o, DR_LAUNCH_launcher, "auto")) {
        return DR_OK;
    }
    if (dr_opt_given(o, DR_LAUNCH_num_processes) && p->n_ranks != world) {
        DR_FAIL(DR_INVALID,
                "--num_processes: found %d, but this process was started by mpirun or "
                "srun with %d ranks; start dreamrun once, without them, or leave "
                "--num_processes out",
                p->n_ranks, world);
    }
    p->is_rank = true;
    p->n_ranks = world;
    p->n_ranks_from = dr_place_text(p->where.place);
    return DR_OK;
}

static dr_status share_ranks(dr_launch_plan *p, const dr_launch_facts *f)
{
    if (p->hosts.n == 0) {
        return DR_OK;
    }
    /* the step of one task per node says nothing of the ranks that its nodes have room for */
    bool crowded = dr_opt_flag(&p->settings.options, DR_LAUNCH_oversubscribe) ||
                   p->where.place == DR_PLACE_PER_NODE ||
                   (p->meets && (!p->uses_gpus || f->machines == NULL));
    if (!dr_hosts_share(&p->hosts, p->n_ranks, crowded)) {
        DR_FAIL(DR_DEVICE,
                "%d ranks (%s), but the %zu hosts offer %d slots; ask for fewer, or give "
                "--oversubscribe",
                p->n_ranks, p->n_ranks_from, p->hosts.n, dr_hosts_slots(&p->hosts));
    }
    return DR_OK;
}

/* --- threads ------------------------------------------------------------------------------------
 */

static void plan_threads(dr_launch_plan *p, const dr_launch_facts *f)
{
    const dr_optset *o = &p->settings.options;
    int64_t asked = dr_opt_int_or(o, DR_LAUNCH_num_cpu_threads_per_process, -1);
    int inherited = asked < 0 ? positive_env(f, "OMP_NUM_THREADS") : 0;
    int local = p->hosts.n > 0 ? p->hosts.at[0].ranks : p->n_ranks;
    local = local > 0 ? local : 1;
    p->n_threads_from = "$OMP_NUM_THREADS";
    if (inherited == 0) {
        inherited = positive_env(f, "SLURM_CPUS_PER_TASK");
        p->n_threads_from = "$SLURM_CPUS_PER_TASK";
    }
    int share = f->n_cores / local > 1 ? f->n_cores / local : 1;
    p->n_threads = asked > 0 ? (int)asked : inherited > 0 ? inherited : share;
    if (asked > 0) {
        p->n_threads_from = p->settings.origin[DR_LAUNCH_num_cpu_threads_per_process];
    } else if (inherited == 0) {
        p->n_threads_from = "cores / ranks of a host";
    }
    int64_t all = (int64_t)p->n_threads * local;
    if (asked > 0 && all > f->n_cpus && local > 1 && !p->quiet && f->run_dir == NULL) {
        dr_warn("%d ranks with %d threads each are %lld threads on %d CPUs; "
                "--num_cpu_threads_per_process %d would fit",
                local, p->n_threads, (long long)all, f->n_cpus, share);
    }
}

/* --- who starts them ----------------------------------------------------------------------------
 */

static bool wants_watch(const dr_launch_plan *p, const dr_launch_facts *f)
{
    const dr_optset *o = &p->settings.options;
    return f->watched || dr_opt_int(o, DR_LAUNCH_max_restarts) > 0 ||
           dr_opt_has(o, DR_LAUNCH_log_dir) || strcmp(dr_opt_str(o, DR_LAUNCH_tee), "0") != 0;
}

static dr_status refuse_several(const dr_launch_plan *p)
{
    DR_FAIL(DR_INVALID,
            "--launcher none starts one rank, found --num_processes %d; leave "
            "--launcher out",
            p->n_ranks);
}

static dr_status choose_starter(dr_launch_plan *p, const dr_launch_facts *f)
{
    const dr_optset *o = &p->settings.options;
    const char *asked = dr_opt_str(o, DR_LAUNCH_launcher);
    bool allocation = p->where.place == DR_PLACE_ALLOCATION || p->where.place == DR_PLACE_PER_NODE;
    /* Slurm tells steps, not the script, that time is up: a job that is to come back has a step */
    bool step = allocation && dr_opt_flag(o, DR_LAUNCH_requeue);
    bool alone =
        !step && p->n_ranks == 1 && p->hosts.n <= 1 && !dr_opt_is(o, DR_LAUNCH_backend, "mpi");
    if (strcmp(asked, "fork") == 0) {
        DR_FAIL(DR_UNSUPPORTED,
                "--launcher fork is not available: ranks talk to each other through MPI, whose "
                "processes find each other through mpirun or srun only; install Open MPI "
                "(cluster/install-deps), or train with one rank, which needs neither");
    }
    if (strcmp(asked, "srun") == 0 || strcmp(asked, "mpirun") == 0) {
        p->starter = strcmp(asked, "srun") == 0 ? DR_START_SRUN : DR_START_MPIRUN;
        if (p->starter == DR_START_SRUN && !allocation) {
            DR_FAIL(DR_INVALID,
                    "--launcher srun works inside an allocation of Slurm (sbatch, "
                    "salloc); this is %s",
                    dr_place_text(p->where.place));
        }
    } else if (strcmp(asked, "none") == 0 && !alone) {
        return refuse_several(p);
    } else if (alone) {
        p->starter = wants_watch(p, f) ? DR_START_AGENT : DR_START_IN_PLACE;
    } else if (allocation && f->srun != NULL && f->srun_has_pmix(f->srun)) {
        p->starter = DR_START_SRUN;
    } else {
        p->starter = DR_START_MPIRUN;
    }
    if (p->meets && p->machine_rank > 0) { /* machine 0's mpirun starts ranks here, too */
        p->starter = DR_START_IN_PLACE;
    }
    p->supervised = p->starter != DR_START_IN_PLACE;
    return DR_OK;
}

dr_status dr_plan_ranks(dr_launch_plan *p, const dr_launch_facts *f, const dr_words *words)
{
    const dr_optset *o = &p->settings.options;
    const char *device = dr_word_value(words, "--device", "--dev");
    p->where = dr_detect(f->env, (int)dr_opt_int_or(o, DR_LAUNCH_num_processes, 0));
    if (p->where.place == DR_PLACE_NO_PMIX) {
        DR_FAIL(
            DR_DEVICE,
            "this is one of %d tasks of srun, but without PMIx they cannot find each other: use "
            "srun --mpi=pmix, or start dreamrun launch once, in the job's script",
            p->where.n_tasks);
    }
    p->uses_gpus = !dr_opt_flag(o, DR_LAUNCH_cpu) &&
                   (dr_opt_flag(o, DR_LAUNCH_multi_gpu) || dr_opt_has(o, DR_LAUNCH_gpu_ids) ||
                    (device != NULL && strcmp(device, "cuda") == 0));
    if (p->where.world == 0) {
        DR_TRY(plan_hosts(p, f));
    }
    count_ranks(p, f);
    DR_TRY(check_texts(p));
    DR_TRY(join_job(p));
    DR_TRY(check_ranks(p, f));
    DR_TRY(share_ranks(p, f));
    plan_threads(p, f);
    if (p->is_rank) {
        return DR_OK;
    }
    DR_TRY(choose_starter(p, f));
    p->idle = p->where.place == DR_PLACE_PER_NODE && p->where.node > 0;
    return DR_OK;
}
