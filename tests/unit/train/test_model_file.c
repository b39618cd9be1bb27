#include "model_fixture.h"

#include "base/file.h"
#include "train/model/model_presets.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static dr_status try_open(const char *name, bool v2, bool v, const char *vae, dr_model_file **out)
{
    return dr_model_file_open(
        &(dr_model_open_options){
            .path = model_path(name), .v2 = v2, .v_parameterization = v, .vae = vae, .threads = 3},
        out);
}

/* Opening an SD 1.x model must fail. */
static void assert_refused(const char *name, dr_status want, const char *text)
{
    dr_model_file *f = (dr_model_file *)(uintptr_t)1;
    assert_error(try_open(name, false, false, NULL, &f), want, text);
    assert_null(f);
}

static int make_models(void **state)
{
    (void)state;
    model_make("tiny", "one", DR_SAVE_DIFFUSERS);
    model_make("tiny", "one.safetensors", DR_SAVE_SAFETENSORS);
    model_make("tiny2v", "two", DR_SAVE_DIFFUSERS);
    model_make("tiny2v", "two.safetensors", DR_SAVE_SAFETENSORS);
    return 0;
}

/*
 * The path of a file to spoil: of "bad", a copy of "one" whose last spoiled file is restored first,
 * or (file "") a fresh copy of a single file, "bad.safetensors".
 */
static const char *spoil(const char *from, const char *file)
{
    static char last[64];
    char original[96];
    char copy[96];
    if (file[0] == '\0') {
        model_copy(model_path(from), model_path("bad.safetensors"));
        return model_path("bad.safetensors");
    }
    if (!dr_path_exists(model_path("bad"))) {
        model_copy(model_path(from), model_path("bad"));
    }
    (void)snprintf(original, sizeof original, "%s/%s", from, last);
    (void)snprintf(copy, sizeof copy, "bad/%s", last);
    if (last[0] != '\0') {
        model_copy(model_path(original), model_path(copy));
    }
    (void)snprintf(last, sizeof last, "%s", file);
    (void)snprintf(copy, sizeof copy, "bad/%s", file);
    return model_path(copy);
}

/* The name of the model to which a file that spoil gave belongs. */
static const char *spoiled(const char *path)
{
    return dr_str_ends(path, "/bad.safetensors") ? "bad.safetensors" : "bad";
}

/* ---- good models --------------------------------------------------------------------------- */

static void assert_config(const dr_model_config *got, const char *preset)
{
    dr_model_config want;
    assert_ok(dr_model_preset(preset, &want));
    assert_int_equal(got->v2, want.v2);
    assert_int_equal(got->v_prediction, want.v_prediction);
    assert_int_equal(got->unet.n_levels, want.unet.n_levels);
    for (int i = 0; i < want.unet.n_levels; i++) {
        assert_int_equal(got->unet.channels[i], want.unet.channels[i]);
        assert_int_equal(got->unet.heads[i], want.unet.heads[i]);
        assert_int_equal(got->unet.attention[i], want.unet.attention[i]);
        assert_int_equal(got->unet.depth[i], want.unet.depth[i]);
        assert_int_equal(got->vae.kl.channels[i], want.vae.kl.channels[i]);
    }
    assert_int_equal(got->unet.layers_per_block, want.unet.layers_per_block);
    assert_int_equal(got->unet.context_dim, want.unet.context_dim);
    assert_int_equal(got->unet.norm_groups, want.unet.norm_groups);
    assert_true(got->unet.norm_eps == want.unet.norm_eps);
    assert_int_equal(got->unet.linear_projection, want.unet.linear_projection);
    assert_int_equal(got->clip.layers, want.clip.layers);
    assert_int_equal(got->clip.heads, want.clip.heads);
    assert_int_equal(got->clip.act, want.clip.act);
    assert_int_equal(got->clip.mlp_width, want.clip.mlp_width);
    assert_int_equal(got->vae.kind, DR_VAE_KL);
    assert_int_equal(got->vae.kl.layers_per_block, want.vae.kl.layers_per_block);
    assert_true(got->vae.kl.scaling_factor == want.vae.kl.scaling_factor);
}

