/*
 * Names of text encoder and VAE in LDM files: against ai-toolkit's key maps (shared/keymaps), and
 * the config read back from the shapes of a made-up file.
 */
#include "base/file.h"
#include "dr_test.h"
#include "io/json.h"
#include "models/clip/clip_names.h"
#include "models/vae/taesd.h"
#include "models/vae/vae_names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct registry {
    dr_arena arena;
    dr_params set;
} registry;

static void begin(registry *r)
{
    dr_arena_init(&r->arena);
    dr_params_init(&r->set, &r->arena);
}

static void end(registry *r)
{
    dr_params_deinit(&r->set);
    dr_arena_deinit(&r->arena);
}

static dr_clip_config clip_config(int64_t width, int layers, dr_act act)
{
    return (dr_clip_config){.vocab = 49408,
                            .positions = 77,
                            .width = width,
                            .mlp_width = 4 * width,
                            .layers = layers,
                            .heads = (int)(width / 64),
                            .act = act,
                            .eps = 1e-5f};
}

static const dr_vae_config sd_vae = {.in_channels = 3,
                                     .out_channels = 3,
                                     .latent_channels = 4,
                                     .n_levels = 4,
                                     .channels = {128, 256, 512, 512},
                                     .layers_per_block = 2,
                                     .norm_groups = 32,
                                     .scaling_factor = 0.18215};

static dr_json_doc *open_keymap(const char *file)
{
    if (dr_test_shared() == NULL) {
        return NULL;
    }
    char *folder = dr_path_join(dr_test_shared(), "keymaps");
    char *path = dr_path_join(folder, file);
    dr_json_doc *doc = NULL;
    assert_ok(dr_json_open(&doc, path));
    free(path);
    free(folder);
    return doc;
}

/* The slice's tensor maps to the parameter; prefix: "te_" or "vae_". */
static void expect_mapped(const dr_json_doc *doc, const dr_file_slice *s, const dr_param *p,
                          const char *prefix)
{
    char key[256];
    char want[256];
    const char *found = NULL;
    if (s->n_rows == s->dim[0]) {
        (void)snprintf(key, sizeof key, "ldm_diffusers_keymap/%s", s->name);
    } else {
        (void)snprintf(key, sizeof key, "ldm_diffusers_operator_map/%s/cat/%d", s->name,
                       (int)(s->first_row / s->n_rows));
        assert_int_equal(s->dim[0], 3 * p->dim[0]);
    }
    (void)snprintf(want, sizeof want, "%s%s", prefix, p->name);
    assert_ok(dr_json_get_string(doc, key, &found, NULL));
    assert_string_equal(found, want);
}

static void expect_shape(const dr_json_doc *doc, const dr_file_slice *s)
{
    char key[256];
    dr_json_ints dim = {0};
    bool found = false;
    (void)snprintf(key, sizeof key, "ldm_diffusers_shape_map/%s/0", s->name);
    assert_ok(dr_json_get_ints(doc, key, &dim, &found));
    assert_int_equal(found, strstr(s->name, "attn_1") != NULL && s->rank == 4);
    for (size_t i = 0; found && i < dim.n; i++) {
        assert_int_equal(dim.at[i], s->dim[i]);
    }
    dr_json_ints_free(&dim);
}

static void check_against_keymap(const char *file, const dr_clip_config *config,
                                 dr_clip_layout layout)
{
    dr_json_doc *doc = open_keymap(file);
    if (doc == NULL) {
        DR_SKIP("shared");
        return;
    }
    registry r;
    dr_clip clip;
    dr_vae vae;
    begin(&r);
    dr_clip_init(&clip, config, &r.set);
    const size_t n_clip = r.set.n;
    dr_vae_init(&vae, &sd_vae, &r.set, true, true);
    assert_int_equal(r.set.n - n_clip, 248);
    for (size_t i = 0; i < r.set.n; i++) {
        const dr_param *p = r.set.at[i];
        dr_file_slice s;
        if (i < n_clip) {
            dr_clip_ldm_slice(layout, p, &s);
        } else {
            dr_vae_ldm_slice(&sd_vae, p, &s);
            expect_shape(doc, &s);
        }
        expect_mapped(doc, &s, p, i < n_clip ? "te_" : "vae_");
    }
    end(&r);
    dr_json_close(doc);
}

