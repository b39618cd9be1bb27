/* dreamrun env. */
#include "launcher/commands.h"

#include "base/file.h"
#include "launcher/journal.h"

#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

typedef struct table {
    bool json;
    int n;
    dr_str out;
} table;

static void row(table *t, const char *name, const char *value, const char *source)
{
    if (!t->json) {
        dr_str_printf(&t->out, "%-30s %-28s %s\n", name, value, source);
        return;
    }
    dr_str_add(&t->out, t->n++ > 0 ? ",\n  " : "{\n  ");
    dr_json_text(&t->out, name);
    dr_str_add(&t->out, ": {\"value\": ");
    dr_json_text(&t->out, value);
    dr_str_add(&t->out, ", \"source\": ");
    dr_json_text(&t->out, source);
    dr_str_add(&t->out, "}");
}

static void number(table *t, const char *name, long long value, const char *source)
{
    char text[32];
    (void)snprintf(text, sizeof text, "%lld", value);
    row(t, name, text, source);
}

/* --- machine ------------------------------------------------------------------------------------
 */

static void list_folder(table *t, const char *name, const char *path)
{
    dr_strv names = {0};
    dr_str list = {0};
    if (dr_list_dir(path, &names) != DR_OK) {
        dr_error_clear();
    }
    for (size_t i = 0; i < names.n; i++) {
        dr_str_printf(&list, "%s%s", i > 0 ? "," : "", names.at[i]);
    }
    row(t, name, list.len > 0 ? dr_str_get(&list) : "none", path);
    dr_str_free(&list);
    dr_strv_free(&names);
}

static void free_space(table *t, const char *path)
{
    struct statvfs s;
    char text[24];
    char name[64];
    if (statvfs(path, &s) == 0) {
        dr_format_bytes((uint64_t)s.f_bavail * s.f_frsize, text);
        (void)snprintf(name, sizeof name, "free in %s", path);
        row(t, name, text, "statvfs");
    }
}

static void machine_rows(table *t, const dr_launch_facts *f)
{
    row(t, "host", f->host, "gethostname");
    number(t, "CPUs", f->n_cpus, "affinity mask");
    number(t, "cores", f->n_cores, "affinity mask, topology, cgroup quota");
    number(t, "NUMA nodes", f->n_numa, "/sys/devices/system/node");
    number(t, "GPUs", f->n_gpus,
           dr_env_find(f->env, "CUDA_VISIBLE_DEVICES") != NULL ? "$CUDA_VISIBLE_DEVICES"
                                                               : "/proc/driver/nvidia/gpus");
    list_folder(t, "GPU addresses", "/proc/driver/nvidia/gpus");
    list_folder(t, "interfaces", "/sys/class/net");
    row(t, "mpirun", f->mpirun != NULL ? f->mpirun : "none", "$PATH");
    if (f->mpirun != NULL) {
        row(t, "Open MPI", f->mpirun_is_v5 ? "5 (PRRTE)" : "4 (ORTE)", "program prterun beside it");
    }
    row(t, "srun", f->srun != NULL ? f->srun : "none", "$PATH");
    free_space(t, "/dev/shm");
    free_space(t, ".");
}

/* --- options ------------------------------------------------------------------------------------
 */

static void option_row(table *t, const dr_settings *s, int id)
{
    const dr_opt_spec *spec = &dr_launch_option_table()->specs[id];
    const dr_opt_value *v = &s->options.values[id];
    char name[64];
    const char *value = v->set && v->text != NULL ? v->text : "unset";
    (void)snprintf(name, sizeof name, "--%s", spec->name);
    if (spec->type == DR_OPT_TYPE_FLAG) {
        value = v->i != 0 ? "true" : "false";
    }
    row(t, name, value, s->origin[id] != NULL ? s->origin[id] : "default");
}

static void option_rows(table *t, const dr_settings *s)
{
    for (int id = 0; id < DR_LAUNCH_OPTION_COUNT; id++) {
        const dr_opt_spec *spec = &dr_launch_option_table()->specs[id];
        bool real = spec->name != NULL && !dr_str_ends(spec->name, "*") &&
                    spec->availability == DR_OPT_AVAILABLE && spec->type != DR_OPT_TYPE_PAIR;
        if (real) {
            option_row(t, s, id);
        }
    }
}

static void plan_rows(table *t, const dr_launch_plan *p)
{
    static const char *const starters[] = {"the trainer in place", "agent", "mpirun", "srun"};
    row(t, "this is", dr_place_text(p->where.place), "environment");
    row(t, "Slurm job", p->where.job != NULL ? p->where.job : "none", "$SLURM_JOB_ID");
    row(t, "config file", p->settings.file != NULL ? p->settings.file : "none",
        "--config_file, $DREAMRUN_CONFIG, standard places");
    number(t, "ranks", p->n_ranks, p->n_ranks_from);
    number(t, "threads of a rank", p->n_threads, p->n_threads_from);
    row(t, "ranks start through", starters[p->starter], "--launcher");
    for (size_t i = 0; i < p->hosts.n; i++) {
        number(t, p->hosts.at[i].name, p->hosts.at[i].ranks, "ranks on this host");
    }
    option_rows(t, &p->settings);
}

dr_status dr_command_env(const dr_launch_facts *f, int argc, const char *const *argv)
{
    table t = {.json = argc > 0 && strcmp(argv[0], "--json") == 0};
    const char *words[256];
    int n = 0;
    for (int i = t.json; i < argc && n + 1 < 256; i++) {
        words[n++] = argv[i];
    }
    words[n++] = "dreamrun_selftest"; /* any program: the plan is looked at, not carried out */
    dr_launch_plan p;
    dr_status st = dr_launch_plan_make(&p, f, n, words);
    if (st == DR_OK) {
        row(&t, "dreamrun", DREAMRUN_VERSION, "build");
        machine_rows(&t, f);
        plan_rows(&t, &p);
        (void)printf("%s%s", dr_str_get(&t.out), t.json ? "\n}\n" : "");
    }
    dr_str_free(&t.out);
    dr_launch_plan_deinit(&p);
    return st;
}
