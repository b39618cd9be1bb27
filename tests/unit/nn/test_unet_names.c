/*
 * The U-Net's names in LDM files against a real key map, and its config read back from shapes.
 */
#include "dr_test.h"
#include "models/unet/unet_names.h"
#include "unet_case.h"

#include "base/file.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const int64_t full_channels[4] = {320, 640, 1280, 1280};
static const char prefix[] = "model.diffusion_model.";

static dr_unet_config sd1(void)
{
    return dr_unet_case_sd1(full_channels, 768, 8);
}

static dr_unet_config sd2(void)
{
    return dr_unet_case_sd2(full_channels, 1024, (const int[4]){5, 10, 20, 20});
}

typedef struct network { /* registry without memory; also the shapes of an LDM file of it */
    dr_arena arena;
    dr_params params;
    dr_unet unet;
    char (*ldm)[192];       /* (params.n) */
    const char *missing;    /* a name that the file lacks, without prefix; NULL: none */
    int64_t input_channels; /* other than the config's: of the first convolution */
} network;

static void build(network *w, const dr_unet_config *c)
{
    *w = (network){.input_channels = c->in_channels};
    dr_arena_init(&w->arena);
    dr_params_init(&w->params, &w->arena);
    assert_ok(dr_unet_config_check(c));
    dr_unet_init(&w->unet, c, &w->params);
    w->ldm = dr_xcalloc(w->params.n, sizeof *w->ldm);
    for (size_t i = 0; i < w->params.n; i++) {
        if (!dr_unet_ldm_name(c, w->params.at[i]->name, w->ldm[i], sizeof w->ldm[i])) {
            fail_msg("%s has no LDM name", w->params.at[i]->name);
        }
    }
}

static void destroy(network *w)
{
    free(w->ldm);
    dr_params_deinit(&w->params);
    dr_arena_deinit(&w->arena);
}

static bool shape_of(void *user, const char *name, int *rank, int64_t dim[DR_MAX_RANK])
{
    const network *w = user;
    if (w->missing != NULL && strcmp(name + strlen(prefix), w->missing) == 0) {
        return false;
    }
    for (size_t i = 0; i < w->params.n; i++) {
        if (strcmp(w->ldm[i], name) == 0) {
            const dr_param *p = w->params.at[i];
            *rank = p->rank;
            memcpy(dim, p->dim, sizeof p->dim);
            dim[1] = i == 4 ? w->input_channels : dim[1]; /* conv_in follows 4 of the time's */
            return true;
        }
    }
    return false;
}

static dr_status infer(network *w, dr_unet_config *out, bool v2)
{
    return dr_unet_config_from_ldm(out, &(dr_shape_source){.shape_of = shape_of, .user = w}, v2);
}

static void check_key_map(const char *file, const dr_unet_config *c)
{
    const char *shared = dr_test_shared();
    if (shared == NULL) {
        DR_SKIP("shared");
        return;
    }
    char *dir = dr_path_join(shared, "keymaps");
    char *path = dr_path_join(dir, file);
    json_t *doc = json_load_file(path, 0, NULL);
    assert_non_null(doc);
    const json_t *map = json_object_get(doc, "ldm_diffusers_keymap");
    network w;
    build(&w, c);
    assert_int_equal(w.params.n, 686);
    for (size_t i = 0; i < w.params.n; i++) { /* equal to a map of unique names: unique */
        const char *want = json_string_value(json_object_get(map, w.ldm[i]));
        if (want == NULL || strncmp(want, "unet_", 5) != 0 ||
            strcmp(want + 5, w.params.at[i]->name) != 0) {
            fail_msg("%s became %s, which is %s in the map", w.params.at[i]->name, w.ldm[i],
                     want != NULL ? want : "nothing");
        }
    }
    destroy(&w);
    json_decref(doc);
    free(dir);
    free(path);
}

static void sd1_names_are_those_of_the_key_map(void **state)
{
    (void)state;
    const dr_unet_config c = sd1();
    check_key_map("stable_diffusion_sd1.json", &c);
}

