#include "dr_test.h"

#include "data_fixture.h"

#include "base/log.h"
#include "data/caption.h"

#include <stdlib.h>
#include <string.h>

typedef struct world { /* one picture with one caption file */
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
    fixture_text(w->root, "train/1_sks dog/a.png", "10 10");
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

static void expect_caption(world *w, const void *data, size_t n, const char *want)
{
    fixture_write(w->root, "train/1_sks dog/a.txt", data, n);
    assert_ok(scan(w));
    assert_true(w->scan.images[0].has_caption_file);
    assert_string_equal(w->scan.images[0].caption, want);
}

static void first_line_is_the_caption(void **state)
{
    (void)state;
    world w;
    begin(&w, "first_line");
    assert_ok(scan(&w));
    assert_string_equal(w.scan.images[0].caption, "sks dog"); /* no file: the class */
    expect_caption(&w, "  a photo \n", 11, "a photo");
    expect_caption(&w,
                   "\xef\xbb\xbf"
                   "a photo\r\nmore",
                   16, "a photo");
    expect_caption(&w, "one\rtwo", 7, "one");
    expect_caption(&w,
                   "\xe3\x80\x80"
                   "photo",
                   8, "photo");
    int before = dr_log_warnings();
    expect_caption(&w, "\ntext below", 11, "");
    assert_int_equal(dr_log_warnings() - before, 1);
    w.o.folders.caption_extension = ".caption"; /* and the .txt file is mentioned */
    before = dr_log_warnings();
    assert_ok(scan(&w));
    assert_int_equal(dr_log_warnings() - before, 1);
    assert_string_equal(w.scan.images[0].caption, "sks dog");
    end(&w);
}

static void face_detection_names_share_a_caption(void **state)
{
    (void)state;
    world w;
    begin(&w, "faces");
    fixture_text(w.root, "train/1_sks dog/b_10_20_30_40.png", "10 10");
    fixture_text(w.root, "train/1_sks dog/b.txt", "shared");
    assert_ok(scan(&w));
    assert_string_equal(w.scan.images[1].caption, "shared");
    fixture_text(w.root, "train/1_sks dog/b_10_20_30_40.txt", "own");
    assert_ok(scan(&w));
    assert_string_equal(w.scan.images[1].caption, "own");
    end(&w);
}

static void expect_bad_caption(world *w, const void *data, size_t n, const char *message)
{
    fixture_write(w->root, "train/1_sks dog/a.txt", data, n);
    assert_error(scan(w), DR_FORMAT, message);
    assert_error(scan(w), DR_FORMAT, "train/1_sks dog/a.txt: the caption");
}

static void bad_caption_files_are_errors(void **state)
{
    (void)state;
    world w;
    begin(&w, "bad_captions");
    expect_bad_caption(&w, "", 0, "the caption file is empty");
    expect_bad_caption(&w, "\xef\xbb\xbf", 3, "the caption file is empty");
    expect_bad_caption(&w, "un caf\xe9 noir", 12,
                       "byte 0xe9 at offset 6); it looks like WINDOWS-1252");
    expect_bad_caption(&w,
                       "\xff\xfe"
                       "a\0b\0",
                       6, "it looks like UTF-16LE");
    expect_bad_caption(&w, "\0a\0b", 4, "it looks like UTF-16BE");
    expect_bad_caption(&w, "\x8c\xa2\x82\xcc\x8e\xca\x90^", 8,
                       "it looks like SHIFT_JIS: iconv -f SHIFT_JIS -t UTF-8");
    expect_bad_caption(&w, "\xd2\xbb\xd6\xbb\xb9\xb7\xb5\xc4\xd5\xd5\xc6\xac", 12,
                       "it looks like GBK");
    expect_bad_caption(&w, "\x83\x74\x83\x48\x83\x67, dog", 11, "it looks like SHIFT_JIS");
    w.o.folders.skip_bad_images = true; /* is about pictures */
    assert_error(scan(&w), DR_FORMAT, "not UTF-8");
    end(&w);
}

static void expect_processed(const dr_caption_options *o, const char *caption, const char *want)
{
    dr_str out = {0};
    dr_caption_process(o, caption, &(dr_caption_use){.seed = 7, .epoch = 1, .sample = 3}, &out);
    assert_string_equal(dr_str_get(&out), want);
    dr_str_free(&out);
}

static void without_options_the_caption_stays(void **state)
{
    (void)state;
    dr_caption_options o = dr_caption_options_default();
    expect_processed(&o, "a,b , c", "a,b , c");
    o.dropout_every_n_epochs = 1;
    expect_processed(&o, "a,b , c", "");
    o = dr_caption_options_default();
    o.dropout_rate = 1.0;
    expect_processed(&o, "a,b , c", "");
}

static void tags_are_stripped_and_joined(void **state)
{
    (void)state;
    dr_caption_options o = dr_caption_options_default();
    o.shuffle = true;
    o.keep_tokens = 100; /* all stay: only the normalisation shows */
    expect_processed(&o, "a, b,,c, d ", "a, b, , c, d");
    expect_processed(&o, "", "");
    o.separator = ";";
    expect_processed(&o, " a;b ;c", "a, b, c");
    o.separator = "; ";
    expect_processed(&o, "a; b; ", "a, b;"); /* stripped before it is split, as in Python */
    o = dr_caption_options_default();
    o.keep_tokens = 1;
    o.tag_dropout_rate = 1.0;
    expect_processed(&o, "a, b, c", "a");
}

static void shuffling_permutes_what_is_not_kept(void **state)
{
    (void)state;
    dr_caption_options o = dr_caption_options_default();
    o.shuffle = true;
    o.keep_tokens = 1;
    unsigned seen = 0; /* the six orders of b c d */
    dr_str out = {0};
    dr_str again = {0};
    for (uint64_t sample = 0; sample < 200; sample++) {
        const dr_caption_use use = {.seed = 42, .epoch = 2, .sample = sample};
        dr_caption_process(&o, "a,b,c,d", &use, &out);
        dr_caption_process(&o, "a,b,c,d", &use, &again);
        assert_string_equal(out.data, again.data);
        static const char *const orders[] = {"a, b, c, d", "a, b, d, c", "a, c, b, d",
                                             "a, c, d, b", "a, d, b, c", "a, d, c, b"};
        bool found = false;
        for (unsigned k = 0; k < 6; k++) {
            if (strcmp(out.data, orders[k]) == 0) {
                seen |= 1u << k;
                found = true;
            }
        }
        assert_true(found);
    }
    assert_int_equal(seen, 63);
    dr_str_free(&out);
    dr_str_free(&again);
}

static void dropout_rates_are_met(void **state)
{
    (void)state;
    enum { N = 20000 };
    dr_caption_options o = dr_caption_options_default();
    o.dropout_rate = 0.25;
    o.tag_dropout_rate = 0.5;
    size_t empty = 0;
    size_t tags = 0;
    dr_str out = {0};
    for (uint64_t sample = 0; sample < N; sample++) {
        const dr_caption_use use = {.seed = 42, .epoch = 1, .sample = sample};
        dr_caption_process(&o, "x,x,x,x,x,x,x,x,x,x", &use, &out);
        empty += out.len == 0;
        for (size_t i = 0; i < out.len; i++) {
            tags += out.data[i] == 'x';
        }
    }
    dr_str_free(&out);
    /* 5 standard deviations: sqrt(N p q) = 61; tags: sqrt(N (25 * 0.75 * 0.25 + 2.5 * 0.75)) */
    assert_true(empty > 5000 - 310 && empty < 5000 + 350); /* + all ten tags dropped */
    assert_true(tags > 75000 - 1850 && tags < 75000 + 1850);
}

static void options_are_checked(void **state)
{
    (void)state;
    dr_caption_options o = dr_caption_options_default();
    assert_ok(dr_caption_options_validate(&o));
    o.dropout_rate = 1.5;
    assert_error(dr_caption_options_validate(&o), DR_INVALID, "--caption_dropout_rate 1.5");
    o = dr_caption_options_default();
    o.keep_tokens = -1;
    assert_error(dr_caption_options_validate(&o), DR_INVALID, "--keep_tokens -1 is negative");
    o = dr_caption_options_default();
    o.separator = "";
    assert_error(dr_caption_options_validate(&o), DR_INVALID, "--caption_separator is empty");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(first_line_is_the_caption),
        cmocka_unit_test(face_detection_names_share_a_caption),
        cmocka_unit_test(bad_caption_files_are_errors),
        cmocka_unit_test(without_options_the_caption_stays),
        cmocka_unit_test(tags_are_stripped_and_joined),
        cmocka_unit_test(shuffling_permutes_what_is_not_kept),
        cmocka_unit_test(dropout_rates_are_met),
        cmocka_unit_test(options_are_checked),
    };
    return DR_TEST_MAIN("captions", tests);
}
