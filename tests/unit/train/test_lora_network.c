/*
 * Which modules have adapters, with which shapes, ranks and alphas, on the networks of SD 1.x
 * and 2.x at full size (without their memory); and what --network_args says.
 */
#include "dr_test.h"
#include "models/clip/clip.h"
#include "models/unet/unet.h"
#include "train/lora/lora_network.h"
#include "train/model/model_presets.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

typedef struct fixture {
    dr_arena arena;
    dr_params unet_params, text_params;
    dr_unet unet;
    dr_clip clip;
    dr_lora_settings settings;
    dr_lora_network lora;
} fixture;

static void begin(fixture *f, const char *preset)
{
    dr_model_config c;
    *f = (fixture){.settings = {.unet = true, .text_encoder = true, .dim = 4, .alpha = 1.0}};
    dr_arena_init(&f->arena);
    assert_ok(dr_model_preset(preset, &c));
    dr_params_init(&f->unet_params, &f->arena);
    dr_params_init(&f->text_params, &f->arena);
    dr_unet_init(&f->unet, &c.unet, &f->unet_params);
    dr_clip_init(&f->clip, &c.clip, &f->text_params);
}

/* Reads args, up to NULL, into the settings. */
static dr_status parse(fixture *f, ...)
{
    dr_strv args = {0};
    va_list ap;
    va_start(ap, f);
    for (const char *arg = va_arg(ap, const char *); arg != NULL; arg = va_arg(ap, const char *)) {
        dr_strv_push(&args, arg);
    }
    va_end(ap);
    const dr_status st = dr_lora_settings_parse(&args, &f->arena, &f->settings);
    dr_strv_free(&args);
    return st;
}

static void build(fixture *f)
{
    assert_ok(dr_lora_network_init(&f->lora, &f->arena, &f->settings, NULL, &f->unet_params,
                                   &f->text_params));
}

static void end(fixture *f)
{
    dr_lora_network_deinit(&f->lora);
    dr_params_deinit(&f->unet_params);
    dr_params_deinit(&f->text_params);
    dr_arena_deinit(&f->arena);
}

static const dr_lora_site *find(const fixture *f, const char *name)
{
    for (size_t i = 0; i < f->lora.n_sites; i++) {
        if (strcmp(f->lora.site[i].name, name) == 0) {
            return &f->lora.site[i];
        }
    }
    return NULL;
}

static void check_factor(const dr_param *p, int rank, int64_t a, int64_t b, int64_t k)
{
    assert_int_equal(p->rank, rank);
    assert_int_equal(p->dim[0], a);
    assert_int_equal(p->dim[1], b);
    if (rank == 4) {
        assert_int_equal(p->dim[2], k);
        assert_int_equal(p->dim[3], k);
    }
}

/* spec sdscripts.md 9.1 and features.md 4.1: counts of sd-scripts run on the real models */
static void counts_are_those_of_sdscripts(void **state)
{
    (void)state;
    static const struct {
        const char *preset, *conv;
        size_t n;
    } cases[] = {{"sd1", NULL, 264},
                 {"sd2", NULL, 330},
                 {"sd1", "conv_dim=4", 350},
                 {"sd2", "conv_dim=4", 416}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fixture f;
        begin(&f, cases[i].preset);
        assert_ok(parse(&f, cases[i].conv, NULL));
        build(&f);
        assert_int_equal(f.lora.n_sites, cases[i].n);
        end(&f);
    }
}

static void rank_4_of_sd1_has_the_size_of_the_spec(void **state)
{
    (void)state;
    fixture f;
    begin(&f, "sd1");
    assert_ok(parse(&f, NULL));
    build(&f);
    assert_int_equal(dr_params_count(&f.lora.set[DR_PART_UNET]) +
                         dr_params_count(&f.lora.set[DR_PART_TEXT_ENCODER]),
                     2359296); /* spec 9.2 */
    end(&f);
}

static void shapes_follow_the_weights(void **state)
{
    (void)state;
    fixture f;
    begin(&f, "sd1");
    assert_ok(parse(&f, "conv_dim=8", "conv_alpha=2", NULL));
    build(&f);
    const dr_lora_site *s = find(&f, "lora_te_text_model_encoder_layers_0_mlp_fc1");
    check_factor(s->role[DR_LORA_DOWN], 2, 4, 768, 0);
    check_factor(s->role[DR_LORA_UP], 2, 3072, 4, 0);
    s = find(&f, "lora_unet_mid_block_attentions_0_proj_in");
    check_factor(s->role[DR_LORA_DOWN], 4, 4, 1280, 1);
    check_factor(s->role[DR_LORA_UP], 4, 1280, 4, 1);
    s = find(&f, "lora_unet_down_blocks_0_downsamplers_0_conv");
    check_factor(s->role[DR_LORA_DOWN], 4, 8, 320, 3);
    check_factor(s->role[DR_LORA_UP], 4, 320, 8, 1);
    assert_true(fabs(s->adapter.scale - (0.25)) <= 1e-15);
    s = find(&f, "lora_unet_up_blocks_3_resnets_2_conv_shortcut"); /* 1x1: the plain rank */
    check_factor(s->role[DR_LORA_DOWN], 4, 4, 640, 1);
    s = find(&f, "lora_unet_up_blocks_3_resnets_2_time_emb_proj");
    check_factor(s->role[DR_LORA_DOWN], 2, 4, 1280, 0);
    assert_null(find(&f, "lora_unet_conv_in"));
    assert_null(find(&f, "lora_unet_time_embedding_linear_1"));
    end(&f);
    begin(&f, "sd2");
    assert_ok(parse(&f, NULL));
    build(&f);
    check_factor(find(&f, "lora_unet_mid_block_attentions_0_proj_in")->role[DR_LORA_DOWN], 2, 4,
                 1280, 0);
    end(&f);
}

