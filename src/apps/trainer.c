#include "apps/trainer.h"

#include "apps/backend_choice.h"
#include "apps/config_file.h"
#include "apps/debug_dataset.h"
#include "apps/threads.h"
#include "apps/train_settings.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/stop.h"

#include <stdio.h>

static dr_status train(const dr_options *o, dr_dist *d)
{
    dr_train_config c = {0};
    dr_setting_texts texts = {0};
    dr_log_same_on_all_ranks(true);
    dr_status st = dr_settings_all(o, &texts, &c);
    dr_log_same_on_all_ranks(false);
    c.threads = dr_threads_for_rank((int)dr_opt_int(o, DR_OPT_num_cpu_threads_per_process),
                                    dr_dist_local_world(d));
    st = dr_dist_agree(d, st);
    if (st == DR_OK) {
        st = dr_settings_seed(o, d, &c.seed);
    }
    if (st == DR_OK && dr_opt_flag(o, DR_OPT_debug_dataset)) {
        st = dr_dist_agree(d, dr_dist_rank(d) == 0 ? dr_debug_dataset(&c) : DR_OK);
    } else if (st == DR_OK) {
        const dr_backend *backend = NULL;
        st = dr_backend_choose(dr_opt_str(o, DR_OPT_device),
                               dr_opt_given(o, DR_OPT_tf32) ? dr_opt_str(o, DR_OPT_tf32) : NULL, d,
                               &backend);
        if (st == DR_OK) {
            st = dr_backend_plane(d, backend, dr_opt_has(o, DR_OPT_deterministic), &c.plane);
        }
        if (st == DR_OK) {
            st = dr_train_run(d, backend, &c);
        }
        dr_backend_release();
    }
    dr_setting_texts_free(&texts);
    return st;
}

/* Options are read before MPI starts, so that --help and mistakes need no launcher. */
static dr_status read_options(dr_options *o, int argc, char **argv)
{
    DR_TRY(dr_options_parse(o, argc - 1, (const char *const *)(argv + 1)));
    if (o->help || dr_opt_flag(o, DR_OPT_output_config)) {
        return DR_OK;
    }
    DR_TRY(dr_config_file_read(o));
    return dr_options_check(o);
}

static dr_status run(const dr_options *o, dr_status usage)
{
    dr_dist *d = NULL;
    dr_file_take_limits();
    dr_status start = dr_stop_watch();
    if (start == DR_OK) {
        start = dr_dist_init(&d);
    }
    if (start != DR_OK) { /* no ranks that could agree on who speaks */
        dr_log_error_record();
        return start;
    }
    dr_log_configure(usage == DR_OK ? dr_settings_log_level(o) : DR_LOG_INFO, dr_dist_rank(d));
    if (usage == DR_OK && dr_opt_has(o, DR_OPT_console_log_file)) {
        usage = dr_log_to_file(dr_opt_str(o, DR_OPT_console_log_file));
    }
    if (usage == DR_OK) {
        usage = dr_fault_setup(dr_opt_str(o, DR_OPT_inject), dr_dist_rank(d));
    }
    dr_status st = dr_dist_agree(d, usage);
    if (st == DR_OK && dr_opt_flag(o, DR_OPT_output_config)) {
        st = dr_dist_agree(d, dr_dist_rank(d) == 0 ? dr_config_file_write(o) : DR_OK);
    } else if (st == DR_OK) {
        st = train(o, d);
    }
    if (st == DR_CANCELLED) {
        dr_info("%s", dr_error_message());
    } else if (st != DR_OK &&
               dr_dist_rank(d) == 0) { /* all ranks have the same record: one speaks */
        dr_log_error_record();
    }
    dr_dist_finalize(d);
    return st;
}

int dr_trainer_main(dr_program program, int argc, char **argv)
{
    dr_options o;
    dr_options_init(&o, program);
    dr_status st = read_options(&o, argc, argv);
    if (st == DR_OK && o.help) {
        dr_str text = {0};
        dr_options_help(program, &text);
        (void)fputs(dr_str_get(&text), stdout);
        dr_str_free(&text);
    } else {
        st = run(&o, st);
    }
    dr_options_deinit(&o);
    return dr_status_exit_code(st);
}