static void sd2_names_are_those_of_the_key_map(void **state)
{
    (void)state;
    const dr_unet_config c = sd2();
    check_key_map("stable_diffusion_sd2.json", &c);
}

/* Taken from the key map of SD1. */
static void some_names(void **state)
{
    (void)state;
    static const char *const pairs[][2] = {
        {"up_blocks.1.upsamplers.0.conv.weight", "output_blocks.5.2.conv.weight"},
        {"up_blocks.0.upsamplers.0.conv.bias", "output_blocks.2.1.conv.bias"},
        {"down_blocks.2.downsamplers.0.conv.weight", "input_blocks.9.0.op.weight"},
        {"mid_block.resnets.1.time_emb_proj.weight", "middle_block.2.emb_layers.1.weight"},
        {"up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_out.0.bias",
         "output_blocks.11.1.transformer_blocks.0.attn2.to_out.0.bias"},
        {"down_blocks.1.resnets.0.conv_shortcut.weight", "input_blocks.4.0.skip_connection.weight"},
        {"mid_block.attentions.0.proj_in.weight", "middle_block.1.proj_in.weight"},
        {"conv_norm_out.weight", "out.0.weight"},
    };
    const dr_unet_config c = sd1();
    char got[192];
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        assert_true(dr_unet_ldm_name(&c, pairs[i][0], got, sizeof got));
        assert_string_equal(got + strlen(prefix), pairs[i][1]);
    }
}

static void foreign_names_have_none(void **state)
{
    (void)state;
    static const char *const names[] = {
        "",
        "up_blocks",
        "up_blocks.",
        "conv_inn.weight",
        "down_blocks.0.resnets.0.conv3.weight",
        "down_blocks.4.resnets.0.conv1.weight",
        "down_blocks.0.resnets.2.conv1.weight",
        "up_blocks.0.resnets.3.conv1.weight",
        "up_blocks.-1.resnets.0.conv1.weight",
        "up_blocks.4.upsamplers.0.conv.weight",
        "up_blocks.3.upsamplers.0.conv.weight",
        "up_blocks.0.downsamplers.0.conv.weight",
        "down_blocks.0.upsamplers.0.conv.weight",
        "down_blocks.0.downsamplers.0.",
        "down_blocks.0.downsamplers.1.conv.weight",
        "down_blocks.3.downsamplers.0.conv.weight",
        "down_blocks.3.attentions.0.norm.weight",
        "mid_block.resnets.2.conv1.weight",
        "mid_block.attentions.1.norm.weight",
        "mid_block.resnets.0.",
        "transformer.h.0.attn.weight",
    };
    const dr_unet_config c = sd1();
    char got[192];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (dr_unet_ldm_name(&c, names[i], got, sizeof got)) {
            fail_msg("\"%s\" became %s", names[i], got);
        }
    }
    assert_false(dr_unet_ldm_name(&c, "conv_in.weight", got, 8));
    assert_false(dr_unet_ldm_name(&c, "mid_block.resnets.0.conv1.weight", got, sizeof prefix + 8));
}

static void check_inference(const dr_unet_config *c, bool v2)
{
    network w;
    dr_unet_config got;
    build(&w, c);
    for (size_t i = 0; i < w.params.n; i++) {
        for (size_t j = 0; j < i; j++) {
            assert_string_not_equal(w.ldm[i], w.ldm[j]);
        }
    }
    assert_ok(infer(&w, &got, v2));
    assert_ok(dr_unet_config_check(&got));
    assert_int_equal(got.n_levels, c->n_levels);
    assert_int_equal(got.layers_per_block, c->layers_per_block);
    for (int i = 0; i < c->n_levels; i++) {
        assert_int_equal(got.channels[i], c->channels[i]);
        assert_int_equal(got.attention[i], c->attention[i]);
        assert_int_equal(got.heads[i], c->heads[i]);
        assert_int_equal(got.depth[i], c->depth[i]);
    }
    assert_int_equal(got.in_channels, c->in_channels);
    assert_int_equal(got.out_channels, c->out_channels);
    assert_int_equal(got.context_dim, c->context_dim);
    assert_int_equal(got.norm_groups, 32);
    assert_true(got.norm_eps == 1e-5F);
    assert_int_equal(got.linear_projection, c->linear_projection);
    destroy(&w);
}