static void blocks_are_counted_as_in_sdscripts(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        int block;
    } cases[] = {
        {"down_blocks.0.attentions.0.proj_in", 1}, {"down_blocks.2.downsamplers.0.conv", 9},
        {"down_blocks.3.resnets.1.conv1", 11},     {"mid_block.resnets.0.conv1", 12},
        {"up_blocks.0.upsamplers.0.conv", 15},     {"up_blocks.3.attentions.2.proj_out", 24}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(dr_lora_block_of(cases[i].path), cases[i].block);
    }
}

static void ranks_by_block(void **state)
{
    (void)state;
    fixture f;
    begin(&f, "sd1");
    assert_ok(parse(&f,
                    "block_dims=0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,0",
                    "mid_lr_weight=0", "loraplus_lr_ratio=4", "loraplus_unet_lr_ratio=8", NULL));
    build(&f);
    assert_int_equal(find(&f, "lora_unet_down_blocks_1_attentions_0_proj_in")->rank, 4);
    assert_null(find(&f, "lora_unet_mid_block_attentions_0_proj_in"));
    assert_null(find(&f, "lora_unet_up_blocks_3_attentions_2_proj_in"));
    assert_int_equal(find(&f, "lora_te_text_model_encoder_layers_0_mlp_fc1")->rank, 4);
    assert_true(fabs(f.settings.plus_unet - (8.0)) <= 1e-15);
    assert_true(fabs(f.settings.plus_text_encoder - (4.0)) <= 1e-15);
    end(&f);
}

static void presets_of_rates(void **state)
{
    (void)state;
    fixture f;
    begin(&f, "tiny");
    assert_ok(parse(&f, "down_lr_weight=sine+0.5", "up_lr_weight=1,0.1,0.3",
                    "block_lr_zero_threshold=0.2", NULL));
    assert_true(fabs(f.settings.lr_weight[3] - (sin(acos(-1.0) / 2.0 * 3.0 / 11.0) + 0.5)) <=
                1e-15);
    assert_true(fabs(f.settings.lr_weight[12] - (1.0)) <= 1e-15);
    assert_true(fabs(f.settings.lr_weight[14] - (0.0)) <= 1e-15); /* below the threshold */
    assert_true(fabs(f.settings.lr_weight[15] - (0.3)) <= 1e-15);
    assert_true(fabs(f.settings.lr_weight[24] - (1.0)) <= 1e-15); /* not given */
    end(&f);
}

static void patterns(void **state)
{
    (void)state;
    fixture f;
    begin(&f, "sd1");
    assert_ok(parse(&f, "exclude_patterns=[r'.*attn1.*', \".*ff\\.net.*\", 'mid_block']",
                    "include_patterns=mid_block.*", NULL));
    build(&f);
    assert_int_equal(f.lora.n_sites, 264 - 6 * 16 + 6);
    assert_non_null(find(&f, "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"));
    end(&f);
}

static void wrong_args_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *arg, *message;
        dr_status status;
    } cases[] = {
        {"conv_dim", "expected key=value", DR_INVALID},
        {"conv_dim=x", "conv_dim: found 'x', expected a rank", DR_INVALID},
        {"conv_alpha=1", "conv_alpha needs conv_dim", DR_INVALID},
        {"block_dims=1,2,3", "block_dims: found 3 values, expected 25", DR_INVALID},
        {"down_lr_weight=0.5", "expected 12 numbers", DR_INVALID},
        {"exclude_patterns=(", "'(' is no regular expression", DR_INVALID},
        {"conv_rank=1", "there is no 'conv_rank'; known: conv_dim", DR_INVALID},
        {"algo=loha", "algo belongs to LyCORIS", DR_UNSUPPORTED},
        {"rank_dropout=1", "1 leaves nothing to train", DR_INVALID},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fixture f;
        begin(&f, "tiny");
        assert_error(parse(&f, cases[i].arg, NULL), cases[i].status, cases[i].message);
        end(&f);
    }
}

