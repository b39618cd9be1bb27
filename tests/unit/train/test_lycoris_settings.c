#include "dr_test.h"

#include "train/lora/lora_settings.h"

#include <stdio.h>
#include <string.h>

static dr_status parse(const char *args, dr_lora_settings *s)
{
    dr_strv list = {0};
    char copy[256];
    char *at = copy;
    *s = (dr_lora_settings){.dim = 8, .alpha = 2.0};
    (void)snprintf(copy, sizeof copy, "%s", args);
    while (*at != '\0') {
        char *end = at + strcspn(at, " ");
        const bool last = *end == '\0';
        *end = '\0';
        dr_strv_push(&list, at);
        at = last ? end : end + 1;
    }
    const dr_status st = dr_lycoris_settings_parse(&list, s);
    dr_strv_free(&list);
    return st;
}

/* Defaults of create_network in LyCORIS 4.1.3. */
static void nothing_given_is_a_locon_of_all_layers(void **state)
{
    (void)state;
    dr_lora_settings s;
    assert_ok(parse("", &s));
    assert_int_equal(s.kind, DR_LORA_FACTORS);
    assert_string_equal(s.lycoris.preset, "full");
    assert_true(s.lycoris.windows && s.lycoris.ends && s.lycoris.text_mlp && s.has_conv);
    assert_int_equal(s.conv_dim, 8);
    assert_true(s.conv_alpha == 2.0);
}

static void settings_are_taken(void **state)
{
    (void)state;
    dr_lora_settings s;
    assert_ok(parse("algo=LoHa preset=attn-mlp conv_dim=4 conv_alpha=1.5 dropout=0 dora_wd=False "
                    "use_tucker=false bypass_mode=True",
                    &s));
    assert_int_equal(s.kind, DR_LORA_HADAMARD);
    assert_true(s.lycoris.transformer && !s.lycoris.residual && !s.has_conv);
    assert_int_equal(s.conv_dim, 4);
    assert_true(s.conv_alpha == 1.5);
    assert_ok(parse("algo=lokr factor=8 decompose_both=True dora_wd=True wd_on_output=False "
                    "use_tucker=True use_scalar=1 rs_lora=true rank_dropout=0.25",
                    &s));
    assert_int_equal(s.kind, DR_LORA_KRONECKER);
    assert_int_equal(s.form.factor, 8);
    assert_true(s.form.decompose_both && s.form.magnitude && s.form.by_input && s.form.tucker);
    assert_true(s.form.scalar && s.form.root_scale && !s.form.full_matrix);
    assert_true(s.dropout.rows == 0.25F && s.dropout.ranks == 0.0F);
    assert_ok(parse("bypass_mode=True dropout=0.5 rank_dropout=0.25 module_dropout=0.1", &s));
    assert_true(s.dropout.output == 0.5F && s.dropout.ranks == 0.25F && !s.dropout.by_sample);
    assert_true(s.dropout.rows == 0.0F && s.module_dropout == 0.1);
    assert_ok(parse("algo=locon loraplus_lr_ratio=16 loraplus_text_encoder_lr_ratio=2", &s));
    assert_true(s.plus_unet == 16.0 && s.plus_text_encoder == 2.0);
}

static void what_is_not_there_is_named(void **state)
{
    (void)state;
    dr_lora_settings s;
    static const struct {
        const char *args, *why;
    } refused[] = {
        {"algo=boft", "rotations are not trained here"},
        {"algo=full", "whole differences"},
        {"dropout=0.1", "with bypass_mode=True only"},
        {"dora_wd=True bypass_mode=True", "LyCORIS ignores it with bypass_mode=True"},
        {"algo=lokr rank_dropout=0.1 bypass_mode=True", "ignores it with algo=lokr"},
        {"algo=lokr decompose_both=False", "takes any text, this one too, for true"},
        {"disable_conv_cp=True", "takes it for use_tucker"},
        {"train_norm=True", "a norm's weights have no factors"},
        {"constraint=0.1", "of the OFT algorithms"},
        {"block_size=4", "of dylora and boft"},
        {"train_t5xxl=True", "have no T5"},
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        assert_error(parse(refused[i].args, &s), DR_UNSUPPORTED, refused[i].why);
    }
    assert_error(parse("algo=lowrank", &s), DR_INVALID, "expected lora, locon, loha or lokr");
    assert_error(parse("factor=4", &s), DR_INVALID, "are of algo=lokr");
    assert_error(parse("wd_on_output=False", &s), DR_INVALID, "needs dora_wd=True");
    assert_error(parse("rank_dropout=1", &s), DR_INVALID, "leaves nothing to train");
    assert_error(parse("algo=lokr full_matrix=1 decompose_both=1", &s), DR_INVALID, "leave one");
    assert_error(parse("rank=4", &s), DR_INVALID, "known: algo, preset");
    assert_error(parse("preset=mine.toml", &s), DR_UNSUPPORTED, "available: full, full-lin");
    assert_error(parse("conv_dim=x", &s), DR_INVALID, "expected a whole number");
    assert_error(parse("algo", &s), DR_INVALID, "expected key=value");
    assert_error(parse("algo=loha loraplus_lr_ratio=4", &s), DR_INVALID, "leave it out with");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_given_is_a_locon_of_all_layers),
        cmocka_unit_test(settings_are_taken),
        cmocka_unit_test(what_is_not_there_is_named),
    };
    return DR_TEST_MAIN("lycoris_settings", tests);
}
