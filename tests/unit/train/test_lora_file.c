#include "dr_test.h"

#include "train/lora/lora_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TENSORS = 8 };

typedef struct file_case { /* a LoRA file to write: F32 tensors that hold 1, 2, 3, ... */
    dr_safetensors_entry entry[MAX_TENSORS];
    int64_t shape[MAX_TENSORS][4];
    size_t n;
    dr_safetensors_meta meta[2];
    size_t n_meta;
} file_case;

static void add(file_case *c, const char *name, int rank, int64_t d0, int64_t d1, int64_t k)
{
    const int64_t shape[4] = {d0, d1, k, k};
    memcpy(c->shape[c->n], shape, sizeof shape);
    c->entry[c->n] = (dr_safetensors_entry){name, DR_F32, rank, c->shape[c->n]};
    c->n++;
}

static const char *path_of(const char *name)
{
    static char path[512];
    (void)snprintf(path, sizeof path, "%s/%s", dr_test_tmpdir(), name);
    return path;
}

static dr_status write_and_open(const file_case *c, float first, dr_lora_file **out)
{
    float numbers[256];
    const void *data[MAX_TENSORS];
    for (size_t i = 0; i < 256; i++) {
        numbers[i] = first * (float)(i + 1);
    }
    for (size_t i = 0; i < c->n; i++) {
        data[i] = numbers;
    }
    const dr_safetensors_content content = {
        .entries = c->entry, .n_entries = c->n, .meta = c->meta, .n_meta = c->n_meta};
    assert_ok(dr_safetensors_save(path_of("lora.safetensors"), &content, data));
    return dr_lora_file_open(out, path_of("lora.safetensors"));
}

static void assert_name(const char *tensor_down, const char *tensor_up, const char *want)
{
    file_case c = {0};
    dr_lora_file *f = NULL;
    add(&c, tensor_down, 2, 2, 3, 1);
    add(&c, tensor_up, 2, 5, 2, 1);
    assert_ok(write_and_open(&c, 1.0F, &f));
    assert_int_equal(dr_lora_file_count(f), 1);
    const dr_lora_module *m = dr_lora_file_at(f, 0);
    assert_string_equal(m->name, want);
    assert_int_equal(m->rank, 2);
    assert_int_equal(m->out, 5);
    assert_int_equal(m->in, 3);
    assert_true(m->scale == 1.0);
    assert_ptr_equal(dr_lora_file_find(f, want), m);
    dr_lora_file_close(f);
}

/* Names as sd-scripts, diffusers (old and new), peft and cloneofsimo's lora write them. */
static void every_dialect_gives_the_same_names(void **state)
{
    (void)state;
    static const char q[] = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q";
    static const char out[] =
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0";
    static const char text[] = "lora_te_text_model_encoder_layers_3_self_attn_out_proj";
#define BLOCK "mid_block.attentions.0.transformer_blocks.0.attn1."
#define LAYER "text_model.encoder.layers.3.self_attn."
    assert_name("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight",
                "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.lora_up.weight",
                q);
    assert_name(BLOCK "processor.to_q_lora.down.weight", BLOCK "processor.to_q_lora.up.weight", q);
    assert_name("unet." BLOCK "processor.to_out_lora.down.weight",
                "unet." BLOCK "processor.to_out_lora.up.weight", out);
    assert_name("unet." BLOCK "to_out.0.lora.down.weight", "unet." BLOCK "to_out.0.lora.up.weight",
                out);
    assert_name("unet." BLOCK "to_q.lora_A.weight", "unet." BLOCK "to_q.lora_B.weight", q);
    assert_name("base_model.model." BLOCK "to_q.lora_A.default.weight",
                "base_model.model." BLOCK "to_q.lora_B.default.weight", q);
    assert_name("text_encoder." LAYER "out_proj.lora_linear_layer.down.weight",
                "text_encoder." LAYER "out_proj.lora_linear_layer.up.weight", text);
    assert_name("text_encoder." LAYER "to_out_lora.down.weight",
                "text_encoder." LAYER "to_out_lora.up.weight", text);
    assert_name("unet:135:down", "unet:135:up", q);
    assert_name("unet:3:down", "unet:3:up",
                "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0");
    assert_name("unet:4:down", "unet:4:up",
                "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_ff_net_0_proj");
    assert_name("text_encoder:15:down", "text_encoder:15:up", text);
    assert_name("lora_unet_unet_mid_block_attentions_0_proj_in.lora_down.weight",
                "lora_unet_unet_mid_block_attentions_0_proj_in.lora_up.weight",
                "lora_unet_mid_block_attentions_0_proj_in");
}