static void config_comes_back_from_shapes(void **state)
{
    (void)state;
    const dr_unet_config full[] = {sd1(), sd2()};
    check_inference(&full[0], false);
    check_inference(&full[1], true);
    dr_unet_config c = {.in_channels = 4,
                        .out_channels = 4,
                        .n_levels = 2,
                        .channels = {32, 64},
                        .attention = {true, true},
                        .heads = {8, 8},
                        .depth = {1, 1},
                        .layers_per_block = 1,
                        .context_dim = 24,
                        .norm_groups = 32,
                        .norm_eps = 1e-5F};
    check_inference(&c, false);
    c.attention[0] = false;
    check_inference(&c, false);
    c.n_levels = 1;
    c.attention[0] = true;
    c.layers_per_block = 4;
    check_inference(&c, false);
    c = (dr_unet_config){.in_channels = 4,
                         .out_channels = 4,
                         .n_levels = 3,
                         .channels = {64, 192, 128},
                         .attention = {true, false, true},
                         .heads = {1, 3, 2},
                         .depth = {3, 1, 2},
                         .layers_per_block = 3,
                         .context_dim = 40,
                         .norm_groups = 32,
                         .norm_eps = 1e-5F,
                         .linear_projection = true};
    check_inference(&c, true);
}

static void check_refusal(const char *missing, int64_t input_channels, const char *message)
{
    const dr_unet_config c = sd1();
    dr_unet_config got;
    network w;
    build(&w, &c);
    w.missing = missing;
    w.input_channels = input_channels;
    assert_error(infer(&w, &got, false), DR_FORMAT, message);
    destroy(&w);
}

static void other_files_are_refused(void **state)
{
    (void)state;
    check_refusal("input_blocks.0.0.weight", 4, "input_blocks.0.0.weight");
    check_refusal("out.2.weight", 4, "out.2.weight");
    check_refusal("middle_block.1.proj_in.weight", 4, "middle_block.1.proj_in.weight");
    check_refusal(NULL, 9, "inpainting");
    check_refusal(NULL, 8, "instruct-pix2pix");
    check_refusal("input_blocks.1.0.in_layers.2.weight", 4, "no cross attention");
}

static void check_bad_config(dr_unet_config c, const char *message)
{
    assert_error(dr_unet_config_check(&c), DR_FORMAT, message);
}

static void impossible_configs_are_refused(void **state)
{
    (void)state;
    dr_unet_config c = sd1();
    c.n_levels = 9;
    check_bad_config(c, "9 levels");
    c = sd1();
    c.layers_per_block = 0;
    check_bad_config(c, "must be positive");
    c.layers_per_block = INT32_MAX;
    check_bad_config(c, "too many");
    c = sd1();
    c.channels[2] = 100;
    check_bad_config(c, "block_out_channels[2] is 100, not divisible into 32");
    c = sd1();
    c.heads[1] = 7;
    check_bad_config(c, "not divisible by 7 heads");
    c = sd1();
    c.depth[0] = 13;
    check_bad_config(c, "transformer_layers_per_block is 13");
    c = sd1();
    c.norm_groups = 1;
    c.heads[0] = 1;
    c.channels[0] = 33;
    check_bad_config(c, "block_out_channels[0] is 33, expected an even number");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sd1_names_are_those_of_the_key_map),
        cmocka_unit_test(sd2_names_are_those_of_the_key_map),
        cmocka_unit_test(some_names),
        cmocka_unit_test(foreign_names_have_none),
        cmocka_unit_test(config_comes_back_from_shapes),
        cmocka_unit_test(other_files_are_refused),
        cmocka_unit_test(impossible_configs_are_refused),
    };
    return DR_TEST_MAIN("unet names", tests);
}
