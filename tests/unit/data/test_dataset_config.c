#include "dr_test.h"

#include "base/file.h"
#include "base/log.h"
#include "data/dataset_config.h"
#include "data/epoch_plan.h"
#include "data_fixture.h"

#include <stdlib.h>
#include <string.h>

typedef struct world {
    char *root;
    dr_arena arena;
    dr_dataset_options o;
    dr_dataset_defaults defaults;
} world;

static void begin(world *w, const char *name)
{
    memset(w, 0, sizeof *w);
    dr_arena_init(&w->arena);
    w->root = fixture_root(name);
    w->o = fixture_options(&w->arena, w->root, false);
    w->o.folders.train_data_dir = NULL;
    w->defaults = (dr_dataset_defaults){.buckets = dr_bucket_options_default(),
                                        .batch_size = 3,
                                        .repeats = 1,
                                        .subset = dr_subset_options_default()};
    w->defaults.subset.caption_extension = ".txt";
    w->defaults.subset.picture = &dr_picture_defaults;
    w->defaults.subset.captions.shuffle = true;
    fixture_text(w->root, "a/1.png", "512 512");
    fixture_text(w->root, "a/1.txt", "one\ntwo");
    fixture_text(w->root, "a/2.png", "512 768");
    fixture_text(w->root, "b/1.png", "256 256");
    fixture_text(w->root, "b/1.cap", "other");
    fixture_text(w->root, "reg/1.png", "512 512");
}

static void end(world *w)
{
    dr_arena_deinit(&w->arena);
    free(w->root);
}

/* Reads text as the file `name`, with ROOT written for the folder of the pictures. */
static dr_status read_as(world *w, const char *name, const char *text)
{
    dr_str s = {0};
    for (const char *at = strstr(text, "ROOT"); at != NULL; at = strstr(text, "ROOT")) {
        dr_str_add_n(&s, text, (size_t)(at - text));
        dr_str_add(&s, w->root);
        text = at + 4;
    }
    dr_str_add(&s, text);
    fixture_text(w->root, name, s.data);
    dr_str_free(&s);
    char *path = dr_path_join(w->root, name);
    dr_status st = dr_dataset_config_read(&w->arena, path, &w->defaults, &w->o);
    free(path);
    return st;
}

static const char two_datasets[] =
    "[general]\nkeep_tokens = 2\nenable_bucket = true\nnum_repeats = 2\n"
    "[[datasets]]\nresolution = 512\nbatch_size = 4\n"
    "[[datasets.subsets]]\nimage_dir = 'ROOT/a'\nenable_wildcard = true\n"
    "[[datasets.subsets]]\nimage_dir = 'ROOT/reg'\nis_reg = true\nclass_tokens = 'dog'\n"
    "num_repeats = 1\n"
    "[[datasets]]\nresolution = [256, 256]\nenable_bucket = false\nkeep_tokens = 1\n"
    "flip_aug = true\n"
    "[[datasets.subsets]]\nimage_dir = 'ROOT/b'\ncaption_extension = 'cap'\nnum_repeats = 5\n"
    "caption_dropout_rate = 1\n";

static void values_come_from_the_nearest_level(void **state)
{
    (void)state;
    world w;
    begin(&w, "levels");
    assert_ok(read_as(&w, "x.toml", two_datasets));
    assert_int_equal(w.o.n_parts, 2);
    assert_int_equal(w.o.parts[0].batch_size, 4);
    assert_int_equal(w.o.parts[1].batch_size, 3); /* of the command line */
    assert_int_equal(w.o.parts[1].buckets.resolution.w, 256);
    assert_true(w.o.parts[0].buckets.enable);
    assert_false(w.o.parts[1].buckets.enable);
    assert_int_equal(w.o.n_specs, 3);
    const dr_subset_spec *s = w.o.specs;
    assert_int_equal(s[0].repeats, 2);
    assert_int_equal(s[1].repeats, 1);
    assert_int_equal(s[2].repeats, 5);
    assert_true(s[1].is_reg);
    assert_string_equal(s[1].class_tokens, "dog");
    assert_null(s[0].class_tokens);
    assert_int_equal(s[0].options->captions.keep_tokens, 2);
    assert_int_equal(s[2].options->captions.keep_tokens, 1);
    assert_true(s[0].options->captions.shuffle);
    assert_true(s[0].options->captions.wildcard);
    assert_false(s[1].options->captions.wildcard);
    assert_true(s[2].options->captions.dropout_rate == 1.0);
    assert_true(s[2].options->flip_aug);
    assert_false(s[0].options->flip_aug);
    end(&w);
}

