/*
 * Names of sample pictures (the examples of spec sdscripts.md 11.3), what they are read back as,
 * and the grid that is made of them.
 */
#include "base/file.h"
#include "dr_test.h"
#include "image/png_write.h"
#include "train/sample/sample_grid.h"

#include <stdlib.h>
#include <string.h>

static const char stamp[] = "20260216120000";

static void take_name(const char *name, bool at_epoch, int64_t number, size_t index, int64_t seed,
                      dr_str *out)
{
    dr_sample_when w = {.at_epoch = at_epoch, .number = number};
    memcpy(w.time, stamp, sizeof stamp);
    out->len = 0;
    dr_sample_name(name, &w, index, seed, out);
}

static void names(void **state)
{
    (void)state;
    dr_str s = {0};
    take_name("mylora", true, 2, 0, 42, &s);
    assert_string_equal(dr_str_get(&s), "mylora_e000002_00_20260216120000_42.png");
    take_name("mylora", false, 123, 0, -1, &s);
    assert_string_equal(dr_str_get(&s), "mylora_000123_00_20260216120000.png");
    take_name(NULL, false, 1234567, 101, 0, &s);
    assert_string_equal(dr_str_get(&s), "1234567_101_20260216120000_0.png");
    dr_str_free(&s);
}

static void names_are_read_back(void **state)
{
    (void)state;
    dr_sample_name_parts p;
    assert_true(dr_sample_name_parse("my", "my_e000002_00_20260216120000_42.png", &p));
    assert_true(p.at_epoch && p.number == 2 && p.index == 0);
    assert_string_equal(p.time, stamp);
    assert_true(dr_sample_name_parse(NULL, "1234567_101_20260216120000.png", &p));
    assert_true(!p.at_epoch && p.number == 1234567 && p.index == 101);
    static const char *const others[] = {
        "my_grid.png",
        "you_000002_00_20260216120000.png",
        "my_0002_00_20260216120000.png",
        "my_000002_0_20260216120000.png",
        "my_000002_00_2026021612000.png",
        "my_000002_00_202602161200001.png",
        "my_000002_00_20260216120000_.png",
        "my_000002_00_20260216120000_1.png.tmp.7",
        "my_000002_00_20260216120000_1.jpg",
        "my",
        "",
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        assert_false(dr_sample_name_parse("my", others[i], &p));
    }
}

static void write_picture(const char *dir, const char *name, int width, unsigned char level)
{
    dr_image image = {0};
    char *path = dr_path_join(dir, name);
    assert_ok(dr_image_alloc(&image, width, 64));
    memset(image.pixels, level, (size_t)width * 64 * 3);
    assert_ok(dr_png_write(path, &image, NULL, 0));
    dr_image_free(&image);
    free(path);
}

static unsigned char level_at(const dr_image *image, int x, int y)
{
    return image->pixels[((size_t)y * (size_t)image->width + (size_t)x) * 3];
}

/* Rows before the first step, after steps 1 and 2; of two files of a place the newer one; neither
 * what is older than the run, nor beyond its step, nor of another run. */
static void grid(void **state)
{
    (void)state;
    char *dir = dr_path_join(dr_test_tmpdir(), "grid");
    assert_ok(dr_mkdirs(dir));
    write_picture(dir, "a_e000000_00_20260216120000.png", 64, 10);
    write_picture(dir, "a_000001_00_20260216120001.png", 64, 20);
    write_picture(dir, "a_000001_00_20260216120002_7.png", 64, 30);
    write_picture(dir, "a_000002_01_20260216120003.png", 128, 40);
    write_picture(dir, "a_000002_00_20250216120003.png", 64, 50);
    write_picture(dir, "a_000003_00_20260216120004.png", 64, 60);
    write_picture(dir, "a_e000002_00_20260216120003.png", 64, 70);
    write_picture(dir, "b_000002_00_20260216120003.png", 64, 80);
    const dr_sample_grid g = {
        .dir = dir, .output_name = "a", .since = stamp, .last = {.number = 2}, .n_prompts = 2};
    assert_ok(dr_sample_grid_write(&g));
    char *path = dr_path_join(dir, "a_grid.png");
    dr_image image = {0};
    assert_ok(dr_image_load(path, NULL, &image));
    assert_int_equal(image.width, 2 + 2 * (128 + 2));
    assert_int_equal(image.height, 2 + 3 * (64 + 2));
    assert_int_equal(level_at(&image, 10, 10), 10);
    assert_int_equal(level_at(&image, 10, 66 + 10), 30);
    assert_int_equal(level_at(&image, 10, 132 + 10), 0);
    assert_int_equal(level_at(&image, 132 + 100, 132 + 10), 40);
    dr_image_free(&image);
    free(path);
    free(dir);
}

static void many_rows(void **state)
{
    (void)state;
    char *dir = dr_path_join(dr_test_tmpdir(), "rows");
    dr_str name = {0};
    assert_ok(dr_mkdirs(dir));
    for (int i = 1; i <= 60; i++) {
        take_name(NULL, false, i, 0, -1, &name);
        write_picture(dir, dr_str_get(&name), 64, (unsigned char)i);
    }
    const dr_sample_grid g = {.dir = dir, .last = {.number = 60}, .n_prompts = 1};
    assert_ok(dr_sample_grid_write(&g));
    char *path = dr_path_join(dir, "grid.png");
    dr_image image = {0};
    assert_ok(dr_image_load(path, NULL, &image));
    assert_int_equal(image.height, 2 + 24 * (64 + 2));
    assert_int_equal(level_at(&image, 10, 10), 1);
    assert_int_equal(level_at(&image, 10, image.height - 10), 60);
    dr_image_free(&image);
    dr_str_free(&name);
    free(path);
    free(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(names_are_read_back),
        cmocka_unit_test(grid),
        cmocka_unit_test(many_rows),
    };
    return DR_TEST_MAIN("sample_files", tests);
}