static void models_open_in_both_forms(void **state)
{
    (void)state;
    static const struct {
        const char *name, *preset;
        bool v2, v;
    } cases[] = {{"one", "tiny", false, false},
                 {"one.safetensors", "tiny", false, false},
                 {"two", "tiny2v", true, true},
                 {"two.safetensors", "tiny2v", true, true}};
    char hash[2][40] = {"", ""};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        dr_model_file *f = NULL;
        assert_ok(try_open(cases[i].name, cases[i].v2, cases[i].v, NULL, &f));
        assert_config(dr_model_file_config(f), cases[i].preset);
        assert_int_equal(dr_model_file_is_directory(f), i % 2 == 0);
        (void)snprintf(hash[i % 2], sizeof hash[0], "%s", dr_model_file_vae_hash(f));
        assert_int_equal(strlen(hash[i % 2]), 32);
        assert_string_equal(dr_model_file_vae_hash(f), hash[i % 2]);
        if (i % 2 == 1) { /* the same weights, so the same hash */
            assert_string_equal(hash[0], hash[1]);
        }
        dr_model_file_close(f);
    }
}

static void probe_tells_the_flags(void **state)
{
    (void)state;
    dr_model_open_options o = {.path = model_path("two")};
    bool told = false;
    assert_ok(dr_model_file_probe(&o, &told));
    assert_true(o.v2 && o.v_parameterization && told);
    o = (dr_model_open_options){.path = model_path("one.safetensors")};
    assert_ok(dr_model_file_probe(&o, &told));
    assert_false(o.v2 || o.v_parameterization || told);
}

static void load_part(const char *name, dr_params *set, dr_arena *arena, float **values)
{
    dr_model_file *f = NULL;
    dr_unet u;
    assert_ok(try_open(name, false, false, NULL, &f));
    dr_arena_init(arena);
    dr_params_init(set, arena);
    dr_unet_init(&u, &dr_model_file_config(f)->unet, set);
    *values = dr_xcalloc((size_t)set->n_elems, sizeof(float));
    dr_params_bind(set, DR_F32, *values, NULL);
    assert_ok(dr_model_file_load(f, DR_PART_UNET, set));
    dr_model_file_close(f);
}

static void both_forms_load_the_same_values(void **state)
{
    (void)state;
    dr_params set[2];
    dr_arena arena[2];
    float *values[2];
    load_part("one", &set[0], &arena[0], &values[0]);
    load_part("one.safetensors", &set[1], &arena[1], &values[1]);
    assert_memory_equal(values[0], values[1], (size_t)set[0].n_elems * sizeof(float));
    double sum = 0.0;
    for (int64_t i = 0; i < set[0].n_elems; i++) {
        sum += fabs((double)values[0][i]);
    }
    assert_true(sum > 1000.0); /* something was loaded */
    for (int i = 0; i < 2; i++) {
        free(values[i]);
        dr_params_deinit(&set[i]);
        dr_arena_deinit(&arena[i]);
    }
}

/* ---- wrong flags and paths ----------------------------------------------------------------- */

static void wrong_family_names_the_flags(void **state)
{
    (void)state;
    dr_model_file *f = NULL;
    assert_refused("two", DR_INVALID, "use --v2 --v_parameterization");
    assert_refused("two.safetensors", DR_INVALID, "use --v2 --v_parameterization");
    assert_error(try_open("one", true, false, NULL, &f), DR_INVALID,
                 "use neither --v2 nor --v_parameterization");
    assert_error(try_open("one.safetensors", true, true, NULL, &f), DR_INVALID, "1.x");
    assert_error(try_open("two", true, false, NULL, &f), DR_INVALID, "v (v_prediction)");
    assert_error(try_open("one", false, true, NULL, &f), DR_INVALID, "noise (epsilon)");
}

