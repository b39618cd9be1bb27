/* dreamrun - the command: starts trainers (launch) and tools. */
#include "base/log.h"
#include "launcher/launch_options.h"
#include "launcher/machine.h"
#include "launcher/plan.h"
#include "launcher/supervise.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

static const char usage[] =
    "Usage: dreamrun [launch] [options] train_db [its options]   trains a model\n"
    "       dreamrun [launch] [options] cache_latents [...]      fills its latent cache ahead\n"
    "       dreamrun TOOL [its options]                          runs a tool\n"
    "\n"
    "Tools:\n"
    "  check        looks at a dataset before it is trained on\n"
    "  init_model   writes a randomly initialised model\n"
    "  convert      writes a model in another form or precision\n"
    "  merge_lora   puts LoRAs into a model, or several into one\n"
    "  tokenize     captions on stdin, token ids on stdout\n"
    "  inspect      lists what a model file holds\n"
    "  sample       generates pictures with a model\n"
    "  make_pictures draws a small training set\n"
    "  dreamrun TOOL --help tells more; dreamrun launch train_db --help lists the trainer's "
    "options.\n"
    "\n"
    "Exit codes: 0 done, 64 usage, 65 bad input data, 69 resource unavailable, 71 system error,\n"
    "  73 cannot create output, 76 numeric failure; 128+n: ended by signal n.\n";

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

/* The strings of v with NULL at the end; the caller frees the array. */
static const char **terminated(const dr_strv *v)
{
    const char **out = dr_xcalloc(v->n + 1, sizeof *out);
    for (size_t i = 0; i < v->n; i++) {
        out[i] = v->at[i];
    }
    return out;
}

static dr_status execute(const char *const *argv, const char *const *env)
{
    (void)fflush(NULL);
    (void)execve(argv[0], (char *const *)(uintptr_t)argv, (char *const *)(uintptr_t)env);
    DR_FAIL(DR_IO, "%s cannot be started: %s", argv[0], strerror(errno));
}

static const char *meaning_of(int code)
{
    for (int st = 0; st < DR_STATUS_COUNT; st++) {
        if (code != 0 && dr_status_exit_code((dr_status)st) == code) {
            return dr_status_text((dr_status)st);
        }
    }
    return code > 128 ? strsignal(code - 128) : "not one of dreamrun's exit codes";
}

static const char *signal_name(int sig)
{
    return sig == SIGINT    ? "SIGINT"
           : sig == SIGHUP  ? "SIGHUP"
           : sig == SIGUSR1 ? "SIGUSR1"
                            : "SIGTERM";
}

static const char *how_it_ended(const dr_supervised *r)
{
    if (r->killed) {
        return "; it did not end in time and was killed";
    }
    return r->exit_code == dr_status_exit_code(DR_CANCELLED)
               ? "; its state is saved: start it again with --resume auto"
               : "";
}

/* One line, the last on the screen. */
static int verdict(const dr_launch_plan *p, const dr_supervised *r)
{
    if (r->signal != 0) {
        (void)fprintf(stderr, "dreamrun: %s with %d ranks was stopped by %s%s\n", p->program,
                      p->n_ranks, signal_name(r->signal), how_it_ended(r));
        return r->exit_code == dr_status_exit_code(DR_CANCELLED) ? r->exit_code : 128 + r->signal;
    }
    if (r->exit_code != 0) {
        (void)fprintf(stderr,
                      "dreamrun: %s with %d ranks failed: exit code %d (%s); the first error "
                      "stands above\n",
                      p->program, p->n_ranks, r->exit_code, meaning_of(r->exit_code));
    }
    return r->exit_code;
}

static dr_status run_plan(const dr_launch_plan *p, int *code)
{
    const char **argv = terminated(&p->argv);
    const char **env = terminated(&p->env);
    dr_supervised result = {0};
    dr_status st =
        p->supervised ? dr_supervise(argv, env, p->grace_s, &result) : execute(argv, env);
    if (st == DR_OK) {
        *code = verdict(p, &result);
    }
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

static dr_status launch_plan(const dr_launch_plan *p, int *code)
{
    if (p->help) {
        *code = print_launch_help();
        return DR_OK;
    }
    if (p->dry_run) {
        print_plan(p, stdout);
        *code = 0;
        return DR_OK;
    }
    if (p->debug) {
        print_plan(p, stderr);
    }
    return run_plan(p, code);
}

static int launch(const char *bin_dir, int argc, const char *const *argv)
{
    char mpirun[PATH_MAX];
    dr_launch_plan p;
    int code = 0;
    dr_launch_facts facts = {
        .n_cpus = dr_machine_cpus(),
        .n_cores = dr_machine_cores(),
        .is_root = geteuid() == 0,
        .mpirun = dr_machine_find_program("mpirun", mpirun, sizeof mpirun) ? mpirun : NULL,
        .bin_dir = bin_dir,
        .env = (const char *const *)environ,
        .can_run = dr_machine_can_run,
    };
    dr_status st = dr_launch_plan_make(&p, &facts, argc, argv);
    if (st == DR_OK) {
        st = launch_plan(&p, &code);
    }
    dr_launch_plan_deinit(&p);
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
        {"config", DR_UNSUPPORTED, "is not available yet; give the options on the command line"},
        {"env", DR_UNSUPPORTED, "is not available yet; see dreamrun launch --dry_run"},
        {"test", DR_UNSUPPORTED, "is not available yet; see launcher/quickstart"},
        {"estimate", DR_UNSUPPORTED, "is not available yet; train_db prints its memory plan first"},
        {"estimate-memory", DR_UNSUPPORTED,
         "is not available yet; train_db prints its memory plan first"},
        {"merge-weights", DR_UNSUPPORTED, "is not available: there are no sharded states"},
        {"submit", DR_UNSUPPORTED, "is not available yet"},
        {"status", DR_UNSUPPORTED, "is not available yet"},
        {"verify", DR_UNSUPPORTED, "is not available yet"},
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
    if (strcmp(words[0], "launch") == 0) {
        return launch(bin_dir, argc - 2, words + 1);
    }
    if (is_launch(words[0])) {
        return launch(bin_dir, argc - 1, words);
    }
    return fail(run_tool(bin_dir, argc - 1, words));
}
