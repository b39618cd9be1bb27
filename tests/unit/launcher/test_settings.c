#include "dr_test.h"

#include "base/file.h"
#include "launcher/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The options that this environment, config file (NULL: none) and command line give. */
static dr_status read_all(dr_settings *s, const char *const *more_env, const char *file,
                          const char *const *words)
{
    const char *env[8] = {"HOME=/nowhere"};
    size_t n = 1;
    int argc = 0;
    int used = 0;
    static char config[4200];
    if (file != NULL) {
        char *path = dr_path_join(dr_test_tmpdir(), "config.yaml");
        assert_ok(dr_file_write(path, file, strlen(file)));
        (void)snprintf(config, sizeof config, "DREAMRUN_CONFIG=%s", path);
        env[n++] = config;
        free(path);
    }
    for (size_t i = 0; more_env != NULL && more_env[i] != NULL; i++) {
        env[n++] = more_env[i];
    }
    env[n] = NULL;
    while (words != NULL && words[argc] != NULL) {
        argc++;
    }
    return dr_settings_read(s, env, argc, words, &used);
}

/* What `accelerate config default --mixed_precision fp16` of accelerate 1.15 wrote, and its JSON.
 */
static const char of_accelerate[] = "compute_environment: LOCAL_MACHINE\n"
                                    "debug: false\n"
                                    "distributed_type: MULTI_CPU\n"
                                    "downcast_bf16: 'no'\n"
                                    "enable_cpu_affinity: false\n"
                                    "gpu_ids: all\n"
                                    "machine_rank: 0\n"
                                    "main_training_function: main\n"
                                    "mixed_precision: fp16\n"
                                    "mpirun_config:\n"
                                    "  mpirun_ccl: '1'\n"
                                    "  mpirun_hostfile: /etc/hosts.mpi\n"
                                    "num_machines: 1\n"
                                    "num_processes: 3\n"
                                    "rdzv_backend: static\n"
                                    "same_network: true\n"
                                    "tpu_env: []\n"
                                    "tpu_use_cluster: false\n"
                                    "tpu_use_sudo: false\n"
                                    "use_cpu: true\n";

static void accelerates_file_is_read(void **state)
{
    (void)state;
    dr_settings s;
    assert_ok(read_all(&s, NULL, of_accelerate, NULL));
    assert_int_equal(dr_opt_int(&s.options, DR_LAUNCH_num_processes), 3);
    assert_string_equal(dr_opt_str(&s.options, DR_LAUNCH_mixed_precision), "fp16");
    assert_string_equal(dr_opt_str(&s.options, DR_LAUNCH_mpirun_hostfile), "/etc/hosts.mpi");
    assert_true(dr_opt_flag(&s.options, DR_LAUNCH_cpu));
    assert_false(dr_opt_flag(&s.options, DR_LAUNCH_debug));
    assert_true(dr_str_starts(s.origin[DR_LAUNCH_num_processes], "file "));
    dr_settings_deinit(&s);
    assert_ok(read_all(&s, NULL,
                       "{\"num_processes\": 2, \"mixed_precision\": \"no\", \"fsdp_config\": {}, "
                       "\"main_process_ip\": null, \"dreamrun\": {\"max_restarts\": 4, \"quiet\": "
                       "true}}",
                       NULL));
    assert_int_equal(dr_opt_int(&s.options, DR_LAUNCH_num_processes), 2);
    assert_int_equal(dr_opt_int(&s.options, DR_LAUNCH_max_restarts), 4);
    assert_true(dr_opt_flag(&s.options, DR_LAUNCH_quiet));
    dr_settings_deinit(&s);
}

static void nearer_sources_win(void **state)
{
    (void)state;
    dr_settings s;
    static const char *const env[] = {"DREAMRUN_NUM_PROCESSES=5", "ACCELERATE_MIXED_PRECISION=bf16",
                                      "DREAMRUN_GRACE=7", "ACCELERATE_USE_CPU=0", NULL};
    static const char *const words[] = {"--grace", "9", NULL};
    assert_ok(read_all(&s, env, of_accelerate, words));
    assert_int_equal(dr_opt_int(&s.options, DR_LAUNCH_num_processes), 5);
    assert_string_equal(s.origin[DR_LAUNCH_num_processes], "$DREAMRUN_NUM_PROCESSES");
    assert_string_equal(dr_opt_str(&s.options, DR_LAUNCH_mixed_precision), "bf16");
    assert_int_equal((int)dr_opt_float(&s.options, DR_LAUNCH_grace), 9);
    assert_string_equal(s.origin[DR_LAUNCH_grace], "command line");
    assert_false(dr_opt_flag(&s.options, DR_LAUNCH_cpu)); /* the environment's no holds */
    assert_null(s.origin[DR_LAUNCH_max_restarts]);        /* default */
    dr_settings_deinit(&s);
}

static void wrong_files_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        dr_status st;
        const char *message;
    } cases[] = {
        {"nonsense: 1\n", DR_INVALID, "config.yaml line 1: unknown key nonsense"},
        {"deepspeed_config:\n  zero_stage: 2\n", DR_UNSUPPORTED,
         "deepspeed_config is not supported"},
        {"distributed_type: FSDP\n", DR_UNSUPPORTED, "distributed_type FSDP is not supported"},
        {"compute_environment: AMAZON_SAGEMAKER\n", DR_UNSUPPORTED, "AMAZON_SAGEMAKER"},
        {"tpu_name: x\n", DR_UNSUPPORTED, "tpu_name is not supported"},
        {"num_processes: -1\n", DR_INVALID, "--num_processes must be given"},
        {"num_processes: many\n", DR_INVALID, "expected a whole number"},
        {"debug: perhaps\n", DR_INVALID, "debug: found 'perhaps', expected true or false"},
        {"a: [1\n", DR_FORMAT, "no YAML or JSON"},
        {"- 1\n", DR_INVALID, "expected keys and values"},
        {"mpirun_config:\n  other: 1\n", DR_INVALID, "unknown key mpirun_config.other"},
        {"dreamrun:\n  max_restart: 1\n", DR_INVALID, "max_restart"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dr_settings s;
        assert_error(read_all(&s, NULL, cases[i].text, NULL), cases[i].st, cases[i].message);
        dr_settings_deinit(&s);
    }
    dr_settings s;
    static const char *const words[] = {"--config_file", "/no/such/file", NULL};
    assert_error(read_all(&s, NULL, NULL, words), DR_IO, "/no/such/file");
    dr_settings_deinit(&s);
    static const char *const env[] = {"DREAMRUN_NUM_PROCESSES=0", NULL};
    assert_error(read_all(&s, env, NULL, NULL), DR_INVALID, "$DREAMRUN_NUM_PROCESSES");
    dr_settings_deinit(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accelerates_file_is_read),
        cmocka_unit_test(nearer_sources_win),
        cmocka_unit_test(wrong_files_are_named),
    };
    return DR_TEST_MAIN("settings", tests);
}
