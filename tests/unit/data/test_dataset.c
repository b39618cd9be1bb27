#include "dr_test.h"

#include "data_fixture.h"

#include <stdlib.h>
#include <string.h>

/* The table of sd-scripts' runs (spec 2.5). */
static void regularisation_repeats_match(void **state)
{
    (void)state;
    static const struct {
        uint64_t n_train;
        int64_t repeats;
        size_t n;
        uint64_t want[20];
        uint64_t total;
    } cases[] = {
        {12, 1, 5, {3, 3, 2, 2, 2}, 12},
        {12, 2, 20, {2, 2, 2, 2, 2, 2}, 12},
        {12, 5, 2, {6, 6}, 12},
        {3, 4, 1, {4}, 4},
        {10, 3, 2, {5, 5}, 10},
        {7, 2, 20, {2, 2, 2, 2}, 8}, /* the last folder repeat overshoots */
        {0, 2, 2, {0, 0}, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t folder[20];
        uint64_t got[20] = {0};
        for (size_t k = 0; k < 20; k++) {
            folder[k] = cases[i].repeats;
        }
        assert_int_equal(dr_reg_repeats(cases[i].n_train, folder, cases[i].n, got), cases[i].total);
        assert_memory_equal(got, cases[i].want, cases[i].n * sizeof got[0]);
    }
}

/* The loop of sd-scripts, word by word, against the closed form. */
static void regularisation_repeats_equal_the_loop(void **state)
{
    (void)state;
    for (uint64_t n_train = 0; n_train < 60; n_train++) {
        for (size_t n_reg = 1; n_reg < 9; n_reg++) {
            int64_t folder[9];
            uint64_t want[9] = {0};
            uint64_t got[9] = {0};
            for (size_t k = 0; k < n_reg; k++) {
                folder[k] = 1 + (int64_t)((k * 7 + n_train) % 5);
            }
            uint64_t n = 0;
            bool first = true;
            while (n < n_train) {
                for (size_t k = 0; k < n_reg && n < n_train; k++) {
                    uint64_t more = first ? (uint64_t)folder[k] : 1;
                    want[k] += more;
                    n += more;
                }
                first = false;
            }
            assert_int_equal(dr_reg_repeats(n_train, folder, n_reg, got), n);
            assert_memory_equal(got, want, n_reg * sizeof got[0]);
        }
    }
}

static void make_world(const char *root)
{
    fixture_text(root, "train/3_sks dog/a.png", "512 512");
    fixture_text(root, "train/3_sks dog/b.png", "1920 1080");
    fixture_text(root, "train/2_sks cat/c.png", "1080 1920");
    fixture_text(root, "reg/1_dog/r0.png", "512 512");
    fixture_text(root, "reg/1_dog/r1.png", "640 480");
    fixture_text(root, "reg/1_dog/r2.png", "512 512");
}

static void dataset_counts_and_buckets(void **state)
{
    (void)state;
    dr_arena arena;
    dr_arena_init(&arena);
    char *root = fixture_root("dataset");
    make_world(root);
    dr_dataset_options o = fixture_options(&arena, root, true);
    dr_dataset d;
    assert_ok(dr_dataset_open(&arena, &o, &d));
    assert_int_equal(d.n_images, 6);
    assert_int_equal(d.n_train_samples, 8);
    assert_int_equal(d.n_reg_samples, 8);
    assert_int_equal(d.n_reg_reported, 3);
    assert_int_equal(d.n_buckets, 4);
    static const dr_bucket want[] = {{{384, 640}, 1, 2, 0, 0},
                                     {{512, 512}, 3, 8, 0, 0},
                                     {{576, 448}, 1, 3, 0, 0},
                                     {{640, 384}, 1, 3, 0, 0}};
    uint32_t sample = 0;
    for (size_t i = 0; i < d.n_buckets; i++) {
        assert_memory_equal(&d.buckets[i], &want[i], sizeof want[i]);
    }
    for (size_t i = 0; i < d.n_images; i++) { /* train first; samples are numbered in order */
        assert_int_equal(d.images[i].is_reg, i >= 3);
        assert_true(d.images[i].loss_weight == (i >= 3 ? 0.5f : 1.0f));
        assert_int_equal(d.images[i].first_sample, sample);
        sample += d.images[i].repeats;
    }
    assert_int_equal(sample, d.n_samples);
    assert_string_equal(d.images[0].caption, "sks cat"); /* "2_" sorts before "3_" */
    dr_str info = {0};
    dr_dataset_bucket_info(&d, &info);
    /* error: |384/640 - 9/16| + |640/384 - 16/9| + |576/448 - 4/3|, over 6 pictures */
    assert_non_null(strstr(info.data, "{\"buckets\": {\"0\": {\"resolution\": [384, 640], "
                                      "\"count\": 2}, \"1\": {"));
    assert_non_null(strstr(info.data, "\"mean_img_ar_error\": 0.0327050264550264"));
    dr_str text = {0};
    dr_dataset_summary(&d, &text);
    assert_non_null(strstr(text.data, "8 training + 8 regularisation (3 pictures)"));
    assert_non_null(strstr(text.data, "384 x 640"));
    dr_str_free(&info);
    dr_str_free(&text);
    free(root);
    dr_arena_deinit(&arena);
}

static void unused_regularisation_pictures_are_cut_off(void **state)
{
    (void)state;
    dr_arena arena;
    dr_arena_init(&arena);
    char *root = fixture_root("unused");
    fixture_text(root, "train/1_dog/a.png", "512 512");
    fixture_text(root, "reg/4_dog/r0.png", "512 512");
    fixture_text(root, "reg/4_dog/r1.png", "1920 1080");
    dr_dataset_options o = fixture_options(&arena, root, true);
    dr_dataset d;
    assert_ok(dr_dataset_open(&arena, &o, &d));
    assert_int_equal(d.n_images, 2);
    assert_int_equal(d.n_reg_unused, 1);
    assert_int_equal(d.n_reg_samples, 4); /* overshoot kept */
    assert_int_equal(d.n_reg_reported, 8);
    assert_int_equal(d.n_buckets, 1);
    free(root);
    dr_arena_deinit(&arena);
}

static void pictures_that_fit_no_bucket(void **state)
{
    (void)state;
    dr_arena arena;
    dr_arena_init(&arena);
    char *root = fixture_root("unfit");
    fixture_text(root, "train/1_dog/a.png", "512 512");
    fixture_text(root, "train/1_dog/b.png", "30 512");
    dr_dataset_options o = fixture_options(&arena, root, false);
    o.buckets.no_upscale = true;
    dr_dataset d;
    assert_error(dr_dataset_open(&arena, &o, &d), DR_FORMAT, "1_dog/b.png: 30x512 pixels");
    o.folders.skip_bad_images = true;
    assert_ok(dr_dataset_open(&arena, &o, &d));
    assert_int_equal(d.n_images, 1);
    assert_int_equal(d.n_skipped, 1);
    fixture_text(root, "train/2147483647_x/a.png", "512 512");
    fixture_text(root, "train/2147483647_y/a.png", "512 512");
    fixture_text(root, "train/2147483647_z/a.png", "512 512");
    assert_error(dr_dataset_open(&arena, &o, &d), DR_INVALID, "at most 4294967295 are possible");
    free(root);
    dr_arena_deinit(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(regularisation_repeats_match),
        cmocka_unit_test(regularisation_repeats_equal_the_loop),
        cmocka_unit_test(dataset_counts_and_buckets),
        cmocka_unit_test(unused_regularisation_pictures_are_cut_off),
        cmocka_unit_test(pictures_that_fit_no_bucket),
    };
    return DR_TEST_MAIN("dataset", tests);
}
