/* dreamrun - the command: starts trainers (launch) and tools. */
#include "base/arena.h"
#include "base/log.h"
#include "launcher/agent.h"
#include "launcher/commands.h"
#include "launcher/follow.h"
#include "launcher/job.h"
#include "launcher/machine.h"
#include "launcher/machines.h"
#include "launcher/relay.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

static const char usage[] =
    "Usage: dreamrun [launch] [options] train_db [its options]   trains a model\n"
    "       dreamrun [launch] [options] cache_latents [...]      fills its latent cache ahead\n"
    "       dreamrun estimate [options] train_db [its options]   what it would need\n"
    "       dreamrun test [options] [DIR]                        tries the ranks, and DIR\n"
    "       dreamrun env [--json] [options]                      machine and options, with "
    "sources\n"
    "       dreamrun config [default|update]                     writes a file with options\n"
    "       dreamrun submit [options] launch ... train_db ...    a job of Slurm\n"
    "       dreamrun TOOL [its options]                          runs a tool\n"
    "\n"
    "Tools:\n"
    "  check        looks at a dataset before it is trained on\n"
    "  init_model   writes a randomly initialised model\n"
    "  convert      writes a model in another form or precision\n"
    "  merge_lora   puts LoRAs into a model, or several into one\n"
    "  extract_lora writes the LoRA between two models\n"
    "  resize_lora  writes a LoRA with smaller ranks\n"
    "  tokenize     captions on stdin, token ids on stdout\n"
    "  inspect      lists what a model file holds\n"
    "  sample       generates pictures with a model\n"
    "  make_pictures draws a small training set\n"
    "  status       what became of a run, its restarts and states\n"
    "  verify       whether every byte of training states is as it was saved\n"
    "  dreamrun TOOL --help tells more; dreamrun launch train_db --help lists the trainer's "
    "options.\n"
    "\n"
    "Exit codes: 0 done, 64 usage, 65 bad input data, 69 resource unavailable, 71 system error,\n"
    "  70 restart refused, 73 cannot create output, 74 no progress, 75 saved: run it again,\n"
    "  76 numeric failure; 128+n: ended by signal n (docs/errors.md).\n";

static int fail(dr_status st)
{
    (void)fprintf(stderr, "dreamrun: error: %s\n", dr_error_message());
    return dr_status_exit_code(st);
}

/* --- launch
 * --------------------------------------------------------------------------------------- */

static int print_launch_help(void)
{
    dr_str text = {0};
    dr_optset o;
    dr_str_add(&text, usage);
    dr_str_add(&text,
               "\nOptions of dreamrun launch stand before the program's name; values follow as\n"
               "--option value or --option=value.\n");
    dr_optset_init(&o, dr_launch_option_table(), 0);
    dr_optset_help(&o, &text);
    dr_optset_deinit(&o);
    (void)fputs(dr_str_get(&text), stdout);
    dr_str_free(&text);
    return 0;
}

static dr_status execute(const char *const *argv, const char *const *env)
{
    (void)fflush(NULL);
    (void)execve(argv[0], (char *const *)(uintptr_t)argv, (char *const *)(uintptr_t)env);
    DR_FAIL(DR_IO, "%s cannot be started: %s", argv[0], strerror(errno));
}

/* The strings of v with NULL at the end; the caller frees the array. */
static const char **terminated(const dr_strv *v)
{
    const char **out = dr_xcalloc(v->n + 1, sizeof *out);
    for (size_t i = 0; i < v->n; i++) {
        out[i] = v->at[i];
    }
    return out;
}

static dr_status become(const dr_launch_plan *p)
{
    const char **argv = terminated(&p->argv);
    const char **env = terminated(&p->env);
    dr_status st = execute(argv, env);
    free(argv);
    free(env);
    return st;
}

static void print_plan(const dr_launch_plan *p, FILE *to)
{
    dr_str line = {0};
    dr_launch_plan_print(p, &line);
    (void)fputs(dr_str_get(&line), to);
    dr_str_free(&line);
}

static dr_status launch_plan(const dr_launch_plan *p, const dr_launch_facts *f, int argc,
                             const char *const *argv, int *code)
{
    *code = 0;
    if (p->help) {
        *code = print_launch_help();
        return DR_OK;
    }
    if (p->dry_run && p->meets && p->machine_rank > 0) {
        (void)printf("machine %d of %d: goes to machine 0, whose mpirun starts the ranks here\n",
                     p->machine_rank, p->n_machines);
        return DR_OK;
    }
    if (p->dry_run) {
        print_plan(p, stdout);
        return DR_OK;
    }
    if (p->meets && p->machine_rank > 0) {
        return dr_follow(p, f, argc, argv, code);
    }
    if (p->debug) {
        print_plan(p, stderr);
    }
    if (p->idle) { /* the first node's task starts the ranks of all */
        return DR_OK;
    }
    return p->supervised ? dr_job_run(p, f, argc, argv, code) : become(p);
}

