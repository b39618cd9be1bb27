#include "dr_test.h"

#include "data_fixture.h"

#include "base/file.h"
#include "data/batch.h"
#include "data/mask.h"
#include "data/picture_check.h"
#include "image/png_write.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* 12x8 pixels whose red is 20 x, green 30 y, blue 7. */
static void make_picture(dr_image *img)
{
    assert_ok(dr_image_alloc(img, 12, 8));
    for (int y = 0; y < 8; y++) {
        for (int x = 0; x < 12; x++) {
            unsigned char *p = img->pixels + (y * 12 + x) * 3;
            p[0] = (unsigned char)(20 * x);
            p[1] = (unsigned char)(30 * y);
            p[2] = 7;
        }
    }
}

static char *write_picture(const char *name)
{
    char *path = dr_path_join(dr_test_tmpdir(), name);
    dr_image img = {0};
    make_picture(&img);
    assert_ok(dr_png_write(path, &img, NULL, 0));
    dr_image_free(&img);
    return path;
}

static void expect_truncation_found(const char *path, const char *cut_path)
{
    char *data = NULL;
    size_t n = 0;
    assert_ok(dr_file_read(path, 1u << 30, &data, &n));
    dr_size_px size;
    assert_ok(dr_picture_check(path, NULL, &size));
    static const double parts[] = {0.01, 0.1, 0.3, 0.5, 0.9, 0.999};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        size_t kept = (size_t)((double)n * parts[i]) + 1;
        if (kept < n - 1) {
            assert_ok(dr_file_write(cut_path, data, kept));
            assert_error(dr_picture_check(cut_path, NULL, &size), DR_FORMAT, cut_path);
        }
    }
    assert_ok(dr_file_write(cut_path, data, n - 1)); /* one byte short */
    assert_error(dr_picture_check(cut_path, NULL, &size), DR_FORMAT, "without its end marker");
    free(data);
}

static void truncated_png_is_found(void **state)
{
    (void)state;
    char *path = write_picture("whole.png");
    char *cut = dr_path_join(dr_test_tmpdir(), "cut.png");
    expect_truncation_found(path, cut);
    dr_size_px size;
    assert_ok(dr_picture_check(path, NULL, &size));
    assert_true(size.w == 12 && size.h == 8);
    free(path);
    free(cut);
}

static void damage_inside_is_found_by_decoding(void **state)
{
    (void)state;
    char *path = write_picture("damaged.png");
    dr_size_px size;
    assert_ok(dr_picture_check_decoding(path, NULL, &size));
    assert_true(size.w == 12 && size.h == 8);
    char *data = NULL;
    size_t n = 0;
    assert_ok(dr_file_read(path, 1u << 20, &data, &n));
    data[n / 2] = (char)(data[n / 2] ^ 0x55); /* somewhere in the compressed pixels */
    assert_ok(dr_file_write(path, data, n));
    assert_ok(dr_picture_check(path, NULL, &size));
    assert_error(dr_picture_check_decoding(path, NULL, &size), DR_FORMAT, "damaged.png");
    free(data);
    free(path);
}

/* Real photos, one of each folder (some with thumbnails inside). */
static void truncated_photos_are_found(void **state)
{
    (void)state;
    if (dr_test_shared() == NULL) {
        DR_SKIP("shared");
    }
    static const char *const folders[] = {"dog", "cat", "can", "vase", "teapot", "backpack"};
    char *cut = dr_path_join(dr_test_tmpdir(), "cut.jpg");
    for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        dr_str path = {0};
        dr_str_printf(&path, "%s/dreambooth/%s/03.jpg", dr_test_shared(), folders[i]);
        expect_truncation_found(dr_str_get(&path), cut);
        dr_str_free(&path);
    }
    free(cut);
}

static void pixels_are_resized_cropped_and_scaled(void **state)
{
    (void)state;
    char *path = write_picture("pixels.png");
    dr_dataset_image image = {
        .path = path, .size = {12, 8}, .fit = {.bucket = {8, 8}, .resized = {12, 8}, .crop_x = 2}};
    float got[8 * 8 * 3];
    for (int flip = 0; flip < 2; flip++) {
        assert_ok(dr_sample_pixels(&image, flip == 1, got));
        for (int y = 0; y < 8; y++) {
            for (int x = 0; x < 8; x++) {
                int column = 2 + (flip == 1 ? 7 - x : x);
                const float want[3] = {(float)(20 * column), (float)(30 * y), 7.0f};
                for (int c = 0; c < 3; c++) {
                    /* two roundings of f32 values below 2 */
                    assert_at_most(fabsf(got[(y * 8 + x) * 3 + c] - (want[c] / 127.5f - 1.0f)),
                                   2.4e-7);
                }
            }
        }
    }
    image.fit = (dr_bucket_fit){.bucket = {6, 4}, .resized = {6, 4}};
    assert_ok(dr_sample_pixels(&image, false, got));
    /* area of 2x2: red of columns 0 and 1 is 10, green of rows 0 and 1 is 15 */
    assert_at_most(fabsf(got[0] - (10.0f / 127.5f - 1.0f)), 2.4e-7);
    assert_at_most(fabsf(got[1] - (15.0f / 127.5f - 1.0f)), 2.4e-7);
    image.size.w = 11;
    assert_error(dr_sample_pixels(&image, false, got), DR_FORMAT, "was 11x8 when training started");
    free(path);
}

/* The left half counts. */
static void masks_are_averaged_and_mirrored(void **state)
{
    (void)state;
    dr_image img = {0};
    assert_ok(dr_image_alloc(&img, 16, 8));
    for (int i = 0; i < 16 * 8; i++) {
        img.pixels[3 * i] = i % 16 < 8 ? 255 : i % 16 == 8 ? 204 : 0;
    }
    char *path = dr_path_join(dr_test_tmpdir(), "mask.png");
    assert_ok(dr_png_write(path, &img, NULL, 0));
    dr_image_free(&img);
    dr_dataset_image image = {.path = "a.png",
                              .mask = path,
                              .size = {16, 8},
                              .fit = {.bucket = {16, 8}, .resized = {16, 8}}};
    float got[2];
    assert_ok(dr_mask_load(&image, NULL, false, got));
    assert_true(got[0] >= 1.0f && got[0] <= 1.0f);
    assert_true(fabsf(got[1] - 0.1f) < 1e-6f); /* one of eight columns, 204 / 255 */
    assert_ok(dr_mask_load(&image, NULL, true, got));
    assert_true(got[1] >= 1.0f && got[1] <= 1.0f);
    image.size.w = 17;
    assert_error(dr_mask_load(&image, NULL, false, got), DR_FORMAT, "the mask is 16x8 pixels");
    image.mask = NULL;
    assert_ok(dr_mask_load(&image, NULL, false, got));
    assert_true(got[1] >= 1.0f && got[1] <= 1.0f);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(truncated_png_is_found),
        cmocka_unit_test(truncated_photos_are_found),
        cmocka_unit_test(damage_inside_is_found_by_decoding),
        cmocka_unit_test(pixels_are_resized_cropped_and_scaled),
        cmocka_unit_test(masks_are_averaged_and_mirrored),
    };
    return DR_TEST_MAIN("pictures", tests);
}