static void other_paths_are_explained(void **state)
{
    (void)state;
    assert_refused("nowhere", DR_INVALID, "no such file or directory");
    assert_ok(dr_mkdirs(model_path("empty")));
    assert_refused("empty", DR_FORMAT, "model_index.json");
    assert_refused("one/unet", DR_FORMAT, "model_index.json");
    assert_refused("one/unet/diffusion_pytorch_model.safetensors", DR_FORMAT, "the directory");
    assert_refused("one/vae/diffusion_pytorch_model.safetensors", DR_FORMAT, "--vae");
    const char *weights = spoil("one", "unet/diffusion_pytorch_model.safetensors");
    assert_int_equal(unlink(weights), 0);
    assert_refused("bad", DR_FORMAT, "no weights in this folder");
}

/* ---- damaged weights ----------------------------------------------------------------------- */

static void truncated_files_are_refused(void **state)
{
    (void)state;
    const char *file = spoil("one.safetensors", "");
    assert_int_equal(truncate(file, 1000000), 0);
    assert_refused(spoiled(file), DR_FORMAT, "truncated");
    file = spoil("one", "vae/diffusion_pytorch_model.safetensors");
    assert_int_equal(truncate(file, 100000), 0);
    assert_refused(spoiled(file), DR_FORMAT, "vae/diffusion_pytorch_model.safetensors");
}

static bool drop_mid(dr_safetensors_entry *e)
{
    return strstr(e->name, "mid_block.attentions.0.proj_out.bias") == NULL &&
           strstr(e->name, "middle_block.1.proj_out.bias") == NULL;
}

static bool widen_time(dr_safetensors_entry *e)
{
    static const int64_t shape[] = {130, 32};
    if (strstr(e->name, "time_embedding.linear_1.weight") != NULL ||
        strstr(e->name, "time_embed.0.weight") != NULL) {
        e->shape = shape;
    }
    return true;
}

static bool make_whole_numbers(dr_safetensors_entry *e)
{
    if (strstr(e->name, "final_layer_norm.bias") != NULL) {
        e->dtype = DR_I32;
    }
    return true;
}

static bool nine_channels(dr_safetensors_entry *e)
{
    static const int64_t shape[] = {32, 9, 3, 3};
    if (strcmp(e->name, "conv_in.weight") == 0 ||
        strstr(e->name, "input_blocks.0.0.weight") != NULL) {
        e->shape = shape;
    }
    return true;
}

static bool drop_text(dr_safetensors_entry *e)
{
    return strstr(e->name, "cond_stage_model.") == NULL;
}

static bool drop_vae(dr_safetensors_entry *e)
{
    return strstr(e->name, "first_stage_model.") == NULL;
}

static void tensors_that_do_not_fit_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *model, *file;
        model_edit edit;
        const char *text;
    } cases[] = {
        {"one", "unet/diffusion_pytorch_model.safetensors", drop_mid,
         "tensor mid_block.attentions.0.proj_out.bias [64] of the unet is missing"},
        {"one.safetensors", "", drop_mid,
         "model.diffusion_model.middle_block.1.proj_out.bias [64] of the unet is missing"},
        {"one", "unet/diffusion_pytorch_model.safetensors", widen_time,
         "tensor time_embedding.linear_1.weight is [130,32], expected [128,32]"},
        {"one.safetensors", "", widen_time, "is [130,32], expected [128,32]"},
        {"one", "text_encoder/model.safetensors", make_whole_numbers,
         "has dtype I32, expected F32"},
        {"one", "unet/diffusion_pytorch_model.safetensors", nine_channels, "inpainting"},
        {"one.safetensors", "", nine_channels, "inpainting"},
        {"one.safetensors", "", drop_text, "no text encoder"},
        {"one.safetensors", "", drop_vae, "first_stage_model.encoder.conv_in.weight is missing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *file = spoil(cases[i].model, cases[i].file);
        model_rewrite(file, cases[i].edit, NULL, 0);
        assert_refused(spoiled(file), DR_FORMAT, cases[i].text);
    }
}

