#include "dr_test.h"

#include "base/file.h"
#include "image/png_write.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static char *path_in_tmp(const char *name)
{
    return dr_path_join(dr_test_tmpdir(), name);
}

static dr_image ramp(int width, int height, int start)
{
    dr_image img = {0};
    assert_ok(dr_image_alloc(&img, width, height));
    for (int i = 0; i < width * height * 3; i++) {
        img.pixels[i] = (unsigned char)(start + i * 7);
    }
    return img;
}

static bool contains(const char *data, size_t n, const char *text)
{
    size_t len = strlen(text);
    for (size_t i = 0; i + len <= n; i++) {
        if (memcmp(data + i, text, len) == 0) {
            return true;
        }
    }
    return false;
}

static void written_png_reads_back_with_its_texts(void **state)
{
    (void)state;
    char *path = path_in_tmp("a.png");
    dr_image img = ramp(31, 17, 1);
    const dr_png_text texts[] = {{"parameters", "a dog, seed 42"}, {"Title", "Gr\xC3\xBC\xC3\x9F"}};
    assert_ok(dr_png_write(path, &img, texts, 2));
    dr_image back;
    assert_ok(dr_image_load(path, NULL, &back));
    assert_int_equal(back.width, 31);
    assert_int_equal(back.height, 17);
    assert_memory_equal(back.pixels, img.pixels, 31 * 17 * 3);
    char *data = NULL;
    size_t n = 0;
    assert_ok(dr_file_read(path, 1 << 20, &data, &n));
    assert_true(contains(data, n, "tEXtparameters"));
    assert_true(contains(data, n, "a dog, seed 42"));
    assert_true(contains(data, n, "iTXtTitle"));
    assert_true(contains(data, n, "Gr\xC3\xBC\xC3\x9F"));
    free(data);
    dr_image_free(&back);
    dr_image_free(&img);
    free(path);
}

static void unwritable_places_and_texts_are_refused(void **state)
{
    (void)state;
    dr_image img = ramp(3, 2, 0);
    char *path = path_in_tmp("no/such/dir/a.png");
    assert_error(dr_png_write(path, &img, NULL, 0), DR_OUTPUT, "cannot create");
    free(path);
    path = path_in_tmp("b.png");
    char key[81];
    memset(key, 'k', 80);
    key[80] = '\0';
    const char *bad_keys[] = {"", " x", "x ", "a\nb", "\xC3\xBC", key};
    for (size_t i = 0; i < sizeof bad_keys / sizeof bad_keys[0]; i++) {
        const dr_png_text text = {bad_keys[i], "v"};
        assert_error(dr_png_write(path, &img, &text, 1), DR_INVALID, "printable ASCII");
    }
    assert_false(dr_path_exists(path));
    free(path);
    dr_image_free(&img);
}

static void full_disk_leaves_nothing_behind(void **state)
{
    (void)state;
    dr_image img = {0};
    assert_ok(dr_image_alloc(&img, 400, 400));
    uint32_t noise = 1;
    for (int i = 0; i < 400 * 400 * 3; i++) {
        noise = noise * 1664525u + 1013904223u;
        img.pixels[i] = (unsigned char)(noise >> 24);
    }
    char *dir = path_in_tmp("full");
    assert_ok(dr_mkdirs(dir));
    char *path = dr_path_join(dir, "a.png");
    struct rlimit old;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    struct rlimit small = {.rlim_cur = 10000, .rlim_max = old.rlim_max};
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN); /* writes fail with EFBIG instead */
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    dr_status st = dr_png_write(path, &img, NULL, 0);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    (void)signal(SIGXFSZ, handler);
    assert_error(st, DR_IO, "a.png: cannot write");
    dr_strv names = {0};
    assert_ok(dr_list_dir(dir, &names));
    assert_int_equal(names.n, 0);
    dr_strv_free(&names);
    dr_image_free(&img);
    free(path);
    free(dir);
}

static void grid_places_pictures_row_by_row(void **state)
{
    (void)state;
    dr_image images[3] = {ramp(4, 3, 10), ramp(2, 5, 90), ramp(4, 5, 170)};
    dr_image grid = {0};
    assert_ok(dr_image_grid(images, 3, 2, 1, &grid));
    assert_int_equal(grid.width, 1 + 2 * 5);
    assert_int_equal(grid.height, 1 + 2 * 6);
    const int at[3][2] = {{1, 1}, {6, 1}, {1, 7}};
    for (int i = 0; i < 3; i++) {
        size_t row = (size_t)images[i].width * 3;
        for (int y = 0; y < images[i].height; y++) {
            const unsigned char *p =
                grid.pixels + ((ptrdiff_t)(at[i][1] + y) * grid.width + at[i][0]) * 3;
            assert_memory_equal(p, images[i].pixels + (size_t)y * row, row);
        }
        dr_image_free(&images[i]);
    }
    for (int i = 0; i < grid.width * 3; i++) {
        assert_int_equal(grid.pixels[i], 0);
    }
    dr_image_free(&grid);
}

static void grid_with_more_columns_than_pictures_is_one_row(void **state)
{
    (void)state;
    dr_image one = ramp(4, 3, 10);
    dr_image grid = {0};
    assert_ok(dr_image_grid(&one, 1, 8, 0, &grid));
    assert_int_equal(grid.width, 4);
    assert_int_equal(grid.height, 3);
    assert_memory_equal(grid.pixels, one.pixels, 36);
    dr_image_free(&grid);
    assert_error(dr_image_grid(&one, 1, 8, 0x7FFFFFFF, &grid), DR_INVALID, "too large");
    dr_image_free(&one);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(written_png_reads_back_with_its_texts),
        cmocka_unit_test(unwritable_places_and_texts_are_refused),
        cmocka_unit_test(full_disk_leaves_nothing_behind),
        cmocka_unit_test(grid_places_pictures_row_by_row),
        cmocka_unit_test(grid_with_more_columns_than_pictures_is_one_row),
    };
    return DR_TEST_MAIN("png_write", tests);
}