static void sd1_names_follow_the_key_map(void **state)
{
    (void)state;
    const dr_clip_config config = clip_config(768, 12, DR_ACT_QUICK_GELU);
    check_against_keymap("stable_diffusion_sd1.json", &config, DR_CLIP_TRANSFORMERS);
}

static void sd2_names_follow_the_key_map(void **state)
{
    (void)state;
    const dr_clip_config config = clip_config(1024, 23, DR_ACT_GELU);
    check_against_keymap("stable_diffusion_sd2.json", &config, DR_CLIP_OPENCLIP);
}

/* Parameter and tensor counts of the real models, spec models.md 2 and 3. */
static void real_sizes_are_right(void **state)
{
    (void)state;
    const struct {
        dr_clip_config config;
        size_t tensors;
        int64_t parameters;
    } cases[] = {{clip_config(768, 12, DR_ACT_QUICK_GELU), 196, 123060480},
                 {clip_config(1024, 23, DR_ACT_GELU), 372, 340387840}};
    for (size_t i = 0; i < 2; i++) {
        registry r;
        dr_clip clip;
        begin(&r);
        dr_clip_init(&clip, &cases[i].config, &r.set);
        assert_int_equal(r.set.n, cases[i].tensors);
        assert_int_equal(dr_params_count(&r.set), cases[i].parameters);
        assert_int_equal(r.set.n_segments, cases[i].config.layers + 2);
        end(&r);
    }
    registry r;
    dr_vae vae;
    begin(&r);
    dr_vae_init(&vae, &sd_vae, &r.set, true, false);
    assert_int_equal(dr_params_count(&r.set), 34163664);
    dr_vae_init(&vae, &sd_vae, &r.set, false, true);
    assert_int_equal(dr_params_count(&r.set), 83653863);
    end(&r);
}

/* ---- config from shapes ---------------------------------------------------------------------- */

typedef struct fake_file {
    const dr_params *set;
    dr_file_slice (*slice)(const dr_param *p);
    bool drop_text_model; /* names lack "text_model." */
    const char *hide;     /* one tensor that is not there, or NULL */
} fake_file;

static bool fake_shape(void *user, const char *name, int *rank, int64_t dim[DR_MAX_RANK])
{
    const fake_file *f = user;
    for (size_t i = 0; i < f->set->n; i++) {
        dr_file_slice s = f->slice(f->set->at[i]);
        char other[192];
        if (f->drop_text_model && dr_clip_other_name(s.name, other, sizeof other)) {
            memcpy(s.name, other, sizeof other);
        }
        if (strcmp(s.name, name) == 0 && (f->hide == NULL || strcmp(name, f->hide) != 0)) {
            *rank = s.rank;
            memcpy(dim, s.dim, sizeof s.dim);
            return true;
        }
    }
    return false;
}

static dr_file_slice transformers_slice(const dr_param *p)
{
    dr_file_slice s;
    dr_clip_ldm_slice(DR_CLIP_TRANSFORMERS, p, &s);
    return s;
}

static dr_file_slice openclip_slice(const dr_param *p)
{
    dr_file_slice s;
    dr_clip_ldm_slice(DR_CLIP_OPENCLIP, p, &s);
    return s;
}