static void other_networks_are_recognised(void **state)
{
    (void)state;
    static const int64_t shape[] = {4, 4};
    static const struct {
        const char *model, *file, *tensor, *text;
    } cases[] = {
        {"one.safetensors", "", "conditioner.embedders.0.transformer.x.weight", "SDXL"},
        {"one.safetensors", "", "model.diffusion_model.label_emb.0.0.weight", "SDXL"},
        {"one.safetensors", "", "lora_unet_x.lora_up.weight", "a LoRA"},
        {"one.safetensors", "", "model.diffusion_model.input_blocks.1.2.weight",
         "input_blocks.1.2.weight belongs to no part of the network"},
        {"one", "unet/diffusion_pytorch_model.safetensors", "class_embedding.weight",
         "class_embedding.weight belongs to no part of the network"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *file = spoil(cases[i].model, cases[i].file);
        model_add_tensor(file, cases[i].tensor, 2, shape);
        assert_refused(spoiled(file), DR_FORMAT, cases[i].text);
    }
}

static void real_lora_files_are_no_models(void **state)
{
    (void)state;
    static const char *const names[] = {"analog_svd_rank4", "catundchat_pytorch_lora_weights",
                                        "lora_disney", "lora_disney_inpainting"};
    if (dr_test_shared() == NULL) {
        DR_SKIP("real LoRA files");
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        dr_str path = {0};
        dr_model_file *f = NULL;
        dr_str_printf(&path, "%s/lora/%s.safetensors", dr_test_shared(), names[i]);
        assert_error(dr_model_file_open(&(dr_model_open_options){.path = dr_str_get(&path)}, &f),
                     DR_FORMAT, "the file is a LoRA");
        dr_str_free(&path);
    }
}

/* ---- configs ------------------------------------------------------------------------------- */

static void configs_of_other_networks_name_the_key(void **state)
{
    (void)state;
    static const struct {
        const char *file, *from, *to;
        const char *text;
    } cases[] = {
        {"unet/config.json", "\"silu\"", "\"gelu\"", "act_fn is \"gelu\", expected \"silu\""},
        {"unet/config.json", "\"dual_cross_attention\": false", "\"dual_cross_attention\": true",
         "dual_cross_attention is true, expected false"},
        {"unet/config.json", "\"only_cross_attention\": false",
         "\"only_cross_attention\": [false, true, false, false]", "only_cross_attention"},
        {"unet/config.json", "\"freq_shift\": 0", "\"freq_shift\": 1", "freq_shift is 1"},
        {"unet/config.json", "\"num_class_embeds\": null", "\"num_class_embeds\": 1000",
         "num_class_embeds is 1000, expected null"},
        {"unet/config.json", "{", "{\"addition_embed_type\": \"text_time\",",
         "addition_embed_type is \"text_time\", expected null"},
        {"unet/config.json", "{", "{\"resnet_time_scale_shift\": \"scale_shift\",",
         "resnet_time_scale_shift"},
        {"unet/config.json", "[\"CrossAttnDownBlock2D\"", "[\"AttnDownBlock2D\"",
         "down_block_types[0] is \"AttnDownBlock2D\""},
        {"unet/config.json", "[\"UpBlock2D\"", "[\"CrossAttnUpBlock2D\"", "mirror"},
        {"unet/config.json", "\"in_channels\": 4", "\"in_channels\": 9", "inpainting"},
        {"unet/config.json", "[32, 64, 64, 64]", "[32, 64, 64]", "has 4 entries, expected 3"},
        {"unet/config.json", "[32, 64, 64, 64]", "[32, 65, 64, 64]", "not divisible"},
        {"unet/config.json", "\"attention_head_dim\": 8", "\"attention_head_dim\": 0",
         "attention_head_dim"},
        {"unet/config.json", "\"cross_attention_dim\": 32", "\"cross_attention_dim\": 48",
         "the text encoder is 32 wide"},
        {"unet/config.json", "{", "[", "unet/config.json"},
        {"text_encoder/config.json", "\"quick_gelu\"", "\"relu\"", "hidden_act is \"relu\""},
        {"text_encoder/config.json", "\"vocab_size\": 49408", "\"vocab_size\": 1000",
         "vocabulary of 1000"},
        {"text_encoder/config.json", "CLIPTextModel", "CLIPTextModelWithProjection",
         "CLIPTextModelWithProjection"},
        {"vae/config.json", "\"latent_channels\": 4", "\"latent_channels\": 16", "16 channels"},
        {"vae/config.json", "AutoencoderKL", "AsymmetricAutoencoderKL", "AsymmetricAutoencoderKL"},
        {"scheduler/scheduler_config.json", "\"epsilon\"", "\"sample\"",
         "prediction_type is \"sample\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *file = spoil("one", cases[i].file);
        model_edit_text(file, cases[i].from, cases[i].to);
        dr_model_file *f = NULL;
        const dr_status st = try_open(spoiled(file), false, false, NULL, &f);
        if (strstr(cases[i].to, "relu") != NULL) {
            assert_error(st, DR_UNSUPPORTED, cases[i].text);
        } else {
            assert_error(st, DR_FORMAT, cases[i].text);
        }
    }
}

static void metadata_of_single_files_is_checked(void **state)
{
    (void)state;
    static const struct {
        dr_safetensors_meta meta[2];
        const char *text;
    } cases[] = {
        {{{"format", "pt"}, {"dreamrun.norm_eps", "1e-5"}}, "is 32 wide, which is no multiple"},
        {{{"dreamrun.attention_head_dim", "[8,8]"},
          {"dreamrun.text_encoder.num_attention_heads", "4"}},
         "has 2 entries, expected 4"},
        {{{"dreamrun.attention_head_dim", "[8,8,8,7]"},
          {"dreamrun.text_encoder.num_attention_heads", "4"}},
         "not divisible by 7 heads"},
        {{{"dreamrun.attention_head_dim", "8"}, {"dreamrun.norm_eps", "1e-5"}},
         "dreamrun.attention_head_dim"},
        {{{"dreamrun.norm_num_groups", "many"}, {"dreamrun.text_encoder.num_attention_heads", "4"}},
         "is \"many\", expected a number"},
        {{{"dreamrun.vae.norm_num_groups", "-1"},
          {"dreamrun.text_encoder.num_attention_heads", "4"}},
         "is \"-1\", expected a number"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *file = spoil("one.safetensors", "");
        model_rewrite(file, NULL, cases[i].meta, 2);
        assert_refused(spoiled(file), DR_FORMAT, cases[i].text);
    }
}

/* ---- --vae --------------------------------------------------------------------------------- */

static void vae_paths_without_a_vae_are_refused(void **state)
{
    (void)state;
    dr_model_file *f = NULL;
    assert_error(try_open("one", false, false, model_path("missing"), &f), DR_INVALID, "--vae");
    assert_error(try_open("one", false, false, model_path("one/tokenizer"), &f), DR_FORMAT,
                 "--vae: ");
    assert_error(try_open("one", false, false,
                          model_path("one/unet/diffusion_pytorch_model.safetensors"), &f),
                 DR_FORMAT, "no VAE in this file (it holds: U-Net");
    assert_ok(dr_file_write(model_path("vae.pt"), "PK", 2));
    assert_error(try_open("one", false, false, model_path("vae.pt"), &f), DR_FORMAT, "truncated");
    assert_ok(try_open("one", false, false, model_path("two.safetensors"), &f));
    dr_model_file_close(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(models_open_in_both_forms, make_models),
        cmocka_unit_test(probe_tells_the_flags),
        cmocka_unit_test(both_forms_load_the_same_values),
        cmocka_unit_test(wrong_family_names_the_flags),
        cmocka_unit_test(other_paths_are_explained),
        cmocka_unit_test(truncated_files_are_refused),
        cmocka_unit_test(tensors_that_do_not_fit_are_named),
        cmocka_unit_test(other_networks_are_recognised),
        cmocka_unit_test(real_lora_files_are_no_models),
        cmocka_unit_test(configs_of_other_networks_name_the_key),
        cmocka_unit_test(metadata_of_single_files_is_checked),
        cmocka_unit_test(vae_paths_without_a_vae_are_refused),
    };
    return DR_TEST_MAIN("model_file", tests);
}
