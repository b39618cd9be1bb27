#include "dr_test.h"

#include "apps/config_file.h"
#include "base/file.h"
#include "base/log.h"

#include <stdlib.h>
#include <string.h>

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static void parse(dr_options *o, const char *const *argv)
{
    int argc = 0;
    while (argv[argc] != NULL) {
        argc++;
    }
    dr_options_init(o, DR_PROGRAM_TRAIN_DB);
    assert_ok(dr_options_parse(o, argc, argv));
}

/* A file of the test's folder; the caller frees its path. */
static char *config(const char *name, const char *text)
{
    char *path = dr_path_join(dr_test_tmpdir(), name);
    assert_ok(dr_file_write(path, text, strlen(text)));
    return path;
}

static void the_file_is_flattened_and_the_command_line_wins(void **state)
{
    (void)state;
    char *path = config("a.toml", "train_batch_size = 2\nseed = 1\nflip_aug = true\n"
                                  "cache_latents = false\nlr_warmup_steps = '5%'\n"
                                  "[model]\nlearning_rate = 1e-4\noutput_name = 'x'\nv2 = false\n"
                                  "max_grad_norm = 2\noptimizer_args = ['eps=1e-7', 'x=1']\n"
                                  "[later]\noutput_name = 7\nflip_aug = false\n");
    char *bare = dr_path_join(dr_test_tmpdir(), "a"); /* .toml is added */
    dr_options o;
    parse(&o, WORDS("--seed=9", "--config_file", bare));
    assert_ok(dr_config_file_read(&o));
    assert_int_equal(dr_opt_int(&o, DR_OPT_seed), 9);
    assert_int_equal(dr_opt_int(&o, DR_OPT_train_batch_size), 2);
    assert_false(dr_opt_flag(&o, DR_OPT_flip_aug));
    assert_false(dr_opt_given(&o, DR_OPT_cache_latents));
    assert_true(dr_opt_float(&o, DR_OPT_learning_rate) == 1e-4);
    assert_true(dr_opt_float(&o, DR_OPT_max_grad_norm) == 2.0);
    assert_string_equal(dr_opt_str(&o, DR_OPT_output_name), "7");
    assert_int_equal(dr_opt_list(&o, DR_OPT_optimizer_args)->n, 2);
    assert_string_equal(dr_opt_list(&o, DR_OPT_optimizer_args)->at[1], "x=1");
    assert_int_equal(dr_opt_steps(&o, DR_OPT_lr_warmup_steps, 1000), 50);
    dr_options_deinit(&o);
    free(path);
    free(bare);
}

static void expect_error(const char *text, dr_status want, const char *message)
{
    char *path = config("bad.toml", text);
    dr_options o;
    parse(&o, WORDS("--config_file", path));
    assert_error(dr_config_file_read(&o), want, message);
    dr_options_deinit(&o);
    free(path);
}

static void mistakes_are_named_with_their_place(void **state)
{
    (void)state;
    expect_error("# x\nlearnig_rate = 1e-4", DR_INVALID,
                 "bad.toml:2:1: unknown option --learnig_rate; did you mean --learning_rate?");
    expect_error("learning_rate = '1e-4'", DR_INVALID,
                 "bad.toml:1:1: learning_rate: found text, expected a number without quotes");
    expect_error("seed = 1.5", DR_INVALID, "expected a whole number without quotes");
    expect_error("v2 = 1", DR_INVALID, "v2: found a whole number, expected true or false");
    expect_error("resolution = [512, 512]", DR_INVALID, "found a list, expected text in quotes");
    expect_error("output_name = \"a\\u0000b\"", DR_INVALID, "expected text in quotes");
    expect_error("optimizer_args = [1]", DR_INVALID, "expected a list of texts");
    expect_error("lr_scheduler = 'cosin'", DR_INVALID,
                 "bad.toml:1:1: --lr_scheduler: found 'cosin', expected one of linear, cosine");
    expect_error("train_batch_size = 0", DR_INVALID, "found 0, expected a value >=1");
    expect_error("[a]\n[a.b]\nseed = 1", DR_INVALID, "the table 'b' lies inside the table 'a'");
    expect_error("network_dim = 4", DR_INVALID, "is an option of train_network");
    expect_error("config_file = 'x'", DR_INVALID, "has no place in a file of options");
    expect_error("seed = 1\nseed = 2", DR_FORMAT, "bad.toml:2:1: 'seed' is defined a second time");
    dr_options o;
    parse(&o, WORDS("--config_file", "/nowhere/x"));
    assert_error(dr_config_file_read(&o), DR_INVALID, "/nowhere/x.toml does not exist");
    dr_options_deinit(&o);
}

static void what_is_written_is_read_back(void **state)
{
    (void)state;
    char *path = dr_path_join(dr_test_tmpdir(), "out.toml");
    dr_options o;
    parse(&o, WORDS("--config_file", path, "--output_config", "--learning_rate=1e-06", "--v2",
                    "--optimizer_args", "a=\"1\"", "b=\\2", "--caption_separator", ",",
                    "--lr_warmup_steps=0.1", "--seed=0", "--output_name", "caf\xc3\xa9 \"x\"",
                    "--huggingface_token=secret"));
    int before = dr_log_warnings();
    assert_ok(dr_config_file_write(&o));
    assert_int_equal(dr_log_warnings() - before, 1);
    assert_error(dr_config_file_write(&o), DR_OUTPUT, "exists already");
    dr_options_deinit(&o);
    char *text = NULL;
    size_t n = 0;
    assert_ok(dr_file_read(path, 1 << 20, &text, &n));
    assert_string_equal(text,
                        "v2 = true\nseed = 0\noptimizer_args = [\"a=\\\"1\\\"\", \"b=\\\\2\"]\n"
                        "learning_rate = 1e-06\nlr_warmup_steps = 0.1\n"
                        "output_name = \"caf\xc3\xa9 \\\"x\\\"\"\n");
    free(text);
    parse(&o, WORDS("--config_file", path));
    assert_ok(dr_config_file_read(&o));
    assert_string_equal(dr_opt_str(&o, DR_OPT_output_name), "caf\xc3\xa9 \"x\"");
    assert_string_equal(dr_opt_list(&o, DR_OPT_optimizer_args)->at[1], "b=\\2");
    assert_true(dr_opt_flag(&o, DR_OPT_v2));
    dr_options_deinit(&o);
    parse(&o, WORDS("--output_config"));
    assert_error(dr_config_file_write(&o), DR_INVALID, "--output_config needs --config_file");
    dr_options_deinit(&o);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_file_is_flattened_and_the_command_line_wins),
        cmocka_unit_test(mistakes_are_named_with_their_place),
        cmocka_unit_test(what_is_written_is_read_back),
    };
    return DR_TEST_MAIN("config_file", tests);
}
