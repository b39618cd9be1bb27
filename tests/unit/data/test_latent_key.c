#include "dr_test.h"

#include "data/latent_key.h"

#include <string.h>

static dr_latent_key_parts base_parts(void)
{
    return (dr_latent_key_parts){
        .image = dr_xxh3_bytes("picture", 7),
        .fit = {.bucket = {512, 512}, .resized = {683, 512}, .crop_x = 85, .crop_y = 0},
        .vae_hash = "abc",
        .dtype = "f32",
        .kind = "moments",
        .stored = "F32"};
}

static void every_part_changes_the_key(void **state)
{
    (void)state;
    enum { N = 19 };
    dr_picture_options how[4];
    for (int i = 0; i < 4; i++) {
        how[i] = dr_picture_defaults;
    }
    how[0].decode.as_pillow = true;
    how[1].decode.keep_hidden = true;
    how[2].decode.background[1] = 0;
    how[3].resizing = DR_RESIZE_LANCZOS;
    dr_latent_key_parts p[N];
    for (int i = 0; i < N; i++) {
        p[i] = base_parts();
    }
    p[1].image = dr_xxh3_bytes("another", 7);
    p[2].fit.bucket.w = 448;
    p[3].fit.bucket.h = 448;
    p[4].fit.resized.w = 682;
    p[5].fit.resized.h = 513;
    p[6].fit.crop_x = 84;
    p[7].fit.crop_y = 1;
    p[8].flip = true;
    p[9].vae_hash = "abd";
    p[10].dtype = "bf16";
    p[11].vae_hash = "abc 3:f32"; /* text that looks like the next part */
    p[12].vae_hash = "";
    for (int i = 0; i < 4; i++) {
        p[13 + i].picture = &how[i];
    }
    p[17].kind = "latent";
    p[18].stored = "F16";
    char keys[N][DR_XXH3_HEX];
    for (int i = 0; i < N; i++) {
        dr_latent_key(&p[i], keys[i]);
        assert_int_equal(strlen(keys[i]), 32);
        for (int k = 0; k < i; k++) {
            assert_string_not_equal(keys[i], keys[k]);
        }
    }
}

static void key_is_stable(void **state)
{
    (void)state;
    dr_latent_key_parts a = base_parts();
    dr_latent_key_parts b = base_parts();
    b.fit.aspect_error = 0.5;         /* says nothing about the latent */
    b.picture = &dr_picture_defaults; /* what NULL means */
    char x[DR_XXH3_HEX], y[DR_XXH3_HEX];
    dr_latent_key(&a, x);
    dr_latent_key(&b, y);
    assert_string_equal(x, y);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_part_changes_the_key),
        cmocka_unit_test(key_is_stable),
    };
    return DR_TEST_MAIN("latent_key", tests);
}
