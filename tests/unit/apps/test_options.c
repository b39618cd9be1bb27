#include "dr_test.h"

#include "apps/options.h"

#include <string.h>

#define BASE                                                                                       \
    "--pretrained_model_name_or_path=m", "--train_data_dir=t", "--resolution=512", "--output_dir=o"

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

static dr_status parse(dr_options *o, const char *const *argv)
{
    int argc = 0;
    while (argv[argc] != NULL) {
        argc++;
    }
    dr_options_init(o, DR_PROGRAM_TRAIN_DB);
    return dr_options_parse(o, argc, argv);
}

static void expect_parse_error(const char *const *argv, const char *text)
{
    dr_options o;
    assert_error(parse(&o, argv), DR_INVALID, text);
    dr_options_deinit(&o);
}

static void expect_check_error(const char *const *argv, dr_status want, const char *text)
{
    dr_options o;
    assert_ok(parse(&o, argv));
    assert_error(dr_options_check(&o), want, text);
    dr_options_deinit(&o);
}

static void expect_good(const char *const *argv)
{
    dr_options o;
    assert_ok(parse(&o, argv));
    assert_ok(dr_options_check(&o));
    dr_options_deinit(&o);
}

static void syntax_errors_name_flag_found_and_expected(void **state)
{
    (void)state;
    expect_parse_error(WORDS("--resolutoin", "512"),
                       "unknown option --resolutoin; did you mean --resolution?");
    expect_parse_error(WORDS("--frobnicate"), "train_db --help lists all options");
    expect_parse_error(WORDS("--network_dim", "4"), "--network_dim is an option of train_network");
    expect_parse_error(WORDS("--cap", "x"), "--cap is ambiguous: it may be --caption_separator, ");
    expect_parse_error(WORDS("--seed", "--v2"),
                       "--seed needs a whole number, found the next option --v2");
    expect_parse_error(WORDS("--output_dir"),
                       "--output_dir needs a value, found the end of the command line");
    expect_parse_error(WORDS("--seed", "4.5"), "--seed: found '4.5', expected a whole number");
    expect_parse_error(WORDS("--cache_latents=true"), "--cache_latents takes no value");
    expect_parse_error(WORDS("--train_batch_size=0"),
                       "--train_batch_size: found 0, expected a value >=1 pictures per rank");
    expect_parse_error(WORDS("--caption_dropout_rate=1.5"),
                       "--caption_dropout_rate: found 1.5, expected a value in 0..1");
    expect_parse_error(WORDS("--mixed_precision=fp8"),
                       "--mixed_precision: found 'fp8', expected one of no, fp16, bf16");
    expect_parse_error(WORDS("--lr_warmup_steps=1.0"), "without a decimal point");
    expect_parse_error(WORDS("--lr_warmup_steps=120%"), "expected 0% to 100%");
    expect_parse_error(WORDS("--learning_rate=nan"), "expected a number");
    expect_parse_error(WORDS("-v"), "unknown option -v");
    expect_parse_error(WORDS("pictures"), "'pictures' belongs to no option");
}

static void own_options_do_not_shadow_prefixes(void **state)
{
    (void)state;
    expect_parse_error(WORDS("--dump_d", "x"), "unknown option --dump_d; did you mean --dump_dir?");
    expect_parse_error(WORDS("--prog=json"), "unknown option --prog");
}

static void values_are_typed(void **state)
{
    (void)state;
    dr_options o;
    assert_ok(parse(&o, WORDS(BASE, "--lr_scheduler=cosine", "--lr_warmup_steps", "10%",
                              "--optimizer_type", "adamw", "--max_train_steps=20",
                              "--optimizer_args", "eps=1e-6", "weight_decay=0", "betas=(0.8, 0.95)",
                              "--cache_latents_to_disk", "--caption_extension", "txt")));
    assert_ok(dr_options_check(&o));
    assert_int_equal(dr_opt_steps(&o, DR_OPT_lr_warmup_steps, 25), 2);
    assert_string_equal(dr_opt_str(&o, DR_OPT_optimizer_type), "AdamW");
    assert_int_equal(dr_opt_int(&o, DR_OPT_max_train_steps), 20);
    assert_false(dr_opt_has(&o, DR_OPT_seed));
    assert_int_equal(dr_opt_int_or(&o, DR_OPT_seed, 7), 7);
    assert_true(dr_opt_flag(&o, DR_OPT_cache_latents));
    assert_false(dr_opt_flag(&o, DR_OPT_flip_aug));
    dr_optim_settings adamw;
    assert_ok(dr_options_optimizer(&o, &adamw));
    assert_true(adamw.weight_decay == 0.0 && adamw.beta1 == 0.8 && adamw.beta2 == 0.95 &&
                adamw.eps == 1e-6);
    char extension[16];
    assert_ok(dr_options_caption_extension(&o, extension, sizeof extension));
    assert_string_equal(extension, ".txt");
    assert_panics((void)dr_opt_int(&o, DR_OPT_output_dir));
    assert_panics((void)dr_opt_int(&o, DR_OPT_seed));
    dr_options_deinit(&o);
}

