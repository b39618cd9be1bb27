#include "dr_test.h"

#include "data/buckets.h"

#include <string.h>

static dr_bucket_set make_set(dr_arena *arena, dr_size_px resolution, int min_px, int max_px,
                              bool no_upscale)
{
    dr_bucket_options o = dr_bucket_options_default();
    o.resolution = resolution;
    o.enable = true;
    o.no_upscale = no_upscale;
    o.min_px = min_px;
    o.max_px = max_px;
    assert_ok(dr_bucket_options_validate(&o));
    dr_bucket_set set;
    dr_bucket_set_build(&set, &o, arena);
    return set;
}

/* want: the sizes with w <= h; their mirrors are expected as well, all sorted. */
static void expect_list(dr_bucket_set set, const dr_size_px *want, size_t n_want, size_t n_total)
{
    assert_int_equal(set.n, n_total);
    for (size_t i = 0; i < set.n; i++) {
        assert_true(i == 0 || dr_size_px_compare(&set.sizes[i - 1], &set.sizes[i]) < 0);
        dr_size_px s = set.sizes[i];
        dr_size_px upright = s.w <= s.h ? s : (dr_size_px){s.h, s.w};
        bool found = false;
        for (size_t k = 0; k < n_want; k++) {
            found = found || dr_size_px_compare(&want[k], &upright) == 0;
        }
        assert_true(found);
    }
}

/* The lists of sd-scripts (spec 3.1). */
static void predefined_lists_match(void **state)
{
    (void)state;
    static const dr_size_px list512[] = {{256, 832},  {256, 896}, {256, 960},
                                         {256, 1024}, {320, 704}, {320, 768},
                                         {384, 640},  {448, 576}, {512, 512}};
    static const dr_size_px list768[] = {{256, 1024}, {320, 1024}, {384, 1024}, {448, 1024},
                                         {512, 1024}, {576, 960},  {576, 1024}, {640, 896},
                                         {704, 832},  {768, 768}};
    static const dr_size_px seed_guide[] = {{384, 896}, {384, 960}, {384, 1024}, {448, 832},
                                            {512, 704}, {512, 768}, {576, 576},  {576, 640}};
    dr_arena arena;
    dr_arena_init(&arena);
    expect_list(make_set(&arena, (dr_size_px){512, 512}, 256, 1024, false), list512, 9, 17);
    expect_list(make_set(&arena, (dr_size_px){768, 768}, 256, 1024, false), list768, 10, 19);
    expect_list(make_set(&arena, (dr_size_px){768, 512}, 384, 1280, false), seed_guide, 8, 15);
    dr_arena_deinit(&arena);
}

typedef struct fit_case { /* one column of spec 3.5: bucket, resized, crop */
    int bw, bh, rw, rh, x, y;
} fit_case;

static void expect_fit(const dr_bucket_set *set, dr_size_px image, fit_case want)
{
    dr_bucket_fit fit;
    assert_ok(dr_bucket_fit_image(set, image, &fit));
    const fit_case got = {fit.bucket.w,  fit.bucket.h, fit.resized.w,
                          fit.resized.h, fit.crop_x,   fit.crop_y};
    if (memcmp(&got, &want, sizeof got) != 0) {
        fail_msg("%dx%d: bucket %dx%d resized %dx%d crop %d,%d", image.w, image.h, got.bw, got.bh,
                 got.rw, got.rh, got.x, got.y);
    }
}

