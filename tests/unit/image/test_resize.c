#include "dr_test.h"

#include "image/resize.h"
#include "image_fnv.h"
#include "image_vectors.h"

#include <stdlib.h>
#include <string.h>

/* The generator's noise(). */
static void fill_noise(dr_image *img, uint32_t seed)
{
    size_t n = (size_t)img->width * (size_t)img->height * 3;
    uint32_t state = seed;
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        img->pixels[i] = (unsigned char)(state >> 24);
    }
}

static dr_image noise_image(int width, int height, uint32_t seed)
{
    dr_image img = {0};
    assert_ok(dr_image_alloc(&img, width, height));
    fill_noise(&img, seed);
    return img;
}

typedef struct resize_case {
    dr_resize_filter filter;
    int from_w, from_h, to_w, to_h;
    uint32_t seed;
    uint64_t fnv;
} resize_case;

#define RESIZE_CASE(filter, sw, sh, dw, dh, seed, fnv)                                             \
    {DR_RESIZE_##filter, sw, sh, dw, dh, seed, UINT64_C(fnv)},
static const resize_case cases[] = {RESIZE_CASES};
#undef RESIZE_CASE

static void resized_pixels_equal_the_peers(void **state)
{
    (void)state;
    int failed = 0;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const resize_case *c = &cases[i];
        dr_image src = noise_image(c->from_w, c->from_h, c->seed);
        dr_image dst = {0};
        assert_ok(dr_image_resize(&src, c->to_w, c->to_h, c->filter, &dst));
        assert_int_equal(dst.width, c->to_w);
        assert_int_equal(dst.height, c->to_h);
        if (fnv1a(dst.pixels, (size_t)c->to_w * (size_t)c->to_h * 3) != c->fnv) {
            print_error("%s %dx%d -> %dx%d differs\n", dr_resize_filter_name(c->filter), c->from_w,
                        c->from_h, c->to_w, c->to_h);
            failed++;
        }
        dr_image_free(&src);
        dr_image_free(&dst);
    }
    assert_int_equal(failed, 0);
}

static void auto_takes_area_unless_a_side_grows(void **state)
{
    (void)state;
    const int sizes[][2] = {{20, 10}, {40, 30}, {40, 31}, {41, 30}, {41, 12}, {12, 31}};
    dr_image src = noise_image(40, 30, 5);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        int w = sizes[i][0];
        int h = sizes[i][1];
        dr_image got = {0};
        dr_image want = {0};
        assert_ok(dr_image_resize(&src, w, h, DR_RESIZE_AUTO, &got));
        assert_ok(dr_image_resize(&src, w, h,
                                  w <= 40 && h <= 30 ? DR_RESIZE_AREA : DR_RESIZE_LANCZOS, &want));
        assert_memory_equal(got.pixels, want.pixels, (size_t)w * (size_t)h * 3);
        dr_image_free(&got);
        dr_image_free(&want);
    }
    dr_image_free(&src);
}

static void filters_have_the_names_of_sd_scripts(void **state)
{
    (void)state;
    static const char *const names[] = {"lanczos", "nearest", "bilinear", "linear",
                                        "bicubic", "cubic",   "area",     "box"};
    static const dr_resize_filter want[] = {DR_RESIZE_LANCZOS, DR_RESIZE_NEAREST, DR_RESIZE_LINEAR,
                                            DR_RESIZE_LINEAR,  DR_RESIZE_CUBIC,   DR_RESIZE_CUBIC,
                                            DR_RESIZE_AREA,    DR_RESIZE_BOX};
    dr_resize_filter got = DR_RESIZE_AUTO;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        assert_true(dr_resize_filter_parse(names[i], &got));
        assert_int_equal(got, want[i]);
    }
    assert_false(dr_resize_filter_parse("sharp", &got));
    assert_false(dr_resize_filter_parse("", &got));
}

static void same_size_is_a_copy(void **state)
{
    (void)state;
    dr_image src = noise_image(13, 7, 3);
    for (int filter = 0; filter < DR_RESIZE_FILTERS; filter++) {
        dr_image dst = {0};
        assert_ok(dr_image_resize(&src, 13, 7, (dr_resize_filter)filter, &dst));
        assert_ptr_not_equal(dst.pixels, src.pixels);
        assert_memory_equal(dst.pixels, src.pixels, 13 * 7 * 3);
        dr_image_free(&dst);
    }
    dr_image_free(&src);
}

static void crop_takes_the_window(void **state)
{
    (void)state;
    dr_image src = noise_image(13, 7, 3);
    dr_image dst = {0};
    assert_ok(dr_image_crop(&src, 2, 3, 11, 4, &dst));
    for (int y = 0; y < 4; y++) {
        assert_memory_equal(dst.pixels + (ptrdiff_t)y * 33,
                            src.pixels + ((ptrdiff_t)(y + 3) * 13 + 2) * 3, 33);
    }
    dr_image_free(&dst);
    assert_panics(assert_ok(dr_image_crop(&src, 3, 3, 11, 4, &dst)));
    assert_panics(assert_ok(dr_image_crop(&src, -1, 0, 4, 4, &dst)));
    dr_image_free(&src);
}

static void floats_equal_totensor_and_normalize(void **state)
{
    (void)state;
    dr_image img = {0};
    assert_ok(dr_image_alloc(&img, 256, 1));
    for (int i = 0; i < 256 * 3; i++) {
        img.pixels[i] = (unsigned char)(i / 3);
    }
    float out[256 * 3];
    float red[256];
    dr_image_to_f32(&img, out, false);
    for (int i = 0; i < 256; i++) {
        red[i] = out[i * 3];
        assert_true(out[i * 3] == out[i * 3 + 1] && out[i * 3] == out[i * 3 + 2]);
    }
    assert_true(fnv1a(red, sizeof red) == NORMALISED_FNV);
    assert_true(red[0] == -1.0f && red[255] == 1.0f);
    dr_image_free(&img);
}

static void flips_agree_and_undo_themselves(void **state)
{
    (void)state;
    for (int width = 1; width <= 8; width++) {
        dr_image img = noise_image(width, 5, (uint32_t)width);
        size_t n = (size_t)width * 5 * 3;
        float *a = calloc(n, sizeof *a);
        float *b = calloc(n, sizeof *b);
        dr_image_to_f32(&img, a, true);
        dr_image_flip(&img);
        dr_image_to_f32(&img, b, false);
        assert_memory_equal(a, b, n * sizeof *a);
        dr_image_flip(&img);
        dr_image again = noise_image(width, 5, (uint32_t)width);
        assert_memory_equal(img.pixels, again.pixels, n);
        dr_image_free(&again);
        dr_image_free(&img);
        free(a);
        free(b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resized_pixels_equal_the_peers),
        cmocka_unit_test(auto_takes_area_unless_a_side_grows),
        cmocka_unit_test(filters_have_the_names_of_sd_scripts),
        cmocka_unit_test(same_size_is_a_copy),
        cmocka_unit_test(crop_takes_the_window),
        cmocka_unit_test(floats_equal_totensor_and_normalize),
        cmocka_unit_test(flips_agree_and_undo_themselves),
    };
    return DR_TEST_MAIN("resize", tests);
}