static void check_clip_from_shapes(fake_file *file, dr_clip_layout layout, int layers)
{
    registry r;
    dr_clip clip;
    dr_clip_config got;
    const dr_act act = layout == DR_CLIP_OPENCLIP ? DR_ACT_GELU : DR_ACT_QUICK_GELU;
    dr_clip_config want = clip_config(192, layers, act);
    want.vocab = 1000;
    want.mlp_width = 320;
    begin(&r);
    dr_clip_init(&clip, &want, &r.set);
    file->set = &r.set;
    const dr_shape_source src = {.shape_of = fake_shape, .user = file};
    dr_clip_layout found;
    assert_true(dr_clip_find_layout(&src, &found));
    assert_int_equal(found, layout);
    assert_ok(dr_clip_config_from_ldm(&got, &src, layout));
    assert_ok(dr_clip_config_check(&got));
    want.layers = layout == DR_CLIP_OPENCLIP ? layers - 1 : layers;
    assert_true(got.vocab == want.vocab && got.positions == want.positions);
    assert_true(got.width == want.width && got.mlp_width == want.mlp_width);
    assert_true(got.layers == want.layers && got.heads == 3 && got.act == act);
    end(&r);
}

static void clip_config_shows_in_shapes(void **state)
{
    (void)state;
    check_clip_from_shapes(&(fake_file){.slice = transformers_slice}, DR_CLIP_TRANSFORMERS, 5);
    check_clip_from_shapes(&(fake_file){.slice = transformers_slice, .drop_text_model = true},
                           DR_CLIP_TRANSFORMERS, 5);
    check_clip_from_shapes(&(fake_file){.slice = openclip_slice}, DR_CLIP_OPENCLIP, 5);
}

static void clip_files_with_holes_are_refused(void **state)
{
    (void)state;
    registry r;
    dr_clip clip;
    dr_clip_config config = clip_config(128, 2, DR_ACT_GELU);
    dr_clip_config got;
    begin(&r);
    dr_clip_init(&clip, &config, &r.set);
    fake_file file = {.set = &r.set,
                      .slice = openclip_slice,
                      .hide = "cond_stage_model.model.positional_embedding"};
    const dr_shape_source src = {.shape_of = fake_shape, .user = &file};
    assert_error(dr_clip_config_from_ldm(&got, &src, DR_CLIP_OPENCLIP), DR_FORMAT,
                 "cond_stage_model.model.positional_embedding is missing");
    file.hide = "cond_stage_model.model.transformer.resblocks.1.ln_1.weight";
    assert_ok(dr_clip_config_from_ldm(&got, &src, DR_CLIP_OPENCLIP));
    assert_error(dr_clip_config_check(&got), DR_FORMAT, "num_hidden_layers is 0");
    dr_clip_layout layout;
    file.hide = "cond_stage_model.model.token_embedding.weight";
    assert_false(dr_clip_find_layout(&src, &layout));
    end(&r);
    config.width = 96;
    config.heads = 2;
    begin(&r);
    dr_clip_init(&clip, &config, &r.set);
    file = (fake_file){.set = &r.set, .slice = openclip_slice};
    assert_ok(dr_clip_config_from_ldm(&got, &src, DR_CLIP_OPENCLIP));
    assert_error(dr_clip_config_check(&got), DR_FORMAT, "num_attention_heads is 0");
    end(&r);
}

static const dr_vae_config odd_vae = {.in_channels = 3,
                                      .out_channels = 3,
                                      .latent_channels = 6,
                                      .n_levels = 3,
                                      .channels = {32, 96, 64},
                                      .layers_per_block = 3,
                                      .norm_groups = 32,
                                      .scaling_factor = 0.18215};

static dr_file_slice vae_slice(const dr_param *p)
{
    dr_file_slice s;
    dr_vae_ldm_slice(&odd_vae, p, &s);
    return s;
}

static void vae_config_shows_in_shapes(void **state)
{
    (void)state;
    registry r;
    dr_vae vae;
    dr_vae_config got;
    begin(&r);
    dr_vae_init(&vae, &odd_vae, &r.set, true, true);
    fake_file file = {.set = &r.set, .slice = vae_slice};
    const dr_shape_source src = {.shape_of = fake_shape, .user = &file};
    assert_ok(dr_vae_config_from_ldm(&got, &src, DR_VAE_LDM_PREFIX));
    assert_ok(dr_vae_config_check(&got));
    assert_true(got.n_levels == 3 && got.layers_per_block == 3 && got.latent_channels == 6);
    assert_memory_equal(got.channels, odd_vae.channels, 3 * sizeof *got.channels);
    assert_error(dr_vae_config_from_ldm(&got, &src, ""), DR_FORMAT,
                 "encoder.conv_in.weight is missing");
    file.hide = "first_stage_model.post_quant_conv.weight";
    assert_error(dr_vae_config_from_ldm(&got, &src, DR_VAE_LDM_PREFIX), DR_FORMAT,
                 "post_quant_conv.weight is missing");
    end(&r);
}

