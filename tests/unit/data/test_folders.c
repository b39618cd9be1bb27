#include "dr_test.h"

#include "data_fixture.h"

#include "base/file.h"
#include "base/log.h"

#include <stdlib.h>
#include <string.h>

typedef struct world { /* one test's folder and scan */
    dr_arena arena;
    char *root;
    dr_dataset_options o;
    dr_folder_scan scan;
} world;

static void begin(world *w, const char *name)
{
    memset(w, 0, sizeof *w);
    dr_arena_init(&w->arena);
    w->root = fixture_root(name);
    w->o = fixture_options(&w->arena, w->root, false);
}

static void end(world *w)
{
    dr_arena_deinit(&w->arena);
    free(w->root);
}

static dr_status scan(world *w)
{
    return dr_folders_scan(&w->arena, &w->o.folders, &w->scan);
}

static void names_follow_python(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        bool valid;
        int64_t repeats;
        const char *tokens;
    } cases[] = {
        {"20_sls frog", true, 20, "sls frog"},
        {"10", true, 10, ""},
        {"5_", true, 5, ""},
        {"1_000_x", true, 1, "000_x"},
        {"+5_x", true, 5, "x"},
        {" 3_a", true, 3, "a"},
        {"\xd9\xa3_y", true, 3, "y"},
        {"abc_x", false, 0, ""},
        {"_x", false, 0, ""},
        {"0_x", true, 0, "x"},
        {"-1_x", true, -1, "x"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t repeats = 0;
        const char *tokens = "";
        assert_int_equal(dr_folder_name_parse(cases[i].name, &repeats, &tokens), cases[i].valid);
        if (cases[i].valid) {
            assert_int_equal(repeats, cases[i].repeats);
            assert_string_equal(tokens, cases[i].tokens);
        }
    }
}

static void pictures_are_found_in_bytewise_order(void **state)
{
    (void)state;
    world w;
    begin(&w, "order");
    fixture_text(w.root, "train/20_sks dog/b.png", "640 480");
    fixture_text(w.root, "train/20_sks dog/a.JPG", "512 512");
    fixture_text(w.root, "train/20_sks dog/c.jpeg", "10 10");
    fixture_text(w.root, "train/20_sks dog/.hidden.png", "x");
    fixture_text(w.root, "train/20_sks dog/d.Webp", "33 44");
    fixture_text(w.root, "train/20_sks dog/e.Avif", "x");
    fixture_text(w.root, "train/20_sks dog/notes.md", "x");
    fixture_text(w.root, "train/20_sks dog/deep.png/inside.png", "10 10");
    fixture_text(w.root, "train/10_cat/z.png", "100 200");
    fixture_text(w.root, "train/0_none/z.png", "100 200");
    fixture_text(w.root, "train/readme.txt", "x");
    int before = dr_log_warnings();
    assert_ok(scan(&w));
    assert_int_equal(dr_log_warnings() - before, 2); /* 0_none, e.Avif */
    assert_int_equal(w.scan.n_subsets, 2);
    assert_string_equal(w.scan.subsets[0].class_tokens, "cat");
    assert_int_equal(w.scan.subsets[0].repeats, 10);
    assert_int_equal(w.scan.subsets[1].n_images, 4);
    assert_int_equal(w.scan.n_images, 5);
    static const char *const names[] = {"z.png", "a.JPG", "b.png", "c.jpeg", "d.Webp"};
    for (size_t i = 0; i < 5; i++) {
        assert_string_equal(dr_path_base(w.scan.images[i].path), names[i]);
    }
    assert_int_equal(w.scan.images[2].size.w, 640);
    assert_string_equal(w.scan.images[2].caption, "sks dog");
    end(&w);
}

static void missing_directory_is_an_error(void **state)
{
    (void)state;
    world w;
    begin(&w, "missing");
    assert_error(scan(&w), DR_INVALID, "no such directory");
    fixture_text(w.root, "train", "x");
    assert_error(scan(&w), DR_INVALID, "not a directory");
    end(&w);
}

