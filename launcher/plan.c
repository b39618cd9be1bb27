#include "launcher/plan.h"

#include "base/file.h"
#include "base/log.h"
#include "launcher/launch_options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const trainers[] = {"train_db", "train_network", "cache_latents"};
enum { N_TRAINERS = sizeof trainers / sizeof *trainers };

/* --- environment ------------------------------------------------------------------------------ */

static const char *find_env(const dr_launch_facts *f, const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; f->env[i] != NULL; i++) {
        if (strncmp(f->env[i], name, n) == 0 && f->env[i][n] == '=') {
            return f->env[i] + n + 1;
        }
    }
    return NULL;
}

/* Left by an MPI job or Slurm step that this process is no rank of: mpirun refuses to nest, and
 * ranks would take these for their own. User settings (OMPI_MCA_btl ...) stay. */
static bool is_stale(const char *entry)
{
    static const char *const keep[] = {"OMPI_ALLOW_RUN_AS_ROOT", "PMIX_MCA_"};
    static const char *const mca[] = {"orte_",
                                      "ess",
                                      "pmix=",
                                      "initial_wdir=",
                                      "shmem_RUNTIME_",
                                      "mpi_oversubscribe=",
                                      "rmaps_base_oversubscribe=",
                                      "hwloc_base_binding_policy="};
    static const char *const drop[] = {"OMPI_",         "PMIX_",          "PMI_",         "PRTE_",
                                       "SLURM_PROCID=", "SLURM_LOCALID=", "SLURM_NODEID="};
    for (size_t i = 0; i < sizeof keep / sizeof *keep; i++) {
        if (dr_str_starts(entry, keep[i])) {
            return false;
        }
    }
    if (dr_str_starts(entry, "OMPI_MCA_")) {
        for (size_t i = 0; i < sizeof mca / sizeof *mca; i++) {
            if (dr_str_starts(entry + strlen("OMPI_MCA_"), mca[i])) {
                return true;
            }
        }
        return false;
    }
    for (size_t i = 0; i < sizeof drop / sizeof *drop; i++) {
        if (dr_str_starts(entry, drop[i])) {
            return true;
        }
    }
    return false;
}

static void push_setting(dr_strv *v, const char *name, const char *value)
{
    dr_str s = {0};
    dr_str_printf(&s, "%s=%s", name, value);
    dr_strv_push(v, dr_str_get(&s));
    dr_str_free(&s);
}

static bool is_set_here(const dr_launch_plan *p, const char *entry)
{
    size_t n = strcspn(entry, "=") + 1;
    for (size_t i = 0; i < p->set.n; i++) {
        if (strncmp(p->set.at[i], entry, n) == 0) {
            return true;
        }
    }
    return false;
}