/* ---- other spellings and bad configs --------------------------------------------------------- */

static void other_spellings(void **state)
{
    (void)state;
    char buf[128];
    assert_true(dr_vae_other_name("encoder.mid_block.attentions.0.to_out.0.weight", buf, 128));
    assert_string_equal(buf, "encoder.mid_block.attentions.0.proj_attn.weight");
    assert_false(dr_vae_other_name("encoder.conv_in.weight", buf, 128));
    assert_true(dr_clip_other_name("text_model.final_layer_norm.bias", buf, 128));
    assert_string_equal(buf, "final_layer_norm.bias");
    assert_false(dr_clip_other_name("text_model.final_layer_norm.bias", buf, 8));
    bool in_decoder = true;
    assert_true(dr_taesd_raw_name("encoder.layers.14.bias", buf, 128, &in_decoder));
    assert_string_equal(buf, "14.bias");
    assert_false(in_decoder);
    assert_true(dr_taesd_raw_name("decoder.layers.2.conv.4.weight", buf, 128, &in_decoder));
    assert_string_equal(buf, "3.conv.4.weight");
    assert_true(in_decoder);
    assert_false(dr_taesd_raw_name("quant_conv.weight", buf, 128, &in_decoder));
}

static void impossible_configs_are_refused(void **state)
{
    (void)state;
    dr_clip_config clip = clip_config(768, 12, DR_ACT_GELU);
    assert_ok(dr_clip_config_check(&clip));
    clip.heads = 7;
    assert_error(dr_clip_config_check(&clip), DR_FORMAT, "not divisible by 7 heads");
    clip = clip_config(768, 0, DR_ACT_GELU);
    assert_error(dr_clip_config_check(&clip), DR_FORMAT, "num_hidden_layers is 0");
    clip = clip_config(768, 12, DR_ACT_GELU);
    clip.eps = 0.0f;
    assert_error(dr_clip_config_check(&clip), DR_FORMAT, "layer_norm_eps");
    dr_act act;
    assert_error(dr_clip_act_from_name("gelu_new", &act), DR_UNSUPPORTED, "gelu_new");
    dr_vae_config vae = sd_vae;
    assert_ok(dr_vae_config_check(&vae));
    vae.channels[1] = 100;
    assert_error(dr_vae_config_check(&vae), DR_FORMAT, "has 100, not divisible by 32");
    vae = sd_vae;
    vae.scaling_factor = 0.0;
    assert_error(dr_vae_config_check(&vae), DR_FORMAT, "scaling_factor");
    vae = sd_vae;
    vae.n_levels = 9;
    assert_error(dr_vae_config_check(&vae), DR_FORMAT, "block_out_channels is 9");
    dr_taesd_config tiny = dr_taesd_config_default();
    assert_ok(dr_taesd_config_check(&tiny));
    tiny.encoder_blocks[2] = 0;
    assert_error(dr_taesd_config_check(&tiny), DR_FORMAT, "num_encoder_blocks is 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sd1_names_follow_the_key_map),
        cmocka_unit_test(sd2_names_follow_the_key_map),
        cmocka_unit_test(real_sizes_are_right),
        cmocka_unit_test(clip_config_shows_in_shapes),
        cmocka_unit_test(clip_files_with_holes_are_refused),
        cmocka_unit_test(vae_config_shows_in_shapes),
        cmocka_unit_test(other_spellings),
        cmocka_unit_test(impossible_configs_are_refused),
    };
    return DR_TEST_MAIN("model_names", tests);
}