static void resolution_is_one_or_two_multiples_of_64(void **state)
{
    (void)state;
    dr_options o;
    int w = 0;
    int h = 0;
    assert_ok(parse(&o, WORDS("--resolution=512,768")));
    assert_ok(dr_options_resolution(&o, &w, &h));
    assert_int_equal(w, 512);
    assert_int_equal(h, 768);
    dr_options_deinit(&o);
    static const struct {
        const char *flag, *message;
    } bad[] = {
        {"--resolution=500", "found 500, expected a multiple of 64; the nearest are 448 and 512"},
        {"--resolution=512,1", "found 1, expected a multiple of 64; the nearest are 64 and 128"},
        {"--resolution=512x512", "expected a size in pixels such as 512"},
        {"--resolution=512,512,512", "expected a size in pixels"},
        {"--resolution=,512", "expected a size in pixels"},
        {"--resolution=-64", "expected a size in pixels"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_ok(parse(&o, WORDS(bad[i].flag)));
        assert_error(dr_options_resolution(&o, &w, &h), DR_INVALID, bad[i].message);
        dr_options_deinit(&o);
    }
}

static void what_is_not_built_is_refused_by_name(void **state)
{
    (void)state;
    expect_check_error(WORDS(BASE, "--fp8_base", "--mixed_precision=bf16"), DR_UNSUPPORTED,
                       "--fp8_base is not supported: there is no fp8 arithmetic here");
    expect_check_error(WORDS(BASE, "--optimizer_type=dadaptsgd"), DR_UNSUPPORTED,
                       "--optimizer_type DAdaptSGD is not available yet; available: AdamW");
    expect_check_error(WORDS(BASE, "--torch_compile"), DR_UNSUPPORTED,
                       "--torch_compile is not supported: there is no graph compiler here");
    expect_check_error(WORDS(BASE, "--optimizer_args", "amsgrad=True"), DR_UNSUPPORTED, "amsgrad");
    expect_good(WORDS(BASE, "--multires_noise_discount=0.30", "--huber_c", "0.1", "--loss_type=l2",
                      "--lr_decay_steps=0", "--keep_tokens_separator=", "--optimizer_type="));
    expect_good(WORDS(BASE, "--xformers", "--persistent_data_loader_workers"));
}

static void forbidden_pairs_are_named_before_anything_else(void **state)
{
    (void)state;
    expect_check_error(WORDS("--cache_latents", "--color_aug"), DR_INVALID,
                       "--cache_latents and --color_aug exclude each other");
    expect_check_error(WORDS("--random_crop", "--cache_latents_to_disk"), DR_INVALID,
                       "--cache_latents_to_disk and --random_crop exclude each other");
    expect_check_error(WORDS("--use_8bit_adam", "--optimizer_type=Lion"), DR_INVALID,
                       "both choose the optimizer");
    expect_check_error(WORDS("--full_fp16"), DR_INVALID, "--full_fp16 needs --mixed_precision");
    expect_check_error(WORDS("--full_bf16", "--mixed_precision=fp16"), DR_INVALID,
                       "needs --mixed_precision bf16, found fp16");
    expect_check_error(WORDS("--full_fp16", "--mixed_precision=bf16"), DR_INVALID,
                       "needs --mixed_precision fp16, found bf16");
    expect_check_error(WORDS("--adaptive_noise_scale=1"), DR_INVALID, "needs --noise_offset");
    expect_check_error(WORDS(BASE, "--dump_steps=2"), DR_INVALID, "--dump_steps needs --dump_dir");
}

static void missing_and_unfitting_values_are_named(void **state)
{
    (void)state;
    expect_check_error(WORDS("--v2"), DR_INVALID, "--pretrained_model_name_or_path is missing");
    expect_check_error(
        WORDS("--pretrained_model_name_or_path=m", "--resolution=64", "--output_dir=o"), DR_INVALID,
        "--train_data_dir is missing");
    expect_check_error(WORDS(BASE, "--output_dir="), DR_INVALID, "--output_dir is missing");
    expect_check_error(WORDS(BASE, "--sample_at_first"), DR_INVALID,
                       "sample pictures need --sample_prompts");
    expect_good(WORDS(BASE, "--sample_prompts=p.txt", "--sample_every_n_epochs=0"));
    expect_check_error(WORDS(BASE, "--enable_bucket", "--bucket_reso_steps=32"), DR_INVALID,
                       "--bucket_reso_steps: found 32");
    expect_check_error(WORDS(BASE, "--enable_bucket", "--min_bucket_reso=576"), DR_INVALID,
                       "--min_bucket_reso: found 576");
    expect_check_error(WORDS(BASE, "--enable_bucket", "--max_bucket_reso=448"), DR_INVALID,
                       "--max_bucket_reso: found 448");
    expect_good(WORDS(BASE, "--enable_bucket", "--max_bucket_reso=448", "--bucket_no_upscale"));
    expect_good(WORDS(BASE, "--v_parameterization", "--enable_bucket"));
    expect_check_error(WORDS(BASE, "--lr_warmup_steps=10"), DR_INVALID,
                       "--lr_scheduler constant has no warm-up; use constant_with_warmup");
    expect_check_error(WORDS(BASE, "--lr_scheduler=polynomial", "--learning_rate=1e-7"), DR_INVALID,
                       "polynomial ends at 1e-07");
    expect_check_error(WORDS(BASE, "--optimizer_args", "weight_decay"), DR_INVALID,
                       "found 'weight_decay', expected key=value");
    expect_check_error(WORDS(BASE, "--optimizer_args", "weight_decy=1"), DR_INVALID,
                       "AdamW has no setting 'weight_decy'");
    expect_check_error(WORDS(BASE, "--optimizer_args", "betas=0.9"), DR_INVALID,
                       "expected two numbers");
    expect_check_error(WORDS(BASE, "--optimizer_args", "betas=0.9,1"), DR_INVALID, "betas: found");
    expect_check_error(WORDS(BASE, "--optimizer_args", "eps=-1"), DR_INVALID, "eps: found '-1'");
    expect_check_error(WORDS(BASE, "--caption_extension=a/b"), DR_INVALID, "found 'a/b'");
}

static void config_keys_set_what_the_command_line_left_open(void **state)
{
    (void)state;
    dr_options o;
    assert_ok(parse(&o, WORDS("--seed=1")));
    assert_ok(dr_optset_set(&o, "seed", "2"));
    assert_ok(dr_optset_set(&o, "learning_rate", "1e-4"));
    assert_ok(dr_optset_set(&o, "flip_aug", "true"));
    assert_error(dr_optset_set(&o, "lerning_rate", "1"), DR_INVALID,
                 "did you mean --learning_rate");
    assert_error(dr_optset_set(&o, "v2", "yes"), DR_INVALID, "expected true or false");
    assert_int_equal(dr_opt_int(&o, DR_OPT_seed), 1);
    assert_true(dr_opt_float(&o, DR_OPT_learning_rate) == 1e-4);
    assert_true(dr_opt_flag(&o, DR_OPT_flip_aug));
    dr_options_deinit(&o);
}

static void help_stops_parsing(void **state)
{
    (void)state;
    dr_options o;
    assert_ok(parse(&o, WORDS("--seed", "1", "--help", "--nonsense")));
    assert_true(o.help);
    dr_options_deinit(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(syntax_errors_name_flag_found_and_expected),
        cmocka_unit_test(own_options_do_not_shadow_prefixes),
        cmocka_unit_test(values_are_typed),
        cmocka_unit_test(resolution_is_one_or_two_multiples_of_64),
        cmocka_unit_test(what_is_not_built_is_refused_by_name),
        cmocka_unit_test(forbidden_pairs_are_named_before_anything_else),
        cmocka_unit_test(missing_and_unfitting_values_are_named),
        cmocka_unit_test(config_keys_set_what_the_command_line_left_open),
        cmocka_unit_test(help_stops_parsing),
    };
    return DR_TEST_MAIN("options", tests);
}