static void the_start_depends_on_seed_and_name_alone(void **state)
{
    (void)state;
    fixture f;
    fixture g;
    begin(&f, "tiny");
    begin(&g, "tiny");
    assert_ok(parse(&f, NULL));
    assert_ok(parse(&g, "conv_dim=2", NULL));
    build(&f);
    build(&g);
    float *a = dr_xcalloc((size_t)f.lora.set[DR_PART_UNET].n_elems, sizeof *a);
    float *b = dr_xcalloc((size_t)g.lora.set[DR_PART_UNET].n_elems, sizeof *b);
    dr_lora_network_start(&f.lora, DR_PART_UNET, 7, a);
    dr_lora_network_start(&g.lora, DR_PART_UNET, 7, b);
    const char *name = "lora_unet_mid_block_attentions_0_proj_in";
    const dr_param *p = find(&f, name)->role[DR_LORA_DOWN];
    const dr_param *q = find(&g, name)->role[DR_LORA_DOWN];
    assert_memory_equal(a + p->offset, b + q->offset, (size_t)p->n * sizeof *a);
    dr_lora_network_start(&f.lora, DR_PART_UNET, 8, a);
    assert_memory_not_equal(a + p->offset, b + q->offset, (size_t)p->n * sizeof *a);
    free(a);
    free(b);
    end(&f);
    end(&g);
}

static size_t count_active(const fixture *f, bool dropped)
{
    size_t n = 0;
    for (size_t i = 0; i < f->lora.n_sites; i++) {
        const dr_adapter *a = &f->lora.site[i].adapter;
        n += dropped ? a->dropped : a->dropout.active;
    }
    return n;
}

static void dropout_is_of_a_batch_of_training_alone(void **state)
{
    (void)state;
    fixture f;
    begin(&f, "sd1");
    assert_ok(parse(&f, "rank_dropout=0.25", "module_dropout=0.5", NULL));
    build(&f);
    dr_params_set_trainable(&f.lora.set[DR_PART_TEXT_ENCODER], false);
    assert_int_equal(count_active(&f, false), 0); /* samples and validation before the first step */
    const dr_lora_batch b = {.module_dropout = 0.5, .seed = 3, .epoch = 1, .sample = 4};
    dr_lora_network_draw(&f.lora, &b);
    assert_int_equal(count_active(&f, false), 192); /* the U-Net's: the text encoder is frozen */
    assert_in_range(count_active(&f, true), 60, 132);
    const dr_adapter *one = &find(&f, "lora_unet_mid_block_attentions_0_proj_in")->adapter;
    assert_true(one->dropout.ranks == 0.25F && one->dropout.by_sample);
    assert_true(one->dropout.seed == 3 && one->dropout.time == 1 &&
                (uint32_t)one->dropout.item == 4);
    dr_lora_network_draw(&f.lora, NULL);
    assert_int_equal(count_active(&f, false) + count_active(&f, true), 0);
    end(&f);
}

/* Shapes of lycoris-lora 4.1.3's LokrModule over layers of these sizes, by its factorization(). */
static void lokr_has_the_matrices_of_lycoris(void **state)
{
    (void)state;
    fixture f;
    begin(&f, "sd1");
    dr_strv args = {0};
    dr_strv_push(&args, "algo=lokr");
    dr_strv_push(&args, "use_tucker=True");
    f.settings.dim = 4;
    assert_ok(dr_lycoris_settings_parse(&args, &f.settings));
    dr_strv_free(&args);
    build(&f);
    const dr_lora_site *s = find(&f, "lora_unet_down_blocks_0_attentions_0_proj_in"); /* 320, 320 */
    check_factor(s->role[DR_LORA_W1], 2, 16, 16, 0);
    check_factor(s->role[DR_LORA_W2_A], 2, 20, 4, 0);
    check_factor(s->role[DR_LORA_W2_B], 4, 4, 20, 1);
    s = find(&f, "lora_unet_mid_block_resnets_0_conv1"); /* 1280, 1280, 3x3 */
    check_factor(s->role[DR_LORA_W1], 2, 32, 32, 0);
    check_factor(s->role[DR_LORA_W2_A], 2, 4, 40, 0);
    check_factor(s->role[DR_LORA_T2], 4, 4, 4, 3);
    s = find(&f, "lora_te_text_model_encoder_layers_0_mlp_fc1"); /* 768 to 3072 */
    check_factor(s->role[DR_LORA_W1], 2, 48, 24, 0);
    check_factor(s->role[DR_LORA_W2_A], 2, 64, 4, 0);
    check_factor(s->role[DR_LORA_W2_B], 2, 4, 32, 0);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_are_those_of_sdscripts),
        cmocka_unit_test(rank_4_of_sd1_has_the_size_of_the_spec),
        cmocka_unit_test(shapes_follow_the_weights),
        cmocka_unit_test(blocks_are_counted_as_in_sdscripts),
        cmocka_unit_test(ranks_by_block),
        cmocka_unit_test(presets_of_rates),
        cmocka_unit_test(patterns),
        cmocka_unit_test(wrong_args_are_named),
        cmocka_unit_test(dropout_is_of_a_batch_of_training_alone),
        cmocka_unit_test(lokr_has_the_matrices_of_lycoris),
        cmocka_unit_test(the_start_depends_on_seed_and_name_alone),
    };
    return dr_test_run("lora_network", tests, sizeof tests / sizeof *tests);
}