static const struct worked_example {
    dr_size_px image;
    fit_case at512, at512_no_upscale, at768, at768_no_upscale;
} worked_examples[] = {
    {{512, 512},
     {512, 512, 512, 512, 0, 0},
     {512, 512, 512, 512, 0, 0},
     {768, 768, 768, 768, 0, 0},
     {512, 512, 512, 512, 0, 0}},
    {{1024, 1024},
     {512, 512, 512, 512, 0, 0},
     {512, 512, 512, 512, 0, 0},
     {768, 768, 768, 768, 0, 0},
     {768, 768, 768, 768, 0, 0}},
    {{1920, 1080},
     {640, 384, 683, 384, 21, 0},
     {640, 384, 683, 384, 21, 0},
     {1024, 576, 1024, 576, 0, 0},
     {1024, 576, 1024, 576, 0, 0}},
    {{1080, 1920},
     {384, 640, 384, 683, 0, 21},
     {384, 640, 384, 683, 0, 21},
     {576, 1024, 576, 1024, 0, 0},
     {576, 1024, 576, 1024, 0, 0}},
    {{3000, 2000},
     {640, 384, 640, 427, 0, 21},
     {576, 384, 576, 384, 0, 0},
     {896, 640, 960, 640, 32, 0},
     {832, 576, 864, 576, 16, 0}},
    {{2000, 3000},
     {384, 640, 427, 640, 21, 0},
     {384, 576, 384, 576, 0, 0},
     {640, 896, 640, 960, 0, 32},
     {576, 896, 597, 896, 10, 0}},
    {{640, 480},
     {576, 448, 597, 448, 10, 0},
     {512, 384, 512, 384, 0, 0},
     {896, 640, 896, 672, 0, 16},
     {640, 448, 640, 480, 0, 16}},
    {{300, 200},
     {640, 384, 640, 427, 0, 21},
     {256, 192, 300, 200, 22, 4},
     {896, 640, 960, 640, 32, 0},
     {256, 192, 300, 200, 22, 4}},
    {{4032, 3024},
     {576, 448, 597, 448, 10, 0},
     {512, 384, 512, 384, 0, 0},
     {896, 640, 896, 672, 0, 16},
     {832, 640, 853, 640, 10, 0}},
    {{1000, 333},
     {832, 256, 832, 277, 0, 10},
     {768, 256, 769, 256, 0, 0},
     {1024, 320, 1024, 341, 0, 10},
     {960, 320, 1000, 333, 20, 6}},
    {{777, 1234},
     {384, 640, 403, 640, 9, 0},
     {384, 640, 403, 640, 9, 0},
     {576, 960, 604, 960, 14, 0},
     {576, 896, 576, 915, 0, 9}},
    {{513, 512},
     {512, 512, 513, 512, 0, 0},
     {512, 512, 513, 512, 0, 0},
     {768, 768, 770, 768, 1, 0},
     {512, 512, 513, 512, 0, 0}},
};

static void worked_examples_match(void **state)
{
    (void)state;
    dr_arena arena;
    dr_arena_init(&arena);
    dr_size_px r512 = {512, 512};
    dr_size_px r768 = {768, 768};
    dr_bucket_set a = make_set(&arena, r512, 256, 1024, false);
    dr_bucket_set b = make_set(&arena, r512, 256, 1024, true);
    dr_bucket_set c = make_set(&arena, r768, 256, 1024, false);
    dr_bucket_set d = make_set(&arena, r768, 256, 1024, true);
    for (size_t i = 0; i < sizeof worked_examples / sizeof worked_examples[0]; i++) {
        const struct worked_example *e = &worked_examples[i];
        expect_fit(&a, e->image, e->at512);
        expect_fit(&b, e->image, e->at512_no_upscale);
        expect_fit(&c, e->image, e->at768);
        expect_fit(&d, e->image, e->at768_no_upscale);
    }
    dr_arena_deinit(&arena);
}

static void without_buckets_every_picture_covers_the_resolution(void **state)
{
    (void)state;
    dr_bucket_options o = dr_bucket_options_default();
    o.resolution = (dr_size_px){512, 384};
    assert_ok(dr_bucket_options_validate(&o));
    dr_arena arena;
    dr_arena_init(&arena);
    dr_bucket_set set;
    dr_bucket_set_build(&set, &o, &arena);
    assert_int_equal(set.n, 1);
    expect_fit(&set, (dr_size_px){1024, 1024}, (fit_case){512, 384, 512, 512, 0, 64});
    expect_fit(&set, (dr_size_px){100, 50}, (fit_case){512, 384, 768, 384, 128, 0});
    dr_arena_deinit(&arena);
}

