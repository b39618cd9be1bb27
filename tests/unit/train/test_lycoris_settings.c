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
    assert_ok(parse("algo=locon loraplus_lr_ratio=16 loraplus_text_encoder_lr_ratio=2", &s));
    assert_true(s.plus_unet == 16.0 && s.plus_text_encoder == 2.0);
}

static void what_is_not_there_is_named(void **state)
{
    (void)state;
    dr_lora_settings s;
    assert_error(parse("algo=lokr", &s), DR_UNSUPPORTED, "algo=lokr is not available yet");
    assert_error(parse("algo=lowrank", &s), DR_INVALID, "expected lora, locon or loha");
    assert_error(parse("dora_wd=True", &s), DR_UNSUPPORTED, "dora_wd=True is not available yet");
    assert_error(parse("dropout=0.1", &s), DR_UNSUPPORTED, "dropout=0.1 is not available yet");
    assert_error(parse("factor=4", &s), DR_UNSUPPORTED, "known: algo, preset");
    assert_error(parse("preset=mine.toml", &s), DR_UNSUPPORTED, "available: full, full-lin");
    assert_error(parse("conv_dim=x", &s), DR_INVALID, "expected a rank");
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
