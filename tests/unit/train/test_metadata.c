#include "dr_test.h"

#include "base/file.h"
#include "train/model/metadata.h"

#include <stdlib.h>
#include <string.h>

static void assert_value(const dr_metadata *m, const char *key, const char *want)
{
    const char *got = dr_metadata_get(m, key);
    if (want == NULL) {
        assert_null(got);
        return;
    }
    assert_non_null(got);
    assert_string_equal(got, want);
}

/* Expected texts: sd-scripts' library/sai_model_spec.py, spec/sdscripts.md 8.5. */
static void modelspec_says_what_a_checkpoint_is(void **state)
{
    (void)state;
    dr_metadata m;
    dr_metadata_init(&m);
    assert_int_equal(setenv("TZ", "UTC", 1), 0);
    dr_metadata_add_modelspec(&m, &(dr_modelspec){.output_name = "dog",
                                                  .min_timestep = -1,
                                                  .max_timestep = -1,
                                                  .time_s = 1700000000,
                                                  .texts = {.author = "me"}});
    assert_value(&m, "modelspec.sai_model_spec", "1.0.1");
    assert_value(&m, "modelspec.architecture", "stable-diffusion-v1");
    assert_value(&m, "modelspec.implementation",
                 "https://github.com/Stability-AI/generative-models");
    assert_value(&m, "modelspec.title", "dog");
    assert_value(&m, "modelspec.resolution", "512x512");
    assert_value(&m, "modelspec.date", "2023-11-14T22:13:20");
    assert_value(&m, "modelspec.prediction_type", "epsilon");
    assert_value(&m, "modelspec.author", "me");
    assert_value(&m, "modelspec.timestep_range", NULL);
    assert_value(&m, "modelspec.encoder_layer", NULL);
    assert_value(&m, "modelspec.tags", NULL);
    dr_metadata_deinit(&m);
}

static void modelspec_of_a_lora_for_the_768_model(void **state)
{
    (void)state;
    dr_metadata m;
    dr_metadata_init(&m);
    dr_metadata_add_modelspec(&m, &(dr_modelspec){.v2 = true,
                                                  .v_prediction = true,
                                                  .lora = true,
                                                  .min_timestep = 100,
                                                  .max_timestep = -1,
                                                  .clip_skip = 2,
                                                  .time_s = 5});
    assert_value(&m, "modelspec.architecture", "stable-diffusion-v2-768-v/lora");
    assert_value(&m, "modelspec.implementation", "diffusers");
    assert_value(&m, "modelspec.title", "LoRA@5");
    assert_value(&m, "modelspec.resolution", "768x768");
    assert_value(&m, "modelspec.prediction_type", "v");
    assert_value(&m, "modelspec.timestep_range", "100,1000");
    assert_value(&m, "modelspec.encoder_layer", "2");
    assert_string_equal(dr_base_model_version(true, true), "sd_v2_v");
    assert_string_equal(dr_base_model_version(false, false), "sd_v1");
    dr_metadata_deinit(&m);
}

/* Expected text: Python's base64.b64encode(bytes(range(n))). */
static void thumbnails_are_embedded(void **state)
{
    (void)state;
    static const char *const want[] = {
        "data:image/png;base64,AAECAw==", "data:image/png;base64,AAECAwQ=",
        "data:image/png;base64,AAECAwQF"};
    char *path = dr_path_join(dr_test_tmpdir(), "small.PNG");
    for (size_t n = 4; n <= 6; n++) {
        dr_metadata m;
        dr_metadata_init(&m);
        assert_ok(dr_file_write(path, "\0\1\2\3\4\5", n));
        dr_metadata_add_modelspec(&m, &(dr_modelspec){.texts = {.thumbnail = path}});
        assert_value(&m, "modelspec.thumbnail", want[n - 4]);
        dr_metadata_deinit(&m);
    }
    free(path);
    dr_metadata m;
    dr_metadata_init(&m);
    dr_metadata_add_modelspec(&m, &(dr_modelspec){.texts = {.thumbnail = "/nowhere.png"}});
    assert_value(&m, "modelspec.thumbnail", NULL);
    dr_metadata_add_modelspec(&m, &(dr_modelspec){.texts = {.thumbnail = "data:,x"}});
    assert_value(&m, "modelspec.thumbnail", "data:,x");
    dr_metadata_deinit(&m);
}

static void facts_are_spelled_as_python_does(void **state)
{
    (void)state;
    const dr_ss_facts facts = {.learning_rate = dr_fact_float(1e-6),
                               .unet_lr = dr_fact_none(),
                               .network_module = dr_fact_text("networks.lora"),
                               .network_dim = dr_fact_int(4),
                               .network_alpha = dr_fact_float(1.0),
                               .v2 = dr_fact_bool(false),
                               .lowram = dr_fact_bool(true),
                               .training_comment = dr_fact_text(NULL)};
    dr_metadata m;
    dr_metadata_init(&m);
    dr_metadata_add_ss(&m, &facts, false);
    assert_int_equal(m.n, 8);
    assert_value(&m, "ss_learning_rate", "1e-06");
    assert_value(&m, "ss_unet_lr", "None");
    assert_value(&m, "ss_network_alpha", "1.0");
    assert_value(&m, "ss_v2", "False");
    assert_value(&m, "ss_lowram", "True");
    assert_value(&m, "ss_training_comment", "None");
    assert_value(&m, "ss_seed", NULL);
    dr_metadata_deinit(&m);
    dr_metadata_init(&m);
    dr_metadata_add_ss(&m, &facts, true);
    assert_int_equal(m.n, 4);
    assert_value(&m, "ss_network_dim", "4");
    assert_value(&m, "ss_learning_rate", NULL);
    dr_metadata_add(&m, "ss_network_dim", "8");
    assert_int_equal(m.n, 4);
    assert_value(&m, "ss_network_dim", "8");
    dr_metadata_deinit(&m);
}

/* Expected: hashlib.sha256 of a file of 0x100000 + 0x20000 zero bytes, and of its 64 KiB. */
static void files_are_known_by_two_hashes(void **state)
{
    (void)state;
    const size_t n = 0x120000;
    char *zeros = calloc(n, 1);
    char *path = dr_path_join(dr_test_tmpdir(), "base.safetensors");
    dr_arena arena;
    dr_file_facts f;
    dr_arena_init(&arena);
    assert_ok(dr_file_write(path, zeros, n));
    assert_ok(dr_file_facts_read(&arena, path, &f));
    assert_string_equal(f.name.text, "base.safetensors");
    assert_string_equal(f.hash.text, "de2f2560");
    assert_string_equal(f.new_hash.text,
                        "a76c77fe203db862b48214c88fbdc1d5560655ccba2f7a2c7166baf6f846e856");
    assert_ok(dr_file_facts_read(&arena, dr_test_tmpdir(), &f));
    assert_string_equal(f.new_hash.text, "IsADirectory");
    dr_arena_deinit(&arena);
    free(path);
    free(zeros);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(modelspec_says_what_a_checkpoint_is),
        cmocka_unit_test(modelspec_of_a_lora_for_the_768_model),
        cmocka_unit_test(thumbnails_are_embedded),
        cmocka_unit_test(facts_are_spelled_as_python_does),
        cmocka_unit_test(files_are_known_by_two_hashes),
    };
    return DR_TEST_MAIN("metadata", tests);
}