static void wrong_level_says_what_to_do(void **state)
{
    (void)state;
    world w;
    begin(&w, "level");
    fixture_text(w.root, "train/a.png", "10 10");
    assert_error(scan(&w), DR_INVALID, "/level/train/10_train' (10 repeats, class 'train')");
    end(&w);

    begin(&w, "level2");
    fixture_text(w.root, "data/20_sks dog/a.png", "10 10");
    w.o.folders.train_data_dir = dr_arena_printf(&w.arena, "%s/data/20_sks dog/", w.root);
    assert_error(scan(&w), DR_INVALID, "/level2/data'");
    w.o.folders.train_data_dir = w.root;
    assert_error(scan(&w), DR_INVALID, "one level too high");
    assert_error(scan(&w), DR_INVALID, "give --train_data_dir=");
    end(&w);

    begin(&w, "level3");
    fixture_text(w.root, "train/dog/a.png", "10 10");
    assert_error(scan(&w), DR_INVALID, "level3/train/10_dog'");
    end(&w);

    begin(&w, "level4");
    fixture_text(w.root, "train/0_dog/a.png", "10 10");
    assert_error(scan(&w), DR_INVALID, "fewer than 1 repeats");
    end(&w);
}

static void no_pictures_is_an_error(void **state)
{
    (void)state;
    world w;
    begin(&w, "none");
    fixture_text(w.root, "train/notes.txt", "x");
    assert_error(scan(&w), DR_INVALID, "holds no pictures");
    fixture_text(w.root, "train/10_dog/a.txt", "x");
    assert_error(scan(&w), DR_FORMAT, "no usable picture");
    end(&w);

    begin(&w, "none_reg");
    fixture_text(w.root, "train/10_dog/a.png", "10 10");
    w.o = fixture_options(&w.arena, w.root, true);
    assert_error(scan(&w), DR_INVALID, "--reg_data_dir: ");
    fixture_text(w.root, "reg/1_dog/a.txt", "x");
    assert_error(scan(&w), DR_FORMAT, "--reg_data_dir: ");
    w.o.folders.reg_data_dir = w.o.folders.train_data_dir;
    assert_error(scan(&w), DR_INVALID, "same directory");
    end(&w);
}

static void bad_pictures_are_counted_and_named(void **state)
{
    (void)state;
    world w;
    begin(&w, "bad");
    fixture_text(w.root, "train/10_dog/a.png", "10 10");
    for (int i = 0; i < 7; i++) {
        char name[64];
        (void)snprintf(name, sizeof name, "train/10_dog/bad%d.jpg", i);
        fixture_text(w.root, name, "garbage");
    }
    assert_error(scan(&w), DR_FORMAT, "cannot use 7 pictures;");
    assert_error(scan(&w), DR_FORMAT, "bad4.jpg: not a picture");
    assert_error(scan(&w), DR_FORMAT, "and 2 more");
    w.o.folders.skip_bad_images = true;
    assert_ok(scan(&w));
    assert_int_equal(w.scan.n_skipped, 7);
    assert_int_equal(w.scan.n_images, 1);
    end(&w);

    begin(&w, "all_bad");
    fixture_text(w.root, "train/10_dog/bad.jpg", "garbage");
    w.o.folders.skip_bad_images = true;
    assert_error(scan(&w), DR_FORMAT, "no usable picture");
    end(&w);
}

static void huge_repeats_and_bad_names_are_errors(void **state)
{
    (void)state;
    world w;
    begin(&w, "huge");
    fixture_text(w.root, "train/99999999999999999999_dog/a.png", "10 10");
    assert_error(scan(&w), DR_INVALID, "repeats; at most 2147483647");
    end(&w);
    begin(&w, "latin1");
    fixture_text(w.root, "train/10_caf\xe9/a.png", "10 10");
    assert_error(scan(&w), DR_FORMAT, "name is not UTF-8");
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_follow_python),
        cmocka_unit_test(pictures_are_found_in_bytewise_order),
        cmocka_unit_test(missing_directory_is_an_error),
        cmocka_unit_test(wrong_level_says_what_to_do),
        cmocka_unit_test(no_pictures_is_an_error),
        cmocka_unit_test(bad_pictures_are_counted_and_named),
        cmocka_unit_test(huge_repeats_and_bad_names_are_errors),
    };
    return DR_TEST_MAIN("folders", tests);
}
