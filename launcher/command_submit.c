/* dreamrun submit: a job script for sbatch. */
#include "launcher/commands.h"

#include "base/arena.h"
#include "base/file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    SUBMIT_nodes,
    SUBMIT_ranks_per_node,
    SUBMIT_gpus_per_node,
    SUBMIT_cpus_per_rank,
    SUBMIT_time,
    SUBMIT_partition,
    SUBMIT_account,
    SUBMIT_array,
    SUBMIT_job_name,
    SUBMIT_lead,
    SUBMIT_sbatch,
    SUBMIT_print,
    SUBMIT_OPTION_COUNT
};

#define OPT(name_, type_, def_, range_, help_)                                                     \
    [SUBMIT_##name_] = {.name = #name_,                                                            \
                        .programs = 1,                                                             \
                        .type = DR_OPT_TYPE_##type_,                                               \
                        .def = (def_),                                                             \
                        .range = (range_),                                                         \
                        .unit = "",                                                                \
                        .reason = "",                                                              \
                        .help = (help_)}
static const dr_opt_spec submit_specs[SUBMIT_OPTION_COUNT] = {
    OPT(nodes, INT, "1", ">=1", "Nodes of the job."),
    OPT(ranks_per_node, INT, "1", ">=1", "Ranks on each; with GPUs: one per GPU."),
    OPT(gpus_per_node, INT, NULL, ">=1", "GPUs of each node; sets --ranks_per_node too."),
    OPT(cpus_per_rank, INT, NULL, ">=1", "CPUs, and threads, of each rank."),
    OPT(time, STR, NULL, "", "Time limit as Slurm writes it: 4:00:00."),
    OPT(partition, STR, NULL, "", "Slurm's partition."),
    OPT(account, STR, NULL, "", "Slurm's account."),
    OPT(array, STR, NULL, "", "Job array: 0-9. Each task has $SLURM_ARRAY_TASK_ID."),
    OPT(job_name, STR, "dreamrun", "", "Name of the job."),
    OPT(lead, INT, "120", ">=1",
        "Seconds before the time limit at which ranks are told to save; three times a save and a "
        "minute is enough, because Slurm may be a minute early."),
    OPT(sbatch, EACH, NULL, "", "One more line for sbatch, such as --mem=64G; may be repeated."),
    OPT(print, FLAG, NULL, "", "Prints the script and submits nothing."),
};
#undef OPT

static const char *const program_names[] = {"dreamrun submit"};
static const dr_opt_table submit_table = {.specs = submit_specs,
                                          .n = SUBMIT_OPTION_COUNT,
                                          .programs = program_names,
                                          .n_programs = 1,
                                          .syntax = DR_OPT_DASHES | DR_OPT_TO_WORD,
                                          .own_first = -1};

static const char usage[] =
    "Usage: dreamrun submit [options] launch [launch options] train_db [its options]\n\n"
    "Writes a job script and hands it to sbatch. The job saves before its time limit or when it\n"
    "is preempted, goes back into the queue by itself and goes on from its newest state.\n\n";

/* --- the script ---------------------------------------------------------------------------------
 */

static void line_int(dr_str *out, const char *name, const dr_optset *o, int id)
{
    if (dr_opt_has(o, id)) {
        dr_str_printf(out, "#SBATCH --%s=%lld\n", name, (long long)dr_opt_int(o, id));
    }
}

static void line_text(dr_str *out, const char *name, const dr_optset *o, int id)
{
    if (dr_opt_has(o, id)) {
        dr_str_printf(out, "#SBATCH --%s=%s\n", name, dr_opt_str(o, id));
    }
}

static void write_head(const dr_optset *o, dr_str *out)
{
    int per_node =
        dr_opt_has(o, SUBMIT_gpus_per_node) ? SUBMIT_gpus_per_node : SUBMIT_ranks_per_node;
    bool array = dr_opt_has(o, SUBMIT_array);
    dr_str_add(out, "#!/bin/bash\n");
    line_text(out, "job-name", o, SUBMIT_job_name);
    line_int(out, "nodes", o, SUBMIT_nodes);
    line_int(out, "ntasks-per-node", o, per_node);
    line_int(out, "gpus-per-node", o, SUBMIT_gpus_per_node);
    line_int(out, "cpus-per-task", o, SUBMIT_cpus_per_rank);
    line_text(out, "time", o, SUBMIT_time);
    line_text(out, "partition", o, SUBMIT_partition);
    line_text(out, "account", o, SUBMIT_account);
    line_text(out, "array", o, SUBMIT_array);
    dr_str_printf(out,
                  "#SBATCH --output=%%x-%s.out\n"
                  "#SBATCH --open-mode=append\n"
                  "#SBATCH --requeue\n"
                  "#SBATCH --no-kill\n"
                  "#SBATCH --signal=USR1@%lld\n",
                  array ? "%A_%a" : "%j", (long long)dr_opt_int(o, SUBMIT_lead));
    const dr_strv *more = dr_opt_list(o, SUBMIT_sbatch);
    for (size_t i = 0; i < more->n; i++) {
        dr_str_printf(out, "#SBATCH %s\n", more->at[i]);
    }
}

