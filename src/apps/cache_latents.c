/*
 * cache_latents - fills the latent cache that a training with the same options will read.
 */
#include "apps/config_file.h"
#include "apps/threads.h"
#include "apps/train_settings.h"
#include "backend/cpu/backend_cpu.h"
#include "base/fault.h"
#include "base/file.h"

#include <stdio.h>

static dr_status fill(const dr_options *o, dr_dist *d)
{
    dr_train_config c = {0};
    dr_setting_texts texts = {0};
    dr_status st = dr_dist_agree(d, dr_settings_all(o, &texts, &c));
    c.threads = dr_threads_for_rank((int)dr_opt_int(o, DR_OPT_num_cpu_threads_per_process),
                                    dr_dist_local_world(d));
    if (st == DR_OK) {
        st = dr_train_fill_cache(d, &dr_backend_cpu, &c);
    }
    if (st == DR_OK) {
        dr_info("the cache in %s is complete", c.cache_dir);
    }
    dr_setting_texts_free(&texts);
    return st;
}

static dr_status read_options(dr_options *o, int argc, char **argv)
{
    DR_TRY(dr_options_parse(o, argc - 1, (const char *const *)(argv + 1)));
    if (o->help) {
        return DR_OK;
    }
    DR_TRY(dr_config_file_read(o));
    o->values[DR_OPT_cache_latents_to_disk].i = 1;
    o->values[DR_OPT_cache_latents_to_disk].given = true;
    return dr_options_check_without(o, DR_WITHOUT_OUTPUT);
}

static dr_status run(const dr_options *o, dr_status usage)
{
    dr_dist *d = NULL;
    dr_file_take_limits();
    dr_status start = dr_dist_init(&d);
    if (start != DR_OK) { /* no ranks that could agree on who speaks */
        dr_log_error_record();
        return start;
    }
    dr_log_configure(usage == DR_OK ? dr_settings_log_level(o) : DR_LOG_INFO, dr_dist_rank(d));
    if (usage == DR_OK) {
        usage = dr_fault_setup(dr_opt_str(o, DR_OPT_inject), dr_dist_rank(d));
    }
    dr_status st = dr_dist_agree(d, usage);
    if (st == DR_OK) {
        st = fill(o, d);
    }
    if (st != DR_OK && dr_dist_rank(d) == 0) {
        dr_log_error_record();
    }
    dr_dist_finalize(d);
    return st;
}

int main(int argc, char **argv)
{
    dr_options o;
    dr_options_init(&o, DR_PROGRAM_TRAIN_DB);
    dr_status st = read_options(&o, argc, argv);
    if (st == DR_OK && o.help) {
        (void)fputs(
            "Usage: cache_latents [options of train_db, --output_dir excepted]\n\n"
            "Encodes the pictures into the folder of --cache_latents_to_disk, so that a training "
            "with\n"
            "the same options starts at once. May run on several ranks, and beside a training that "
            "uses\n"
            "the same folder. What changes latents: the pictures, --vae, --resolution, the bucket\n"
            "options, --flip_aug, --latent_cache_content, --latent_cache_dtype, --compat,\n"
            "--alpha_color, --resize_interpolation. train_db --help lists all options.\n",
            stdout);
    } else {
        st = run(&o, st);
    }
    dr_options_deinit(&o);
    return dr_status_exit_code(st);
}
