#include "launcher/plan.h"

#include "base/file.h"
#include "launcher/plan_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const trainers[] = {"train_db", "train_network", "cache_latents",
                                       "dreamrun_selftest"};
enum { N_TRAINERS = sizeof trainers / sizeof *trainers };

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

const char *dr_word_value(const dr_words *w, const char *name, const char *shortest)
{
    const char *found = NULL;
    for (int i = 0; i < w->n; i++) {
        size_t n = strcspn(w->at[i], "=");
        if (n < strlen(shortest) || strncmp(name, w->at[i], n) != 0) {
            continue;
        }
        if (w->at[i][n] == '=') {
            found = w->at[i] + n + 1;
        } else if (i + 1 < w->n) {
            found = w->at[i + 1];
        }
    }
    return found;
}

/* The program that `dreamrun test` starts takes a folder and no options. */
static bool takes_options(const dr_launch_plan *p)
{
    return strcmp(p->program, "dreamrun_selftest") != 0;
}

/* Options of launch that are the program's too: given once, or twice the same. */
static dr_status add_shared(dr_launch_plan *p, const dr_words *words)
{
    const char *ours = dr_opt_str(&p->settings.options, DR_LAUNCH_mixed_precision);
    const char *theirs = dr_word_value(words, "--mixed_precision", "--mix");
    const char *device = dr_word_value(words, "--device", "--dev");
    bool cpu = dr_opt_flag(&p->settings.options, DR_LAUNCH_cpu);
    if (ours != NULL && theirs != NULL && strcmp(ours, theirs) != 0) {
        DR_FAIL(DR_INVALID,
                "--mixed_precision: found %s for dreamrun launch and %s for %s; give it "
                "once",
                ours, theirs, p->program);
    }
    if (cpu && device != NULL && strcmp(device, "cpu") != 0) {
        DR_FAIL(DR_INVALID,
                "--cpu for dreamrun launch and --device %s for %s contradict each other", device,
                p->program);
    }
    if (!takes_options(p)) {
        return DR_OK;
    }
    if (ours != NULL && theirs == NULL) {
        dr_push_setting(&p->argv, "--mixed_precision", ours);
    }
    if (p->uses_gpus && device == NULL) {
        dr_push_setting(&p->argv, "--device", "cuda");
    }
    return DR_OK;
}

static dr_status add_program(dr_launch_plan *p, const dr_launch_facts *f, const char *path,
                             const dr_words *words)
{
    const dr_optset *o = &p->settings.options;
    dr_strv_push(&p->argv, path);
    DR_TRY(add_shared(p, words));
    for (int i = 0; i < words->n; i++) {
        dr_strv_push(&p->argv, words->at[i]);
    }
    /* What another number of ranks must not change: the width of data parallelism. */
    bool elastic = takes_options(p) && dr_opt_has(o, DR_LAUNCH_min_processes) &&
                   !dr_opt_is(o, DR_LAUNCH_elastic, "off");
    if (elastic && dr_word_value(words, "--virtual_shards", "--virt") == NULL) {
        char number[16];
        (void)snprintf(number, sizeof number, "%d",
                       f->first_ranks > 0 ? f->first_ranks : p->n_ranks);
        dr_push_setting(&p->argv, "--virtual_shards", number);
    }
    const char *requeued = dr_env_find(f->env, "SLURM_RESTART_COUNT");
    bool again = f->attempt > 0 || (requeued != NULL && strcmp(requeued, "0") != 0);
    if (again && takes_options(p)) {
        dr_strv_push(&p->argv, "--resume=auto"); /* the last one counts */
    }
    return DR_OK;
}

/* --- the plan as a whole -----------------------------------------------------------------------
 */

static dr_status plan_all(dr_launch_plan *p, const dr_launch_facts *f, dr_str *path, int argc,
                          const char *const *argv)
{
    int n_used = 0;
    const dr_optset *o = &p->settings.options;
    DR_TRY(dr_settings_read(&p->settings, f->env, argc, argv, &n_used));
    if (o->help) {
        p->help = true;
        return DR_OK;
    }
    p->dry_run = dr_opt_flag(o, DR_LAUNCH_dry_run);
    p->debug = dr_opt_flag(o, DR_LAUNCH_debug);
    p->quiet = dr_opt_flag(o, DR_LAUNCH_quiet);
    DR_TRY(find_program(p, f, n_used < argc ? argv[n_used] : NULL, path));
    const dr_words words = {argc - n_used - 1, argv + n_used + 1};
    DR_TRY(dr_plan_ranks(p, f, &words));
    DR_TRY(dr_plan_environment(p, f));
    DR_TRY(dr_plan_command(p, f));
    return add_program(p, f, dr_str_get(path), &words);
}

dr_status dr_launch_plan_make(dr_launch_plan *p, const dr_launch_facts *f, int argc,
                              const char *const *argv)
{
    memset(p, 0, sizeof *p);
    dr_str path = {0};
    dr_status st = plan_all(p, f, &path, argc, argv);
    dr_str_free(&path);
    return st;
}

void dr_launch_plan_deinit(dr_launch_plan *p)
{
    dr_settings_deinit(&p->settings);
    dr_hosts_free(&p->hosts);
    dr_strv_free(&p->argv);
    dr_strv_free(&p->env);
    dr_strv_free(&p->set);
    dr_strv_free(&p->unset);
}

void dr_quote_word(const char *word, dr_str *out)
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
        dr_quote_word(p->set.at[i], out);
    }
    for (size_t i = 0; i < p->argv.n; i++) {
        dr_str_add(out, " ");
        dr_quote_word(p->argv.at[i], out);
    }
    dr_str_add(out, "\n");
}