static void datasets_stand_side_by_side(void **state)
{
    (void)state;
    world w;
    begin(&w, "sides");
    assert_ok(read_as(&w, "x.toml", two_datasets));
    dr_dataset d;
    assert_ok(dr_dataset_open(&w.arena, &w.o, &d));
    assert_int_equal(d.n_images, 4);
    assert_int_equal(d.n_train_samples, 9); /* 2 x 2 + 1 x 5 */
    assert_int_equal(d.n_reg_samples, 4);   /* of the first dataset alone */
    assert_true(d.flips);
    assert_int_equal(d.n_buckets, 3);
    const dr_bucket want[] = {
        {{384, 640}, 1, 2, 0, 4}, {{512, 512}, 2, 6, 0, 4}, {{256, 256}, 1, 5, 1, 3}};
    for (size_t i = 0; i < 3; i++) {
        assert_memory_equal(&d.buckets[i], &want[i], sizeof want[i]);
    }
    assert_string_equal(d.images[0].caption, "one\ntwo");
    assert_string_equal(d.images[2].caption, "dog");
    assert_string_equal(d.images[3].caption, "other");
    assert_int_equal(d.images[3].first_sample, 8);
    dr_epoch_plan plan;
    const dr_epoch_plan_options o = {.seed = 1, .epoch = 1, .batch_size = 1, .n_leaves = 2};
    assert_ok(dr_epoch_plan_build(&plan, &d, &o));
    assert_int_equal(plan.n_leaves, 1 + 2 + 2);
    uint32_t seen[13] = {0};
    for (uint32_t i = 0; i < plan.n_leaves; i++) {
        const dr_leaf *leaf = &plan.leaves[i];
        assert_true(leaf->n <= d.buckets[leaf->bucket].batch_size);
        for (uint32_t k = 0; k < leaf->n; k++) {
            assert_int_equal(d.images[leaf->samples[k].image].bucket, leaf->bucket);
            seen[leaf->samples[k].sample]++;
        }
    }
    for (int i = 0; i < 13; i++) {
        assert_int_equal(seen[i], 1);
    }
    dr_epoch_plan_deinit(&plan);
    dr_str text = {0};
    dr_epoch_arithmetic(&d, 1, 2, 1, &text);
    assert_string_equal(
        text.data, "one epoch: 13 samples (9 training + 4 regularisation) in 3 buckets -> 5 "
                   "batches of up to 3 or 4 -> 3 steps of up to 2 (2 shards x 1 accumulated); 3 "
                   "batches are not full; 1 batch left over shares steps of mixed shapes; one "
                   "step has 1 batch fewer");
    dr_str_free(&text);
    end(&w);
}

static void json_says_the_same(void **state)
{
    (void)state;
    world w;
    begin(&w, "json");
    assert_ok(read_as(&w, "x.json",
                      "{\"general\": {\"num_repeats\": 7, \"class_tokens\": null}, \"datasets\": "
                      "[{\"resolution\": [512, 512], \"subsets\": [{\"image_dir\": \"ROOT/a\", "
                      "\"caption_dropout_rate\": 0.5}]}]}"));
    assert_int_equal(w.o.specs[0].repeats, 7);
    assert_null(w.o.specs[0].class_tokens);
    assert_error(
        read_as(&w, "x.json",
                "{\"datasets\": [{\"subsets\": [{\"image_dir\": \"a\", \"is_reg\": 1}]}]}"),
        DR_INVALID,
        "x.json: datasets[0].subsets[0].is_reg: found a whole number, expected true or false");
    end(&w);
}

#define SUBSET "[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'ROOT/a'\n"

