#include "model_fixture.h"

#include "base/file.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static const char *const weights[] = {"unet/diffusion_pytorch_model.safetensors",
                                      "text_encoder/model.safetensors",
                                      "vae/diffusion_pytorch_model.safetensors"};

static dr_model_file *open_model(const char *name, bool v2)
{
    dr_model_file *f = NULL;
    assert_ok(dr_model_file_open(
        &(dr_model_open_options){.path = model_path(name), .v2 = v2, .v_parameterization = v2},
        &f));
    return f;
}

static dr_status save(const dr_model_file *f, const char *name, dr_save_format format)
{
    return dr_model_file_save(
        f, &(dr_model_save){.path = model_path(name), .format = format, .dtype = DR_F32});
}

static void save_as(const char *from, const char *to, bool v2, dr_save_format format)
{
    dr_model_file *f = open_model(from, v2);
    assert_ok(dr_model_file_check_save(f, format));
    assert_ok(save(f, to, format));
    dr_model_file_close(f);
}

static int make_models(void **state)
{
    (void)state;
    model_make("tiny", "one", DR_SAVE_DIFFUSERS);
    model_make("tiny2v", "two", DR_SAVE_DIFFUSERS);
    return 0;
}

static void assert_same_model(const char *a, const char *b)
{
    static const char *const texts[] = {"model_index.json",
                                        "unet/config.json",
                                        "text_encoder/config.json",
                                        "vae/config.json",
                                        "scheduler/scheduler_config.json",
                                        "tokenizer/vocab.json",
                                        "tokenizer/merges.txt",
                                        "tokenizer/special_tokens_map.json"};
    char x[128];
    char y[128];
    for (size_t i = 0; i < 3 + sizeof texts / sizeof *texts; i++) {
        const char *name = i < 3 ? weights[i] : texts[i - 3];
        (void)snprintf(x, sizeof x, "%s/%s", a, name);
        (void)snprintf(y, sizeof y, "%s/%s", b, name);
        assert_same_file(model_path(x), model_path(y));
    }
}

static void forms_turn_into_each_other_byte_for_byte(void **state)
{
    (void)state;
    static const struct {
        const char *source;
        bool v2;
    } cases[] = {{"one", false}, {"two", true}};
    for (int i = 0; i < 2; i++) {
        save_as(cases[i].source, "f.safetensors", cases[i].v2, DR_SAVE_SAFETENSORS);
        save_as("f.safetensors", "back", cases[i].v2, DR_SAVE_DIFFUSERS);
        assert_same_model(cases[i].source, "back"); /* over the model of the round before */
        save_as("f.safetensors", "g.safetensors", cases[i].v2, DR_SAVE_SAFETENSORS);
        assert_same_file(model_path("f.safetensors"), model_path("g.safetensors"));
        assert_no_leftovers();
    }
}

typedef struct trained { /* a U-Net whose every number is its index in memory order, mod 512 */
    dr_arena arena;
    dr_params set;
    float *values;
} trained;

static void make_trained(trained *t, const dr_model_file *f)
{
    dr_unet u;
    dr_arena_init(&t->arena);
    dr_params_init(&t->set, &t->arena);
    dr_unet_init(&u, &dr_model_file_config(f)->unet, &t->set);
    t->values = dr_xcalloc((size_t)t->set.n_elems, sizeof(float));
    dr_params_bind(&t->set, DR_F32, t->values, NULL);
    for (size_t i = 0; i < t->set.n; i++) {
        float *v = t->set.at[i]->value.data;
        for (int64_t k = 0; k < t->set.at[i]->n; k++) {
            v[k] = (float)(k % 512);
        }
    }
}

static void free_trained(trained *t)
{
    free(t->values);
    dr_params_deinit(&t->set);
    dr_arena_deinit(&t->arena);
}

static void trained_values_are_cast_and_the_rest_is_kept(void **state)
{
    (void)state;
    static const dr_safetensors_meta meta[] = {{"modelspec.title", "t"}, {"format", "other"}};
    dr_model_file *f = open_model("one", false);
    trained t;
    make_trained(&t, f);
    dr_model_save s = {.path = model_path("half.safetensors"),
                       .format = DR_SAVE_SAFETENSORS,
                       .dtype = DR_F16,
                       .unet = &t.set,
                       .meta = meta,
                       .n_meta = 2};
    assert_ok(dr_model_file_save(f, &s));
    dr_safetensors *got = NULL;
    assert_ok(dr_safetensors_open(&got, model_path("half.safetensors")));
    assert_string_equal(dr_safetensors_meta_get(got, "modelspec.title"), "t");
    assert_string_equal(dr_safetensors_meta_get(got, "format"), "pt");
    const dr_safetensors_tensor *conv =
        dr_safetensors_find(got, "model.diffusion_model.input_blocks.0.0.weight");
    assert_int_equal(conv->dtype, DR_F16);
    const void *data = NULL;
    uint16_t h[2];
    assert_ok(dr_safetensors_data(got, conv, &data));
    memcpy(h, data, sizeof h);
    /* memory is (O,KH,KW,I) with 4 inputs: file element [0,0,0,1] stands at 4 in memory */
    assert_true(dr_f16_to_f32(h[0]) == 0.0f && dr_f16_to_f32(h[1]) == 4.0f);
    const dr_safetensors_tensor *text =
        dr_safetensors_find(got, "cond_stage_model.transformer.text_model.final_layer_norm.weight");
    assert_int_equal(text->dtype, DR_F32);
    dr_safetensors_close(got);
    free_trained(&t);
    dr_model_file_close(f);
}

