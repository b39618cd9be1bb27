/* dreamrun config: writes the file with launch options. */
#include "launcher/commands.h"

#include "base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct answers {
    int64_t n_processes, n_machines, machine_rank;
    int64_t main_port; /* 0: none */
    bool cpu, multi_gpu, debug, affinity;
    char precision[8], gpu_ids[128], main_ip[256];
    dr_str own; /* lines below the key dreamrun */
} answers;

/* --- questions ----------------------------------------------------------------------------------
 */

/* One line from stdin without its end; at its end, or when it is empty, the default. */
static void ask(const char *question, const char *unset, char *answer, size_t size)
{
    char line[256];
    (void)printf("%s [%s]: ", question, unset);
    (void)fflush(stdout);
    if (fgets(line, (int)sizeof line, stdin) == NULL) {
        line[0] = '\0';
        (void)printf("\n");
    }
    line[strcspn(line, "\r\n")] = '\0';
    (void)snprintf(answer, size, "%s", line[0] != '\0' ? line : unset);
}

static dr_status ask_number(const char *question, int64_t unset, int64_t *out)
{
    char text[64];
    char given[32];
    (void)snprintf(given, sizeof given, "%lld", (long long)unset);
    ask(question, given, text, sizeof text);
    if (!dr_parse_i64(text, out) || *out < 1) {
        DR_FAIL(DR_INVALID, "dreamrun config: found '%s', expected a whole number from 1 on", text);
    }
    return DR_OK;
}

static dr_status ask_yes(const char *question, bool unset, bool *out)
{
    char text[64];
    ask(question, unset ? "yes" : "no", text, sizeof text);
    *out = text[0] == 'y' || text[0] == 'Y';
    if (!*out && text[0] != 'n' && text[0] != 'N') {
        DR_FAIL(DR_INVALID, "dreamrun config: found '%s', expected yes or no", text);
    }
    return DR_OK;
}

static dr_status check_precision(const char *text)
{
    static const char *const known[] = {"no", "fp16", "bf16"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(text, known[i]) == 0) {
            return DR_OK;
        }
    }
    DR_FAIL(DR_INVALID, "dreamrun config: mixed precision: found '%s', expected no, fp16 or bf16",
            text);
}

static dr_status ask_all(answers *a, const dr_launch_facts *f)
{
    bool gpus = f->n_gpus > 0;
    DR_TRY(ask_number("How many machines?", 1, &a->n_machines));
    if (gpus) {
        DR_TRY(ask_yes("Train on CPUs only?", false, &a->cpu));
    }
    a->cpu = a->cpu || !gpus;
    if (!a->cpu) {
        ask("Which GPUs of each machine (all, or numbers such as 0,1)?", "all", a->gpu_ids,
            sizeof a->gpu_ids);
    }
    int64_t usual = a->cpu ? 1 : f->n_gpus * a->n_machines;
    DR_TRY(ask_number("How many ranks in all, over all machines?", usual, &a->n_processes));
    a->multi_gpu = !a->cpu && a->n_processes > 1;
    ask("Mixed precision (no, fp16, bf16)?", a->precision, a->precision, sizeof a->precision);
    return check_precision(a->precision);
}

/* --- the file -----------------------------------------------------------------------------------
 */

static void describe(const answers *a, dr_str *out)
{
    dr_str_printf(out,
                  "compute_environment: LOCAL_MACHINE\n"
                  "debug: %s\n"
                  "distributed_type: '%s'\n"
                  "downcast_bf16: 'no'\n"
                  "enable_cpu_affinity: %s\n",
                  a->debug ? "true" : "false",
                  a->multi_gpu                   ? "MULTI_GPU"
                  : a->cpu && a->n_processes > 1 ? "MULTI_CPU"
                                                 : "NO",
                  a->affinity ? "true" : "false");
    if (a->gpu_ids[0] != '\0') {
        dr_str_printf(out, "gpu_ids: '%s'\n", a->gpu_ids);
    }
    dr_str_printf(out, "machine_rank: %lld\n", (long long)a->machine_rank);
    if (a->main_ip[0] != '\0') {
        dr_str_printf(out, "main_process_ip: '%s'\n", a->main_ip);
    }
    if (a->main_port > 0) {
        dr_str_printf(out, "main_process_port: %lld\n", (long long)a->main_port);
    }
    dr_str_printf(out,
                  "main_training_function: main\n"
                  "mixed_precision: '%s'\n"
                  "num_machines: %lld\n"
                  "num_processes: %lld\n"
                  "rdzv_backend: static\n"
                  "same_network: true\n"
                  "use_cpu: %s\n",
                  a->precision, (long long)a->n_machines, (long long)a->n_processes,
                  a->cpu ? "true" : "false");
    if (a->own.len > 0) {
        dr_str_printf(out, "dreamrun:\n%s", dr_str_get(&a->own));
    }
}

static dr_status write_file(const answers *a, const char *path)
{
    dr_str text = {0};
    dr_str dir = {0};
    describe(a, &text);
    dr_str_add_n(&dir, path, (size_t)(dr_path_base(path) - path));
    dr_status st = dir.len > 0 ? dr_mkdirs(dr_str_get(&dir)) : DR_OK;
    if (st == DR_OK) {
        st = dr_file_write(path, dr_str_get(&text), text.len);
    }
    if (st == DR_OK) {
        (void)printf("written: %s\n", path);
    }
    dr_str_free(&dir);
    dr_str_free(&text);
    return st;
}

/* --- update -------------------------------------------------------------------------------------
 */