static void what_cannot_be_read_is_named(void **state)
{
    (void)state;
    dr_lora_file *f = NULL;
    file_case half = {0};
    add(&half, "lora_unet_a.lora_down.weight", 2, 2, 3, 1);
    assert_error(write_and_open(&half, 1.0F, &f), DR_FORMAT,
                 "module lora_unet_a is not whole, or its shapes do not fit together; found "
                 "lora_unet_a.lora_down.weight [2,3]");
    assert_null(f);
    file_case ranks = half;
    ranks.entry[0].shape = ranks.shape[0];
    add(&ranks, "lora_unet_a.lora_up.weight", 2, 5, 3, 1);
    assert_error(write_and_open(&ranks, 1.0F, &f), DR_FORMAT, "do not fit together");
    file_case empty = {0};
    add(&empty, "lora_unet_a.lora_down.weight", 2, 0, 3, 1);
    assert_error(write_and_open(&empty, 1.0F, &f), DR_FORMAT, "lora_down.weight is empty");
    file_case twice = {0};
    add(&twice, "lora_unet_a.lora_down.weight", 2, 2, 3, 1);
    add(&twice, "a.lora_A.weight", 2, 2, 3, 1);
    assert_error(write_and_open(&twice, 1.0F, &f), DR_FORMAT, "are the same part of one module");
    file_case oft = {0};
    add(&oft, "lora_unet_a.oft_blocks", 2, 2, 3, 1);
    assert_error(write_and_open(&oft, 1.0F, &f), DR_UNSUPPORTED, "belongs to OFT");
    file_case other = {0};
    add(&other, "conv_in.weight", 2, 2, 3, 1);
    assert_error(write_and_open(&other, 1.0F, &f), DR_FORMAT, "no tensor has a name");
    file_case number = {0};
    add(&number, "unet:144:down", 2, 2, 3, 1);
    assert_error(write_and_open(&number, 1.0F, &f), DR_FORMAT, "expected numbers from 0 to 143");
}

static void alpha_scales_and_zero_means_the_rank(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        file_case c = {0};
        dr_lora_file *f = NULL;
        add(&c, "lora_unet_a.lora_down.weight", 2, 2, 3, 1);
        add(&c, "lora_unet_a.lora_up.weight", 2, 1, 2, 1);
        add(&c, "lora_unet_a.alpha", 0, 1, 1, 1);
        assert_ok(write_and_open(&c, i == 0 ? 1.0F : 0.0F, &f));
        const dr_lora_module *m = dr_lora_file_at(f, 0);
        float w[3];
        assert_true(m->scale == (i == 0 ? 0.5 : 1.0));
        assert_ok(dr_lora_delta(f, m, w));
        /* up (1,2) times down ((1,2,3),(4,5,6)) is (9,12,15) */
        assert_true(w[0] == (i == 0 ? 4.5F : 0.0F));
        assert_true(w[1] == (i == 0 ? 6.0F : 0.0F));
        assert_true(w[2] == (i == 0 ? 7.5F : 0.0F));
        size_t zero = 0;
        const dr_lora_module *first = NULL;
        assert_ok(dr_lora_file_count_zero(f, &zero, &first));
        assert_int_equal(zero, i == 0 ? 0 : 1);
        assert_ptr_equal(first, i == 0 ? NULL : m);
        float base[3] = {1.0F, 1.0F, 1.0F};
        assert_ok(dr_lora_apply(f, m, -2.0, base));
        assert_true(base[0] == (i == 0 ? -8.0F : 1.0F));
        dr_lora_file_close(f);
    }
}

static void alpha_of_peft_is_in_the_header(void **state)
{
    (void)state;
    file_case c = {.meta = {{"lora_adapter_metadata",
                             "{\"unet.lora_alpha\": 8, \"unet.alpha_pattern\": {\"b.to_q\": 1}}"}},
                   .n_meta = 1};
    dr_lora_file *f = NULL;
    add(&c, "unet.a.to_q.lora_A.weight", 2, 2, 3, 1);
    add(&c, "unet.a.to_q.lora_B.weight", 2, 1, 2, 1);
    add(&c, "unet.b.to_q.lora_A.weight", 2, 2, 3, 1);
    add(&c, "unet.b.to_q.lora_B.weight", 2, 1, 2, 1);
    assert_ok(write_and_open(&c, 1.0F, &f));
    assert_true(dr_lora_file_find(f, "lora_unet_a_to_q")->scale == 4.0);
    assert_true(dr_lora_file_find(f, "lora_unet_b_to_q")->scale == 0.5);
    dr_lora_file_close(f);
}

static void real_files_have_all_modules(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        size_t n;
        int64_t rank;
    } files[] = {{"catundchat_pytorch_lora_weights.safetensors", 128, 4},
                 {"catundchat_pytorch_lora_weights.bin", 128, 4},
                 {"lora_disney.safetensors", 192, 1},
                 {"analog_svd_rank4.safetensors", 192, 4}};
    if (dr_test_shared() == NULL) {
        DR_SKIP("shared");
    }
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[512];
        dr_lora_file *f = NULL;
        (void)snprintf(path, sizeof path, "%s/lora/%s", dr_test_shared(), files[i].name);
        assert_ok(dr_lora_file_open(&f, path));
        assert_int_equal(dr_lora_file_count(f), files[i].n);
        assert_int_equal(dr_lora_file_at(f, 0)->rank, files[i].rank);
        dr_lora_file_close(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_dialect_gives_the_same_names),
        cmocka_unit_test(what_cannot_be_read_is_named),
        cmocka_unit_test(alpha_scales_and_zero_means_the_rank),
        cmocka_unit_test(alpha_of_peft_is_in_the_header),
        cmocka_unit_test(real_files_have_all_modules),
    };
    return DR_TEST_MAIN("lora_file", tests);
}