static void a_model_may_be_saved_over_its_own_source(void **state)
{
    (void)state;
    model_copy(model_path("one"), model_path("self"));
    dr_model_file *f = open_model("self", false);
    for (int i = 0; i < 2; i++) { /* the second time its files are those of the first */
        assert_ok(save(f, "self", DR_SAVE_DIFFUSERS));
        assert_same_model("one", "self");
    }
    dr_model_file_close(f);
    save_as("one", "self.safetensors", false, DR_SAVE_SAFETENSORS);
    f = open_model("self.safetensors", false);
    assert_ok(save(f, "self.safetensors", DR_SAVE_SAFETENSORS));
    assert_ok(save(f, "self.safetensors", DR_SAVE_SAFETENSORS));
    dr_model_file_close(f);
    save_as("self.safetensors", "self", false, DR_SAVE_DIFFUSERS);
    assert_same_model("one", "self");
}

static void foreign_files_survive(void **state)
{
    (void)state;
    model_copy(model_path("one"), model_path("mine"));
    assert_ok(dr_mkdirs(model_path("mine/notes")));
    assert_ok(dr_file_write(model_path("mine/notes/a.txt"), "a", 1));
    assert_ok(dr_file_write(model_path("mine/unet/stale.bin"), "b", 1));
    save_as("one", "mine/", false, DR_SAVE_DIFFUSERS);
    assert_true(dr_path_exists(model_path("mine/notes/a.txt")));
    assert_false(dr_path_exists(model_path("mine/unet/stale.bin")));
    assert_ok(dr_mkdirs(model_path("photos")));
    assert_ok(dr_file_write(model_path("photos/a.png"), "p", 1));
    dr_model_file *f = open_model("one", false);
    assert_error(save(f, "photos", DR_SAVE_DIFFUSERS), DR_OUTPUT, "is no model");
    assert_error(save(f, "photos", DR_SAVE_SAFETENSORS), DR_OUTPUT, "a directory is in the way");
    assert_error(save(f, "photos/a.png", DR_SAVE_DIFFUSERS), DR_OUTPUT, "a file is in the way");
    assert_error(save(f, "photos/a.png/x", DR_SAVE_DIFFUSERS), DR_OUTPUT, "photos/a.png");
    assert_true(dr_path_exists(model_path("photos/a.png")));
    assert_no_leftovers();
    dr_model_file_close(f);
}

/* A limit on file sizes stands for a full disk: the model that was there stays whole. */
static void a_failed_save_changes_nothing(void **state)
{
    (void)state;
    struct rlimit old;
    dr_model_file *f = open_model("two", true);
    save_as("one", "kept", false, DR_SAVE_DIFFUSERS);
    save_as("one", "kept.safetensors", false, DR_SAVE_SAFETENSORS);
    model_copy(model_path("kept.safetensors"), model_path("copy.safetensors"));
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    const struct rlimit small = {3 << 20, old.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    const dr_status directory = save(f, "kept", DR_SAVE_DIFFUSERS);
    const dr_status single = save(f, "kept.safetensors", DR_SAVE_SAFETENSORS);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    (void)signal(SIGXFSZ, handler);
    assert_int_equal(directory, DR_IO);
    assert_int_equal(single, DR_IO);
    assert_same_model("one", "kept");
    assert_same_file(model_path("copy.safetensors"), model_path("kept.safetensors"));
    assert_no_leftovers();
    dr_model_file_close(f);
}

static void a_tiny_vae_needs_a_directory(void **state)
{
    (void)state;
    if (dr_test_shared() == NULL) {
        DR_SKIP("TAESD");
    }
    dr_str taesd = {0};
    dr_model_file *f = NULL;
    dr_str_printf(&taesd, "%s/taesd", dr_test_shared());
    assert_ok(dr_model_file_open(
        &(dr_model_open_options){.path = model_path("one"), .vae = dr_str_get(&taesd)}, &f));
    assert_int_equal(dr_model_file_config(f)->vae.kind, DR_VAE_TINY);
    assert_error(dr_model_file_check_save(f, DR_SAVE_SAFETENSORS), DR_UNSUPPORTED, "tiny VAE");
    assert_ok(dr_model_file_check_save(f, DR_SAVE_DIFFUSERS));
    assert_ok(save(f, "with_tiny", DR_SAVE_DIFFUSERS));
    dr_model_file *again = open_model("with_tiny", false);
    assert_string_equal(dr_model_file_vae_hash(again), dr_model_file_vae_hash(f));
    dr_model_file_close(again);
    dr_model_file_close(f);
    dr_str_free(&taesd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(forms_turn_into_each_other_byte_for_byte, make_models),
        cmocka_unit_test(trained_values_are_cast_and_the_rest_is_kept),
        cmocka_unit_test(a_model_may_be_saved_over_its_own_source),
        cmocka_unit_test(foreign_files_survive),
        cmocka_unit_test(a_failed_save_changes_nothing),
        cmocka_unit_test(a_tiny_vae_needs_a_directory),
    };
    return DR_TEST_MAIN("model_save", tests);
}
