#include "launcher/settings.h"

#include "base/arena.h"
#include "base/file.h"
#include "launcher/config_file.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

const char *dr_env_find(const char *const *env, const char *name)
{
    size_t n = strlen(name);
    for (size_t i = 0; env[i] != NULL; i++) {
        if (strncmp(env[i], name, n) == 0 && env[i][n] == '=') {
            return env[i] + n + 1;
        }
    }
    return NULL;
}

static const dr_opt_spec *spec_of(int id)
{
    return &dr_launch_option_table()->specs[id];
}

static bool is_option(int id)
{
    const char *name = spec_of(id)->name;
    return name != NULL && !dr_str_ends(name, "*");
}

/* --- environment ------------------------------------------------------------------------------ */

static dr_status set_from(dr_settings *s, int id, const char *value, const char *origin)
{
    const dr_opt_spec *spec = spec_of(id);
    bool flag = spec->type == DR_OPT_TYPE_FLAG;
    if (s->origin[id] != NULL) {
        return DR_OK;
    }
    if (flag && (strcmp(value, "1") == 0 || strcasecmp(value, "yes") == 0)) {
        value = "true";
    } else if (flag &&
               (value[0] == '\0' || strcmp(value, "0") == 0 || strcasecmp(value, "no") == 0)) {
        value = "false";
    }
    dr_status st = dr_optset_set(&s->options, spec->name, value);
    s->origin[id] = dr_arena_strdup(&s->options.arena, origin);
    return st;
}

static dr_status set_from_variable(dr_settings *s, const char *const *env, int id, const char *name)
{
    char origin[80];
    const char *value = dr_env_find(env, name);
    if (value == NULL) {
        return DR_OK;
    }
    (void)snprintf(origin, sizeof origin, "$%s", name);
    dr_status st = set_from(s, id, value, origin);
    return st == DR_OK ? st : dr_error_prefix(st, "$%s", name);
}

static dr_status read_environment(dr_settings *s, const char *const *env)
{
    static const struct {
        const char *name;
        int id;
    } of_accelerate[] = {
        {"ACCELERATE_USE_CPU", DR_LAUNCH_cpu},
        {"ACCELERATE_DEBUG_MODE", DR_LAUNCH_debug},
        {"ACCELERATE_MIXED_PRECISION", DR_LAUNCH_mixed_precision},
        {"ACCELERATE_CPU_AFFINITY", DR_LAUNCH_enable_cpu_affinity},
    };
    for (int id = 0; id < DR_LAUNCH_OPTION_COUNT; id++) {
        char name[64] = "DREAMRUN_";
        size_t at = strlen(name);
        if (!is_option(id) || spec_of(id)->availability == DR_OPT_NOTED) {
            continue;
        }
        for (const char *c = spec_of(id)->name; *c != '\0' && at + 1 < sizeof name; c++) {
            name[at++] = (char)toupper((unsigned char)*c);
        }
        name[at] = '\0';
        DR_TRY(set_from_variable(s, env, id, name));
    }
    for (size_t i = 0; i < sizeof of_accelerate / sizeof *of_accelerate; i++) {
        DR_TRY(set_from_variable(s, env, of_accelerate[i].id, of_accelerate[i].name));
    }
    return DR_OK;
}

/* --- file ---------------------------------------------------------------------------------------
 */

static dr_status take_from_file(void *user, const char *option, const char *value)
{
    dr_settings *s = user;
    char origin[512];
    int id = -1;
    DR_TRY(dr_optset_find(&s->options, option, &id));
    if (strcmp(option, "num_processes") == 0 && strcmp(value, "-1") == 0) {
        if (s->origin[id] == NULL) {
            DR_FAIL(DR_INVALID, "num_processes is -1 there, so --num_processes must be given");
        }
        return DR_OK;
    }
    (void)snprintf(origin, sizeof origin, "file %s", s->file);
    return set_from(s, id, value, origin);
}

static void home_path(const char *const *env, const char *variable, const char *below_home,
                      const char *rest, dr_str *out)
{
    const char *base = dr_env_find(env, variable);
    if (base != NULL && base[0] != '\0') {
        dr_str_printf(out, "%s/%s", base, rest);
        return;
    }
    const char *home = dr_env_find(env, "HOME");
    dr_str_printf(out, "%s/%s/%s", home != NULL ? home : "", below_home, rest);
}

void dr_settings_own_file(const char *const *env, dr_str *out)
{
    const char *named = dr_env_find(env, "DREAMRUN_CONFIG");
    if (named != NULL && named[0] != '\0') {
        dr_str_add(out, named);
        return;
    }
    home_path(env, "XDG_CONFIG_HOME", ".config", "dreamrun/default.yaml", out);
}

/* The file to read into s->file. */
static void choose_file(dr_settings *s, const char *const *env)
{
    dr_str own = {0};
    dr_str theirs = {0};
    const char *named = dr_opt_str(&s->options, DR_LAUNCH_config_file);
    dr_settings_own_file(env, &own);
    home_path(env, "HF_HOME", ".cache/huggingface", "accelerate/default_config.yaml", &theirs);
    if (named != NULL) {
        s->file = dr_arena_strdup(&s->options.arena, named);
    } else if (dr_env_find(env, "DREAMRUN_CONFIG") != NULL || dr_path_exists(dr_str_get(&own))) {
        s->file = dr_arena_strdup(&s->options.arena, dr_str_get(&own));
    } else if (dr_path_exists(dr_str_get(&theirs))) {
        s->file = dr_arena_strdup(&s->options.arena, dr_str_get(&theirs));
    }
    dr_str_free(&own);
    dr_str_free(&theirs);
}

/* --- all of it ---------------------------------------------------------------------------------
 */

dr_status dr_settings_read(dr_settings *s, const char *const *env, int argc,
                           const char *const *argv, int *n_used)
{
    memset(s, 0, sizeof *s);
    dr_optset_init(&s->options, dr_launch_option_table(), 0);
    DR_TRY(dr_optset_parse(&s->options, argc, argv, n_used));
    if (s->options.help) {
        return DR_OK;
    }
    for (int id = 0; id < DR_LAUNCH_OPTION_COUNT; id++) {
        s->origin[id] = s->options.values[id].given ? "command line" : NULL;
    }
    DR_TRY(read_environment(s, env));
    choose_file(s, env);
    if (s->file != NULL) {
        DR_TRY(dr_config_file_each(s->file, take_from_file, s));
    }
    return dr_optset_check_available(&s->options);
}

void dr_settings_deinit(dr_settings *s)
{
    dr_optset_deinit(&s->options);
}

double dr_settings_start_timeout(const dr_optset *o)
{
    const char *conf = dr_opt_str(o, DR_LAUNCH_rdzv_conf);
    double s = 0.0;
    if (conf != NULL && dr_str_starts(conf, "timeout=") &&
        dr_parse_f64(conf + strlen("timeout="), &s)) {
        return s;
    }
    return dr_opt_float(o, DR_LAUNCH_start_timeout);
}