static void unusable_shapes_are_errors(void **state)
{
    (void)state;
    dr_arena arena;
    dr_arena_init(&arena);
    dr_bucket_fit fit;
    dr_bucket_set set = make_set(&arena, (dr_size_px){512, 512}, 256, 1024, true);
    assert_error(dr_bucket_fit_image(&set, (dr_size_px){50, 300}, &fit), DR_FORMAT,
                 "50x300 pixels: with --bucket_no_upscale");
    assert_error(dr_bucket_fit_image(&set, (dr_size_px){100000, 20}, &fit), DR_FORMAT,
                 "one step of 64 pixels");
    set = make_set(&arena, (dr_size_px){512, 512}, 256, 1024, false);
    assert_error(dr_bucket_fit_image(&set, (dr_size_px){1, 9000}, &fit), DR_FORMAT,
                 "would be resized to 256x2304000");
    dr_arena_deinit(&arena);
}

static void resolution_is_one_or_two_numbers(void **state)
{
    (void)state;
    dr_size_px size;
    assert_ok(dr_resolution_parse("512", &size));
    assert_true(size.w == 512 && size.h == 512);
    assert_ok(dr_resolution_parse("768, 512", &size));
    assert_true(size.w == 768 && size.h == 512);
    static const char *const bad[] = {"", "x", "512,", ",512", "512,512,512", "512x512", "51.2"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_error(dr_resolution_parse(bad[i], &size), DR_INVALID, "neither one number");
    }
    assert_error(dr_resolution_parse("0", &size), DR_INVALID, "out of range");
    assert_error(dr_resolution_parse("-512", &size), DR_INVALID, "out of range");
    assert_error(dr_resolution_parse("512,99999999999999999999", &size), DR_INVALID,
                 "out of range");
}

static void bad_resolution_names_the_nearest_valid_one(void **state)
{
    (void)state;
    dr_bucket_options o = dr_bucket_options_default();
    o.resolution = (dr_size_px){500, 500};
    assert_error(dr_bucket_options_validate(&o), DR_INVALID,
                 "--resolution 500 is not divisible by 64; the nearest valid values are 448 and "
                 "512");
    o.resolution = (dr_size_px){768, 513};
    assert_error(dr_bucket_options_validate(&o), DR_INVALID, "height 513");
    o.resolution = (dr_size_px){10, 512};
    assert_error(dr_bucket_options_validate(&o), DR_INVALID, "the nearest valid value is 64");
}

static void limits_are_rounded_or_refused(void **state)
{
    (void)state;
    dr_bucket_options o = dr_bucket_options_default();
    o.enable = true;
    o.min_px = 300;
    o.max_px = 1000;
    assert_ok(dr_bucket_options_validate(&o));
    assert_int_equal(o.min_px, 256);
    assert_int_equal(o.max_px, 1024);
    o.min_px = 576;
    assert_error(dr_bucket_options_validate(&o), DR_INVALID, "lower it to 512 or less");
    o.min_px = 63;
    assert_error(dr_bucket_options_validate(&o), DR_INVALID, "smaller than one step");
    o.min_px = 256;
    o.max_px = 448;
    assert_error(dr_bucket_options_validate(&o), DR_INVALID, "raise it to 512 or more");
    o.max_px = 1024;
    o.step_px = 32;
    assert_error(dr_bucket_options_validate(&o), DR_INVALID, "--bucket_reso_steps 32");
    o.step_px = 0;
    assert_error(dr_bucket_options_validate(&o), DR_INVALID, "--bucket_reso_steps 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(predefined_lists_match),
        cmocka_unit_test(worked_examples_match),
        cmocka_unit_test(without_buckets_every_picture_covers_the_resolution),
        cmocka_unit_test(unusable_shapes_are_errors),
        cmocka_unit_test(resolution_is_one_or_two_numbers),
        cmocka_unit_test(bad_resolution_names_the_nearest_valid_one),
        cmocka_unit_test(limits_are_rounded_or_refused),
    };
    return DR_TEST_MAIN("buckets", tests);
}