static bool has_key(int id)
{
    static const int of_accelerate[] = {
        DR_LAUNCH_machine_rank,  DR_LAUNCH_main_process_ip, DR_LAUNCH_main_process_port,
        DR_LAUNCH_cpu,           DR_LAUNCH_multi_gpu,       DR_LAUNCH_debug,
        DR_LAUNCH_num_processes, DR_LAUNCH_num_machines,    DR_LAUNCH_gpu_ids,
        DR_LAUNCH_config_file,   DR_LAUNCH_mixed_precision, DR_LAUNCH_enable_cpu_affinity};
    for (size_t i = 0; i < sizeof of_accelerate / sizeof *of_accelerate; i++) {
        if (of_accelerate[i] == id) {
            return true;
        }
    }
    return false;
}

static dr_status take_old(answers *a, const char *path)
{
    dr_settings s;
    int used = 0;
    const char *const none[] = {NULL};
    const char *const words[] = {"--config_file", path, NULL};
    dr_status st = dr_settings_read(&s, none, 2, words, &used);
    const dr_optset *o = &s.options;
    if (st == DR_OK) {
        a->cpu = dr_opt_flag(o, DR_LAUNCH_cpu);
        a->multi_gpu = dr_opt_flag(o, DR_LAUNCH_multi_gpu);
        a->debug = dr_opt_flag(o, DR_LAUNCH_debug);
        a->affinity = dr_opt_flag(o, DR_LAUNCH_enable_cpu_affinity);
        a->n_processes = dr_opt_int_or(o, DR_LAUNCH_num_processes, a->n_processes);
        a->n_machines = dr_opt_int(o, DR_LAUNCH_num_machines);
        a->machine_rank = dr_opt_int_or(o, DR_LAUNCH_machine_rank, 0);
        a->main_port = dr_opt_int_or(o, DR_LAUNCH_main_process_port, 0);
        const char *ip = dr_opt_str(o, DR_LAUNCH_main_process_ip);
        (void)snprintf(a->main_ip, sizeof a->main_ip, "%s", ip != NULL ? ip : "");
        const char *precision = dr_opt_str(o, DR_LAUNCH_mixed_precision);
        const char *ids = dr_opt_str(o, DR_LAUNCH_gpu_ids);
        (void)snprintf(a->precision, sizeof a->precision, "%s",
                       precision != NULL ? precision : "no");
        (void)snprintf(a->gpu_ids, sizeof a->gpu_ids, "%s", ids != NULL ? ids : "");
    }
    for (int id = 0; st == DR_OK && id < DR_LAUNCH_OPTION_COUNT; id++) {
        const dr_opt_spec *spec = &dr_launch_option_table()->specs[id];
        if (s.origin[id] == NULL || has_key(id) || spec->availability != DR_OPT_AVAILABLE) {
            continue;
        }
        dr_str_printf(&a->own, spec->type == DR_OPT_TYPE_FLAG ? "  %s: %s\n" : "  %s: '%s'\n",
                      spec->name, spec->type == DR_OPT_TYPE_FLAG ? "true" : o->values[id].text);
    }
    dr_settings_deinit(&s);
    return st;
}

/* --- the command --------------------------------------------------------------------------------
 */

/* "--name value" and "--name=value" of the words; anything else is refused. */
static dr_status read_words(int argc, const char *const *argv, const char **precision,
                            const char **file)
{
    for (int i = 0; i < argc; i++) {
        const char *equals = strchr(argv[i], '=');
        size_t n = equals != NULL ? (size_t)(equals - argv[i]) : strlen(argv[i]);
        const char **slot = n == 17 && strncmp(argv[i], "--mixed_precision", n) == 0 ? precision
                            : n == 13 && strncmp(argv[i], "--config_file", n) == 0   ? file
                                                                                     : NULL;
        if (slot == NULL || (equals == NULL && i + 1 == argc)) {
            DR_FAIL(DR_INVALID,
                    "dreamrun config: found '%s', expected dreamrun config [default|update] "
                    "[--config_file FILE] [--mixed_precision no|fp16|bf16]",
                    argv[i]);
        }
        *slot = equals != NULL ? equals + 1 : argv[++i];
    }
    return DR_OK;
}

dr_status dr_command_config(const dr_launch_facts *f, int argc, const char *const *argv)
{
    const char *how = argc > 0 && argv[0][0] != '-' ? argv[0] : "";
    const char *precision = "no";
    const char *file = NULL;
    dr_str own_file = {0};
    answers a = {.n_processes = 1, .n_machines = 1};
    bool known = how[0] == '\0' || strcmp(how, "default") == 0 || strcmp(how, "update") == 0;
    int skip = known && how[0] != '\0';
    dr_status st = read_words(argc - skip, argv + skip, &precision, &file);
    dr_settings_own_file(f->env, &own_file);
    file = file != NULL ? file : dr_str_get(&own_file);
    if (st == DR_OK) {
        st = check_precision(precision);
    }
    (void)snprintf(a.precision, sizeof a.precision, "%s", precision);
    if (st == DR_OK && strcmp(how, "default") == 0) {
        a.cpu = f->n_gpus == 0;
        a.n_processes = a.cpu ? 1 : f->n_gpus;
        a.multi_gpu = a.n_processes > 1;
    } else if (st == DR_OK) {
        st = skip ? take_old(&a, file) : ask_all(&a, f);
    }
    if (st == DR_OK) {
        st = write_file(&a, file);
    }
    dr_str_free(&a.own);
    dr_str_free(&own_file);
    return st;
}