static void plan_environment(dr_launch_plan *p, const dr_launch_facts *f)
{
    char number[16];
    if (!p->is_rank) {
        (void)snprintf(number, sizeof number, "%d", p->n_threads);
        push_setting(&p->set, "OMP_NUM_THREADS", number);
        push_setting(&p->set, "DREAMRUN_THREADS", number);
        bool crowded = (int64_t)p->n_threads * p->n_ranks > f->n_cpus;
        if (crowded && find_env(f, "OMP_WAIT_POLICY") == NULL) { /* spinning would hold a core */
            push_setting(&p->set, "OMP_WAIT_POLICY", "passive");
        }
    }
    if (p->supervised && f->is_root) {
        push_setting(&p->set, "OMPI_ALLOW_RUN_AS_ROOT", "1");
        push_setting(&p->set, "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    }
    for (size_t i = 0; f->env[i] != NULL; i++) {
        if (!p->is_rank && is_stale(f->env[i])) {
            dr_str name = {0};
            dr_str_add_n(&name, f->env[i], strcspn(f->env[i], "="));
            dr_strv_push(&p->unset, dr_str_get(&name));
            dr_str_free(&name);
        } else if (!is_set_here(p, f->env[i])) {
            dr_strv_push(&p->env, f->env[i]);
        }
    }
    for (size_t i = 0; i < p->set.n; i++) {
        dr_strv_push(&p->env, p->set.at[i]);
    }
}

/* --- the program and its own options -----------------------------------------------------------
 */

static int trainer_index(const char *word)
{
    const char *base = dr_path_base(word);
    size_t n = strlen(base) - (dr_str_ends(base, ".py") ? 3 : 0);
    for (int i = 0; i < N_TRAINERS; i++) {
        if (strlen(trainers[i]) == n && strncmp(base, trainers[i], n) == 0) {
            return i;
        }
    }
    return -1;
}

bool dr_launch_is_trainer(const char *word)
{
    return trainer_index(word) >= 0;
}

static dr_status find_program(dr_launch_plan *p, const dr_launch_facts *f, const char *word,
                              dr_str *path)
{
    if (word == NULL) {
        DR_FAIL(DR_INVALID, "dreamrun launch: no program given; expected train_db, for example: "
                            "dreamrun launch --num_processes 2 train_db --help");
    }
    int i = trainer_index(word);
    if (i < 0) {
        DR_FAIL(DR_INVALID,
                "dreamrun launch: found program '%s', expected train_db, train_network or "
                "cache_latents",
                word);
    }
    (void)snprintf(p->program, sizeof p->program, "%s", trainers[i]);
    dr_str_printf(path, "%s/%s", f->bin_dir, trainers[i]);
    if (f->can_run(dr_str_get(path))) {
        return DR_OK;
    }
    DR_FAIL(DR_IO, "%s: there is no such program; build it beside dreamrun (cmake --build)",
            dr_str_get(path));
}

/* The value of the trainer's own --mixed_precision among its words (names may be shortened down to
 * "--mix" there); NULL when it is not given. */
static const char *trainer_precision(int argc, const char *const *argv)
{
    const char *found = NULL;
    for (int i = 0; i < argc; i++) {
        size_t n = strcspn(argv[i], "=");
        if (n < strlen("--mix") || strncmp("--mixed_precision", argv[i], n) != 0) {
            continue;
        }
        if (argv[i][n] == '=') {
            found = argv[i] + n + 1;
        } else if (i + 1 < argc) {
            found = argv[i + 1];
        }
    }
    return found;
}

static dr_status add_program(dr_launch_plan *p, const dr_optset *o, const char *path, int argc,
                             const char *const *argv)
{
    const char *ours = dr_opt_str(o, DR_LAUNCH_mixed_precision);
    const char *theirs = trainer_precision(argc, argv);
    dr_strv_push(&p->argv, path);
    if (ours != NULL && theirs != NULL && strcmp(ours, theirs) != 0) {
        DR_FAIL(DR_INVALID,
                "--mixed_precision: found %s for dreamrun launch and %s for %s; give it "
                "once",
                ours, theirs, p->program);
    }
    if (ours != NULL && theirs == NULL) {
        push_setting(&p->argv, "--mixed_precision", ours);
    }
    for (int i = 0; i < argc; i++) {
        dr_strv_push(&p->argv, argv[i]);
    }
    return DR_OK;
}

/* --- ranks and threads -------------------------------------------------------------------------
 */

static int positive_env(const dr_launch_facts *f, const char *name)
{
    const char *text = find_env(f, name);
    int64_t v = 0;
    return text != NULL && dr_parse_i64(text, &v) && v >= 1 && v <= 65536 ? (int)v : 0;
}

static void plan_threads(dr_launch_plan *p, const dr_launch_facts *f, const dr_optset *o)
{
    int64_t asked = dr_opt_int_or(o, DR_LAUNCH_num_cpu_threads_per_process, -1);
    int inherited = asked < 0 ? positive_env(f, "OMP_NUM_THREADS") : 0;
    if (inherited == 0) {
        inherited = positive_env(f, "SLURM_CPUS_PER_TASK");
    }
    int share = f->n_cores / p->n_ranks > 1 ? f->n_cores / p->n_ranks : 1;
    p->n_threads = asked > 0 ? (int)asked : inherited > 0 ? inherited : share;
    int64_t all = (int64_t)p->n_threads * p->n_ranks;
    if (asked > 0 && all > f->n_cpus && p->n_ranks > 1 && !p->quiet) {
        dr_warn("%d ranks with %d threads each are %lld threads on %d CPUs; "
                "--num_cpu_threads_per_process %d would fit",
                p->n_ranks, p->n_threads, (long long)all, f->n_cpus, share);
    }
}

/* Ranks of the job that this process belongs to: under mpirun, or under srun with PMIx (there the
 * OMPI_ variables are absent); 0: none. */
static int world_around(const dr_launch_facts *f)
{
    const char *names = find_env(f, "PMIX_NAMESPACE");
    bool step =
        find_env(f, "SLURM_STEP_ID") != NULL && names != NULL && dr_str_starts(names, "slurm.pmix");
    int world = positive_env(f, "OMPI_COMM_WORLD_SIZE");
    return world == 0 && step ? positive_env(f, "SLURM_NTASKS") : world;
}

/* Inside a running MPI job this process is one rank of it already. */
static dr_status join_job(dr_launch_plan *p, const dr_launch_facts *f, const dr_optset *o)
{
    int world = world_around(f);
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
    return DR_OK;
}

static bool user_sets_mca(const dr_launch_facts *f, const dr_optset *o, const char *key)
{
    char name[64];
    (void)snprintf(name, sizeof name, "OMPI_MCA_%s", key);
    const dr_strv *mca = dr_opt_list(o, DR_LAUNCH_mca);
    bool found = find_env(f, name) != NULL;
    for (size_t i = 0; i + 1 < mca->n; i += 2) {
        found = found || strcmp(mca->at[i], key) == 0;
    }
    return found;
}

static void add_words(dr_launch_plan *p, const char *const *words)
{
    for (size_t i = 0; words[i] != NULL; i++) {
        dr_strv_push(&p->argv, words[i]);
    }
}

static dr_status add_mpirun(dr_launch_plan *p, const dr_launch_facts *f, const dr_optset *o)
{
    static const char *const defaults[][2] = {
        {"btl", "^tcp,openib"},       /* one machine: shared memory; no network is looked at  */
        {"mpi_yield_when_idle", "1"}, /* a waiting rank leaves its core to computing threads  */
    };
    if (f->mpirun == NULL) {
        DR_FAIL(DR_DEVICE,
                "mpirun is not in PATH, and %d ranks need it; run cluster/install-deps "
                "(Debian: apt install openmpi-bin), or train with --num_processes 1",
                p->n_ranks);
    }
    char number[16];
    (void)snprintf(number, sizeof number, "%d", p->n_ranks);
    add_words(p, (const char *const[]){f->mpirun, "-n", number, "--bind-to", "none", NULL});
    if (p->n_ranks > f->n_cores || dr_opt_flag(o, DR_LAUNCH_oversubscribe)) {
        dr_strv_push(&p->argv, "--oversubscribe");
    }
    if (p->quiet) {
        dr_strv_push(&p->argv, "-q");
    }
    for (size_t i = 0; i < sizeof defaults / sizeof *defaults; i++) {
        if (!user_sets_mca(f, o, defaults[i][0])) {
            add_words(p, (const char *const[]){"--mca", defaults[i][0], defaults[i][1], NULL});
        }
    }
    const dr_strv *mca = dr_opt_list(o, DR_LAUNCH_mca);
    for (size_t i = 0; i + 1 < mca->n; i += 2) {
        add_words(p, (const char *const[]){"--mca", mca->at[i], mca->at[i + 1], NULL});
    }
    p->supervised = true;
    return DR_OK;
}

static dr_status plan_start(dr_launch_plan *p, const dr_launch_facts *f, const dr_optset *o)
{
    p->n_ranks = (int)dr_opt_int_or(o, DR_LAUNCH_num_processes, 1);
    DR_TRY(join_job(p, f, o));
    plan_threads(p, f, o);
    if (p->is_rank) {
        return DR_OK;
    }
    bool none = dr_opt_is(o, DR_LAUNCH_launcher, "none");
    if (none && p->n_ranks > 1) {
        DR_FAIL(DR_INVALID,
                "--launcher none starts one rank, found --num_processes %d; leave "
                "--launcher out",
                p->n_ranks);
    }
    if (p->n_ranks > 1 || dr_opt_is(o, DR_LAUNCH_launcher, "mpirun")) {
        DR_TRY(add_mpirun(p, f, o));
    }
    return DR_OK;
}

/* --- the plan as a whole -----------------------------------------------------------------------
 */

static dr_status plan_all(dr_launch_plan *p, const dr_launch_facts *f, dr_optset *o, dr_str *path,
                          int argc, const char *const *argv)
{
    int n_used = 0;
    DR_TRY(dr_optset_parse(o, argc, argv, &n_used));
    if (o->help) {
        p->help = true;
        return DR_OK;
    }
    p->dry_run = dr_opt_flag(o, DR_LAUNCH_dry_run);
    p->debug = dr_opt_flag(o, DR_LAUNCH_debug);
    p->quiet = dr_opt_flag(o, DR_LAUNCH_quiet);
    p->grace_s = dr_opt_float(o, DR_LAUNCH_grace);
    DR_TRY(dr_optset_check_available(o));
    DR_TRY(find_program(p, f, n_used < argc ? argv[n_used] : NULL, path));
    DR_TRY(plan_start(p, f, o));
    DR_TRY(add_program(p, o, dr_str_get(path), argc - n_used - 1, argv + n_used + 1));
    plan_environment(p, f);
    return DR_OK;
}

dr_status dr_launch_plan_make(dr_launch_plan *p, const dr_launch_facts *f, int argc,
                              const char *const *argv)
{
    memset(p, 0, sizeof *p);
    dr_optset o;
    dr_str path = {0};
    dr_optset_init(&o, dr_launch_option_table(), 0);
    dr_status st = plan_all(p, f, &o, &path, argc, argv);
    dr_str_free(&path);
    dr_optset_deinit(&o);
    return st;
}

void dr_launch_plan_deinit(dr_launch_plan *p)
{
    dr_strv_free(&p->argv);
    dr_strv_free(&p->env);
    dr_strv_free(&p->set);
    dr_strv_free(&p->unset);
}

/* Adds a word so that a POSIX shell reads it as one. */
static void add_quoted(const char *word, dr_str *out)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_-./=,:+%@^";
    if (word[0] != '\0' && strspn(word, plain) == strlen(word)) {
        dr_str_add(out, word);
        return;
    }
    dr_str_add(out, "'");
    for (const char *c = word; *c != '\0'; c++) {
        dr_str_add_n(out, *c == '\'' ? "'\\''" : c, *c == '\'' ? 4 : 1);
    }
    dr_str_add(out, "'");
}

void dr_launch_plan_print(const dr_launch_plan *p, dr_str *out)
{
    dr_str_add(out, "env");
    for (size_t i = 0; i < p->unset.n; i++) {
        dr_str_printf(out, " -u %s", p->unset.at[i]);
    }
    for (size_t i = 0; i < p->set.n; i++) {
        dr_str_add(out, " ");
        add_quoted(p->set.at[i], out);
    }
    for (size_t i = 0; i < p->argv.n; i++) {
        dr_str_add(out, " ");
        add_quoted(p->argv.at[i], out);
    }
    dr_str_add(out, "\n");
}