typedef struct own_machine { /* texts of the facts */
    char mpirun[PATH_MAX], srun[PATH_MAX], host[256];
} own_machine;

static dr_launch_facts look_around(own_machine *m, const char *bin_dir)
{
    bool has_mpirun = dr_machine_find_program("mpirun", m->mpirun, sizeof m->mpirun);
    bool has_srun = dr_machine_find_program("srun", m->srun, sizeof m->srun);
    dr_machine_host(m->host, sizeof m->host);
    return (dr_launch_facts){
        .n_cpus = dr_machine_cpus(),
        .n_cores = dr_machine_cores(),
        .n_gpus = dr_machine_gpus(),
        .n_numa = dr_machine_numa_nodes(),
        .is_root = geteuid() == 0,
        .host = m->host,
        .mpirun = has_mpirun ? m->mpirun : NULL,
        .mpirun_is_v5 = has_mpirun && dr_machine_mpirun_is_v5(m->mpirun),
        .srun = has_srun ? m->srun : NULL,
        .srun_has_pmix = dr_machine_srun_has_pmix,
        .bin_dir = bin_dir,
        .env = (const char *const *)environ,
        .can_run = dr_machine_can_run,
    };
}

/* Waits for the launches of the other machines, and plans with them; when that fails they are told
 * why. dr_job_run ends them otherwise. */
static dr_status gather(dr_launch_plan *p, dr_launch_facts *f, dr_machines *m, int argc,
                        const char *const *argv)
{
    dr_status st = dr_machines_gather(m, p, f, argc, argv);
    if (st == DR_OK) {
        f->machines = m;
        dr_launch_plan_deinit(p);
        st = dr_launch_plan_make(p, f, argc, argv);
    }
    if (st != DR_OK) {
        dr_machines_end(m, dr_status_exit_code(st), dr_error_message());
    }
    return st;
}

static int launch_here(const char *bin_dir, int argc, const char *const *argv, bool watched)
{
    own_machine m;
    dr_launch_plan p;
    int code = 0;
    dr_machines machines = {0};
    dr_launch_facts facts = look_around(&m, bin_dir);
    facts.watched = watched;
    dr_status st = dr_launch_plan_make(&p, &facts, argc, argv);
    if (st == DR_OK && p.meets && p.machine_rank == 0 && !p.dry_run) {
        st = gather(&p, &facts, &machines, argc, argv);
    }
    if (st == DR_OK) {
        st = launch_plan(&p, &facts, argc, argv, &code);
    }
    dr_launch_plan_deinit(&p);
    return st == DR_OK ? code : fail(st);
}

static int launch(const char *bin_dir, int argc, const char *const *argv)
{
    return launch_here(bin_dir, argc, argv, false);
}

/* --- commands around launch ---------------------------------------------------------------------
 */

/* launch with n words more, at the end; it comes back when watched. */
static int launch_with(const char *bin_dir, int argc, const char *const *argv, int n,
                       const char *const *more, bool watched)
{
    const char **words = dr_xcalloc((size_t)(argc + n) + 1, sizeof *words);
    for (int i = 0; i < argc + n; i++) {
        words[i] = i < argc ? argv[i] : more[i - argc];
    }
    int code = launch_here(bin_dir, argc + n, words, watched);
    free(words);
    return code;
}

/* Number of words that are options of launch. */
static dr_status count_options(int argc, const char *const *argv, int *n)
{
    dr_optset o;
    dr_optset_init(&o, dr_launch_option_table(), 0);
    dr_status st = dr_optset_parse(&o, argc, argv, n);
    dr_optset_deinit(&o);
    return st;
}

/* `dreamrun test [launch options] [DIR]`: the ranks and their sums; then one is killed and the job
 * must come back; then all are asked to save and leave. */
static int run_test(const char *bin_dir, int argc, const char *const *argv)
{
    static const char *const killed[] = {
        "--max_restarts",   "1", "--restart_delay", "0", "--inject", "kill:rank=0,step=2",
        "dreamrun_selftest"};
    int n = 0;
    dr_status st = count_options(argc, argv, &n);
    if (st == DR_OK && argc > n + 1) {
        st =
            dr_error_set(DR_INVALID, __FILE__, __LINE__,
                         "dreamrun test: found '%s', expected dreamrun test [launch options] [DIR]",
                         argv[n + 1]);
    }
    if (st != DR_OK) {
        return fail(st);
    }
    const char *dir = n < argc ? argv[n] : NULL;
    const char *const plain[] = {"dreamrun_selftest", dir};
    const char *const stopped[] = {"dreamrun_selftest", "--stop", dir};
    int code = launch_with(bin_dir, n, argv, dir != NULL ? 2 : 1, plain, true);
    if (code == 0) {
        (void)printf("a rank is killed on purpose; the job must come back:\n");
        (void)fflush(stdout);
        code = launch_with(bin_dir, n, argv, (int)(sizeof killed / sizeof *killed), killed, true);
    }
    if (code == 0) {
        const int saved = dr_status_exit_code(DR_CANCELLED);
        (void)printf("the ranks are asked to save and leave; the job must end with %d:\n", saved);
        (void)fflush(stdout);
        code = launch_with(bin_dir, n, argv, dir != NULL ? 3 : 2, stopped, true);
        code = code == saved ? 0 : code != 0 ? code : dr_status_exit_code(DR_REFUSED);
    }
    (void)printf(code == 0 ? "all tests passed\n" : "FAILED\n");
    return code;
}

