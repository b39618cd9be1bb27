#include "launcher/meet.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { DEFAULT_PORT = 29500 }; /* accelerate's and torchrun's */

/* Options that may differ from machine to machine, or say nothing of the job. */
static bool may_differ(int id)
{
    static const int own[] = {DR_LAUNCH_config_file,
                              DR_LAUNCH_machine_rank,
                              DR_LAUNCH_main_process_ip,
                              DR_LAUNCH_gpu_ids,
                              DR_LAUNCH_quiet,
                              DR_LAUNCH_debug,
                              DR_LAUNCH_dry_run,
                              DR_LAUNCH_start_timeout,
                              DR_LAUNCH_rdzv_conf,
                              DR_LAUNCH_log_dir,
                              DR_LAUNCH_tee};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
        if (own[i] == id) {
            return true;
        }
    }
    const dr_opt_spec *spec = &dr_launch_option_table()->specs[id];
    return spec->name == NULL || spec->availability != DR_OPT_AVAILABLE;
}

static void add_option(const dr_optset *o, int id, dr_strv *out)
{
    const dr_opt_spec *spec = &dr_launch_option_table()->specs[id];
    const dr_opt_value *v = &o->values[id];
    dr_str s = {0};
    dr_str_printf(&s, "--%s", spec->name);
    for (size_t i = 0; i < v->list.n; i++) {
        dr_str_printf(&s, " %s", v->list.at[i]);
    }
    if (spec->type == DR_OPT_TYPE_FLAG) {
        dr_str_add(&s, v->i != 0 ? " (given)" : " (not given)");
    } else if (v->list.n == 0) {
        dr_str_printf(&s, " %s", v->set && v->text != NULL ? v->text : "(not given)");
    }
    dr_strv_push(out, dr_str_get(&s));
    dr_str_free(&s);
}

dr_status dr_meet_words(const dr_launch_plan *p, const dr_launch_facts *f, int argc,
                        const char *const *argv, dr_strv *out)
{
    char here[PATH_MAX];
    dr_str s = {0};
    int n_used = 0;
    const dr_optset *o = &p->settings.options;
    dr_optset again; /* only to learn where the program's words begin */
    dr_optset_init(&again, dr_launch_option_table(), 0);
    dr_status st = dr_optset_parse(&again, argc, argv, &n_used);
    dr_optset_deinit(&again);
    DR_TRY(st);
    if (getcwd(here, sizeof here) == NULL) {
        DR_FAIL(DR_IO, "the current folder: %s", strerror(errno));
    }
    for (int id = 0; id < DR_LAUNCH_OPTION_COUNT; id++) {
        if (!may_differ(id)) {
            add_option(o, id, out);
        }
    }
    dr_str_printf(&s, "programs in %s", f->bin_dir);
    dr_strv_push(out, dr_str_get(&s));
    dr_str_free(&s);
    dr_str_printf(&s, "in the folder %s", here);
    dr_strv_push(out, dr_str_get(&s));
    dr_str_free(&s);
    dr_strv_push(out, p->program);
    for (int i = n_used + 1; i < argc; i++) {
        dr_strv_push(out, argv[i]);
    }
    return DR_OK;
}

int dr_meet_port(const dr_launch_plan *p)
{
    return (int)dr_opt_int_or(&p->settings.options, DR_LAUNCH_main_process_port, DEFAULT_PORT);
}

void dr_meet_address(const dr_launch_plan *p, dr_str *out)
{
    dr_str_printf(out, "%s:%d", dr_opt_str(&p->settings.options, DR_LAUNCH_main_process_ip),
                  dr_meet_port(p));
}

const char *dr_meet_token(const dr_launch_facts *f)
{
    const char *token = dr_env_find(f->env, "DREAMRUN_RUN_TOKEN");
    return token != NULL ? token : "";
}