static void mistakes_are_named_with_their_place(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
        dr_status status;
    } rows[] = {
        {"[general]\nnum_repeat = 1",
         "x.toml:2:1: general.num_repeat: unknown key; did you mean num_repeats?", DR_INVALID},
        {"[general]\nprior_loss_weight = 1.0",
         "general.prior_loss_weight: this is an option of the command line (--prior_loss_weight)",
         DR_INVALID},
        {"[general]\nimage_dir = 'x'", "this key stands in [[datasets.subsets]] only", DR_INVALID},
        {"[[datasets]]\ntrain_batch_size = 1",
         "datasets[0].train_batch_size: unknown key; did you mean batch_size?", DR_INVALID},
        {SUBSET "batch_size = 1",
         "x.toml:4:1: datasets[0].subsets[0].batch_size: this key stands in [general] or "
         "[[datasets]] only",
         DR_INVALID},
        {SUBSET "num_repeats = 'x'", "found text, expected a whole number", DR_INVALID},
        {SUBSET "num_repeats = true", "found true or false, expected a whole number", DR_INVALID},
        {SUBSET "shuffle_caption = 1", "found a whole number, expected true or false", DR_INVALID},
        {SUBSET "caption_dropout_rate = 1.5", "caption_dropout_rate: expected 0 to 1", DR_INVALID},
        {SUBSET "caption_separator = ''", "--caption_separator is empty", DR_INVALID},
        {SUBSET "face_crop_aug_range = [1.0]", "expected a list of two numbers", DR_INVALID},
        {SUBSET "resize_interpolation = 'best'", "resize_interpolation 'best'", DR_INVALID},
        {SUBSET "custom_attributes = 1", "expected a table", DR_INVALID},
        {"[[datasets]]\nresolution = [512]\n[[datasets.subsets]]\nimage_dir = 'ROOT/a'",
         "or a list of two", DR_INVALID},
        {"[[datasets]]\nresolution = [512, 0]\n[[datasets.subsets]]\nimage_dir = 'ROOT/a'",
         "expected 1 to 65536", DR_INVALID},
        {"[[datasets]]\nresolution = 500\n[[datasets.subsets]]\nimage_dir = 'ROOT/a'",
         "x.toml:1:3: datasets[0]: ", DR_INVALID},
        {"[[datasets]]\nbatch_size = 0", "batch_size: expected 1 to", DR_INVALID},
        {"[[datasets]]\n[[datasets.subsets]]\nnum_repeats = 1",
         "datasets[0].subsets[0]: image_dir is missing", DR_INVALID},
        {"[[datasets]]\n", "a dataset needs [[datasets.subsets]]", DR_INVALID},
        {"[[datasets]]\nsubsets = []",
         "'subsets' is a list of tables, each written [[datasets.subsets]]", DR_INVALID},
        {"[datasets]\n", "'datasets' is a list of tables, each written [[datasets]]", DR_INVALID},
        {"[general]\n", "no [[datasets]] in this file", DR_INVALID},
        {"[other]\n" SUBSET, "'other' has no place here", DR_INVALID},
        {SUBSET "num_repeats = 0", "no subset with num_repeats of 1 or more", DR_INVALID},
        {SUBSET "metadata_file = 'x.json'\nis_reg = true",
         "is_reg and metadata_file exclude each other", DR_INVALID},
        {SUBSET "face_crop_aug_range = [2.0, 1.0]", "the lesser first", DR_INVALID},
        {SUBSET "conditioning_data_dir = 'x'", "conditioning_data_dir without --masked_loss",
         DR_UNSUPPORTED},
        {"a = [", "x.toml:1:6: ", DR_FORMAT},
    };
    world w;
    begin(&w, "mistakes");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_error(read_as(&w, "x.toml", rows[i].text), rows[i].status, rows[i].message);
    }
    w.defaults.buckets.resolution = (dr_size_px){0, 0};
    assert_error(read_as(&w, "x.toml", SUBSET), DR_INVALID, "datasets[0]: resolution is missing");
    end(&w);
}

static void folders_are_checked(void **state)
{
    (void)state;
    world w;
    begin(&w, "folders");
    dr_dataset d;
    assert_ok(read_as(&w, "x.toml", "[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'ROOT/no'"));
    assert_error(dr_dataset_open(&w.arena, &w.o, &d), DR_INVALID, "/no: no such directory");
    assert_ok(read_as(&w, "x.toml", SUBSET "[[datasets.subsets]]\nimage_dir = 'ROOT/./a'"));
    int before = dr_log_warnings();
    assert_ok(dr_dataset_open(&w.arena, &w.o, &d));
    assert_int_equal(d.n_images, 2);
    assert_true(dr_log_warnings() - before >= 1);
    assert_ok(read_as(&w, "x.toml", SUBSET "is_reg = true"));
    assert_error(dr_dataset_open(&w.arena, &w.o, &d), DR_FORMAT, "no usable picture to train on");
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_come_from_the_nearest_level),
        cmocka_unit_test(datasets_stand_side_by_side),
        cmocka_unit_test(json_says_the_same),
        cmocka_unit_test(mistakes_are_named_with_their_place),
        cmocka_unit_test(folders_are_checked),
    };
    return DR_TEST_MAIN("dataset_config", tests);
}