typedef dr_status (*info_command)(const dr_launch_facts *f, int argc, const char *const *argv);

static int run_info(info_command command, const char *bin_dir, int argc, const char *const *argv)
{
    own_machine m;
    const dr_launch_facts facts = look_around(&m, bin_dir);
    dr_status st = command(&facts, argc, argv);
    return st == DR_OK ? 0 : fail(st);
}

/* `dreamrun relay HOST WORDS`: what mpirun starts in place of ssh. */
static int run_relay(int argc, const char *const *argv)
{
    int code = 0;
    dr_status st = dr_relay_run(argc, argv, &code);
    return st == DR_OK ? code : fail(st);
}

/* `dreamrun agent PROGRAM ARGS`: what mpirun and srun start for each rank. */
static int run_agent(const char *const *argv)
{
    int code = 0;
    if (argv[0] == NULL) {
        return fail(dr_error_set(DR_INVALID, __FILE__, __LINE__,
                                 "dreamrun agent is started by dreamrun launch, with a program"));
    }
    dr_status st = dr_agent_run(argv, &code);
    return st == DR_OK ? code : fail(st);
}

/* --- tools
 * ---------------------------------------------------------------------------------------- */

static dr_status check_tool(const char *name)
{
    static const struct {
        const char *name;
        dr_status st;
        const char *why;
    } refused[] = {
        {"merge-weights", DR_UNSUPPORTED, "is not available: there are no sharded states"},
        {"tpu-config", DR_UNSUPPORTED, "is not available: there are no TPUs here"},
        {"to-fsdp2", DR_UNSUPPORTED, "is not available: there is no FSDP here"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        if (strcmp(name, refused[i].name) == 0) {
            DR_FAIL(refused[i].st, "dreamrun %s %s", name, refused[i].why);
        }
    }
    return DR_OK;
}

static dr_status run_tool(const char *bin_dir, int argc, const char *const *argv)
{
    DR_TRY(check_tool(argv[0]));
    dr_str path = {0};
    dr_str_printf(&path, "%s/dreamrun_tools", bin_dir);
    const char **words = dr_xcalloc((size_t)argc + 2, sizeof *words);
    words[0] = dr_str_get(&path);
    for (int i = 0; i < argc; i++) {
        words[i + 1] = argv[i];
    }
    dr_status st = execute(words, (const char *const *)environ);
    free(words);
    dr_str_free(&path);
    return st;
}

/* Words that belong to launch: "launch ...", an option, or a trainer's name. */
static bool is_launch(const char *word)
{
    return word[0] == '-' || dr_launch_is_trainer(word);
}

static int run_command(const char *bin_dir, int argc, const char *const *words)
{
    static const char *const estimate[] = {"--estimate"};
    const char *name = words[0];
    if (is_launch(name)) {
        return launch(bin_dir, argc, words);
    }
    argc--;
    words++;
    if (strcmp(name, "agent") == 0) {
        return run_agent(words);
    }
    if (strcmp(name, "relay") == 0) {
        return run_relay(argc, words);
    }
    if (strcmp(name, "launch") == 0) {
        return launch(bin_dir, argc, words);
    }
    if (strcmp(name, "estimate") == 0 || strcmp(name, "estimate-memory") == 0) {
        return launch_with(bin_dir, argc, words, 1, estimate, false);
    }
    if (strcmp(name, "test") == 0) {
        return run_test(bin_dir, argc, words);
    }
    if (strcmp(name, "env") == 0) {
        return run_info(dr_command_env, bin_dir, argc, words);
    }
    if (strcmp(name, "config") == 0) {
        return run_info(dr_command_config, bin_dir, argc, words);
    }
    if (strcmp(name, "submit") == 0) {
        return run_info(dr_command_submit, bin_dir, argc, words);
    }
    return fail(run_tool(bin_dir, argc + 1, words - 1));
}

int main(int argc, char **argv)
{
    const char *const *words = (const char *const *)argv + 1;
    char bin_dir[PATH_MAX];
    if (argc < 2) {
        (void)fputs(usage, stderr);
        return dr_status_exit_code(DR_INVALID);
    }
    if (strcmp(words[0], "--version") == 0) {
        (void)printf("dreamrun %s\n", DREAMRUN_VERSION);
        return 0;
    }
    if (strcmp(words[0], "help") == 0) {
        return print_launch_help();
    }
    dr_status st = dr_machine_bin_dir(bin_dir, sizeof bin_dir);
    if (st != DR_OK) {
        return fail(st);
    }
    return run_command(bin_dir, argc - 1, words);
}
