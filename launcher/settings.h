/*
 * launcher/settings.h - every option of dreamrun launch with its value and where that came from.
 *
 * Layer:    launcher.  May include base/ only.
 *
 * Precedence: command line, then the environment (DREAMRUN_<OPTION>, then the ACCELERATE_ variables
 * that exist), then a file, then what the machine offers, then the default.
 */
#ifndef DR_LAUNCHER_SETTINGS_H
#define DR_LAUNCHER_SETTINGS_H

#include "launcher/launch_options.h"

typedef struct dr_settings {
    dr_optset options;
    const char
        *origin[DR_LAUNCH_OPTION_COUNT]; /* "command line", "$DREAMRUN_GRACE", "file F" ... */
    const char *file;                    /* the file that was read; NULL: none            */
} dr_settings;

/* The value of a variable in env ("NAME=value", NULL at the end); NULL: not set. */
const char *dr_env_find(const char *const *env, const char *name);

/*
 * Reads words (up to the program's name), env and the config file: --config_file, $DREAMRUN_CONFIG,
 * else the first that exists of ~/.config/dreamrun/default.yaml and accelerate's
 * default_config.yaml. *n_used: words that were options. The caller ends it with dr_settings_deinit
 * whatever is returned.
 */
DR_MUST_USE dr_status dr_settings_read(dr_settings *s, const char *const *env, int argc,
                                       const char *const *argv, int *n_used);
void dr_settings_deinit(dr_settings *s);
/* Seconds of --start_timeout, which --rdzv_conf may set too. */
double dr_settings_start_timeout(const dr_optset *o);
/* Where dreamrun config writes: $DREAMRUN_CONFIG or ~/.config/dreamrun/default.yaml. */
void dr_settings_own_file(const char *const *env, dr_str *out);

#endif