/* $SLURM_ARRAY_TASK_ID and the like are for the job to fill in; everything else is quoted. */
static void write_word(const char *word, dr_str *out)
{
    bool variable = strstr(word, "$SLURM_") != NULL || strstr(word, "${SLURM_") != NULL;
    if (!variable) {
        dr_quote_word(word, out);
        return;
    }
    dr_str_add(out, "\"");
    for (const char *c = word; *c != '\0'; c++) {
        dr_str_add(out, *c == '"' || *c == '\\' || *c == '`' ? "\\" : "");
        dr_str_add_n(out, c, 1);
    }
    dr_str_add(out, "\"");
}

static void write_script(const dr_launch_facts *f, const dr_optset *o, int argc,
                         const char *const *argv, dr_str *out)
{
    bool says_launch = strcmp(argv[0], "launch") == 0;
    write_head(o, out);
    dr_str_add(out, "exec ");
    dr_quote_word(f->bin_dir, out);
    dr_str_add(out, "/dreamrun launch --requeue");
    for (int i = says_launch; i < argc; i++) {
        dr_str_add(out, " ");
        write_word(argv[i], out);
    }
    dr_str_add(out, "\n");
}

/* --- sbatch -------------------------------------------------------------------------------------
 */

/* The script goes to sbatch's stdin; this process becomes sbatch. */
static dr_status become_sbatch(const dr_str *script)
{
    FILE *f = tmpfile();
    bool ok = f != NULL && fwrite(script->data, 1, script->len, f) == script->len &&
              fflush(f) == 0 && fseek(f, 0, SEEK_SET) == 0 && dup2(fileno(f), STDIN_FILENO) >= 0;
    if (!ok) {
        DR_FAIL(DR_IO, "the job script cannot be written to a temporary file: %s", strerror(errno));
    }
    (void)execlp("sbatch", "sbatch", (char *)NULL);
    DR_FAIL(DR_DEVICE, "sbatch cannot be started: %s; --print shows the script", strerror(errno));
}

static void print_help(const dr_optset *o)
{
    dr_str text = {0};
    dr_str_add(&text, usage);
    dr_optset_help(o, &text);
    (void)fputs(dr_str_get(&text), stdout);
    dr_str_free(&text);
}

/* What the job will run is planned here, so that mistakes show now and not after the wait. */
static dr_status check_launch(const dr_launch_facts *f, const dr_optset *o, int argc,
                              const char *const *argv)
{
    dr_launch_plan p;
    dr_launch_facts there = *f;
    int per_node =
        dr_opt_has(o, SUBMIT_gpus_per_node) ? SUBMIT_gpus_per_node : SUBMIT_ranks_per_node;
    there.n_ranks = (int)(dr_opt_int(o, SUBMIT_nodes) * dr_opt_int(o, per_node));
    there.run_dir = ""; /* no warnings of this host's CPUs */
    if (argc == 0) {
        DR_FAIL(DR_INVALID, "dreamrun submit: no program given; %s", "see dreamrun submit --help");
    }
    bool says_launch = strcmp(argv[0], "launch") == 0;
    dr_status st = dr_launch_plan_make(&p, &there, argc - says_launch, argv + says_launch);
    dr_launch_plan_deinit(&p);
    return st;
}

dr_status dr_command_submit(const dr_launch_facts *f, int argc, const char *const *argv)
{
    dr_optset o;
    dr_str script = {0};
    int n = 0;
    dr_optset_init(&o, &submit_table, 0);
    dr_status st = dr_optset_parse(&o, argc, argv, &n);
    if (st == DR_OK && o.help) {
        print_help(&o);
    } else if (st == DR_OK) {
        st = check_launch(f, &o, argc - n, argv + n);
        if (st == DR_OK) {
            write_script(f, &o, argc - n, argv + n, &script);
        }
        if (st == DR_OK && dr_opt_flag(&o, SUBMIT_print)) {
            (void)fputs(dr_str_get(&script), stdout);
        } else if (st == DR_OK) {
            st = become_sbatch(&script);
        }
    }
    dr_str_free(&script);
    dr_optset_deinit(&o);
    return st;
}
