/* One view over any file of weights: safetensors, and sets of shards with their index. */
#include "dr_test.h"

#include "base/file.h"
#include "io/tensor_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *in_tmp(const char *name)
{
    return dr_path_join(dr_test_tmpdir(), name);
}

/* A file of one F32 tensor of two elements: value and value + 1. */
static char *write_one(const char *file, const char *tensor, float value)
{
    char *path = in_tmp(file);
    const int64_t shape[] = {2};
    const float data[] = {value, value + 1};
    const dr_safetensors_entry e = {tensor, DR_F32, 1, shape};
    const dr_safetensors_meta meta = {"format", "pt"};
    const void *const all[] = {data};
    assert_ok(dr_safetensors_save(
        path, &(dr_safetensors_content){.entries = &e, .n_entries = 1, .meta = &meta, .n_meta = 1},
        all));
    return path;
}

static char *write_text(const char *file, const char *text)
{
    char *path = in_tmp(file);
    assert_ok(dr_file_write(path, text, strlen(text)));
    return path;
}

static float first_of(const dr_tensor_file *f, const char *name)
{
    const dr_file_tensor *t = dr_tensor_file_find(f, name);
    const void *data = NULL;
    float v = 0;
    assert_non_null(t);
    assert_ok(dr_tensor_file_data(f, t, &data));
    memcpy(&v, data, sizeof v);
    return v;
}

static void a_safetensors_file(void **state)
{
    (void)state;
    char *path = write_one("model.ckpt", "a", 3); /* the name's ending does not matter */
    dr_tensor_file *f = NULL;
    assert_int_equal(dr_tensor_file_sniff(path), DR_CONTAINER_SAFETENSORS);
    assert_ok(dr_tensor_file_open(&f, path));
    assert_string_equal(dr_tensor_file_kind(f), "safetensors");
    assert_string_equal(dr_tensor_file_path(f), path);
    assert_int_equal(dr_tensor_file_count(f), 1);
    const dr_file_tensor *t = dr_tensor_file_at(f, 0);
    assert_string_equal(t->name, "a");
    assert_string_equal(t->dtype_name, "F32");
    assert_int_equal(t->rank, 1);
    assert_int_equal(t->shape[0], 2);
    assert_int_equal(t->bytes, 8);
    assert_true(first_of(f, "a") == 3);
    dr_tensor_file_release(f, t);
    assert_true(first_of(f, "a") == 3);
    assert_null(dr_tensor_file_find(f, "b"));
    assert_string_equal(dr_tensor_file_meta_get(f, "format"), "pt");
    assert_int_equal(dr_tensor_file_meta_count(f), 1);
    dr_tensor_file_close(f);
    free(path);
}

/* Three tensors, one of them longer than a piece, all but the first at odd bytes. */
static void tensors_are_converted_by_threads(void **state)
{
    (void)state;
    enum { N = 3000001 };
    char *path = in_tmp("many.safetensors");
    const uint8_t byte = 7;
    uint16_t *half = calloc(N, sizeof *half);
    double *wide = calloc(N, sizeof *wide);
    for (int i = 0; i < N; i++) {
        half[i] = dr_f32_to_f16((float)(i % 1000) / 8);
    }
    char header[200];
    const int n_header =
        snprintf(header, sizeof header,
                 "{\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                 "\"h\":{\"dtype\":\"F16\",\"shape\":[%d],\"data_offsets\":[1,%d]}}",
                 N, 1 + 2 * N);
    FILE *file = fopen(path, "wbe");
    const uint64_t length = (uint64_t)n_header;
    assert_int_equal(fwrite(&length, 8, 1, file), 1);
    assert_int_equal(fwrite(header, length, 1, file), 1);
    assert_int_equal(fwrite(&byte, 1, 1, file), 1);
    assert_int_equal(fwrite(half, 2, N, file), N);
    assert_int_equal(fclose(file), 0);
    for (int n_threads = 0; n_threads < 4; n_threads += 3) {
        dr_tensor_file *f = NULL;
        dr_thread_pool *pool = NULL;
        uint8_t got = 0;
        assert_ok(dr_tensor_file_open(&f, path));
        assert_ok(dr_thread_pool_create(n_threads, &pool));
        dr_tensor_read items[] = {{dr_tensor_file_find(f, "b"), &got, DR_U8},
                                  {dr_tensor_file_find(f, "h"), wide, DR_F64}};
        assert_ok(dr_tensor_file_read(f, pool, items, 2));
        assert_int_equal(got, 7);
        for (int i = 0; i < N; i++) {
            assert_true(wide[i] == (i % 1000) / 8.0);
        }
        items[0].dtype = DR_F32;
        assert_error(dr_tensor_file_read(f, pool, items, 2), DR_FORMAT,
                     "tensor 'b' has dtype U8, expected F32");
        dr_thread_pool_destroy(pool);
        dr_tensor_file_close(f);
    }
    free(half);
    free(wide);
    free(path);
}

static void shards_look_like_one_file(void **state)
{
    (void)state;
    char *one = write_one("m-00001-of-00002.safetensors", "a", 1);
    char *two = write_one("m-00002-of-00002.safetensors", "b", 5);
    char *index =
        write_text("m.safetensors.index.json", "{\"metadata\":{\"total_size\":16},\"weight_map\":{"
                                               "\"b\":\"m-00002-of-00002.safetensors\","
                                               "\"a\":\"m-00001-of-00002.safetensors\"}}");
    dr_tensor_file *f = NULL;
    assert_int_equal(dr_tensor_file_sniff(index), DR_CONTAINER_SHARDS);
    assert_ok(dr_tensor_file_open(&f, index));
    assert_string_equal(dr_tensor_file_kind(f), "2 shards of safetensors");
    assert_int_equal(dr_tensor_file_count(f), 2);
    assert_true(first_of(f, "a") == 1 && first_of(f, "b") == 5);
    assert_string_equal(dr_tensor_file_path_of(f, dr_tensor_file_find(f, "b")), two);
    dr_tensor_file_close(f);
    free(one);
    free(two);
    free(index);
}

static void expect_bad_index(const char *text, const char *message)
{
    char *index = write_text("bad.index.json", text);
    dr_tensor_file *f = NULL;
    assert_error(dr_tensor_file_open(&f, index), DR_FORMAT, message);
    assert_null(f);
    free(index);
}

static void bad_indexes_are_refused(void **state)
{
    (void)state;
    char *one = write_one("one.safetensors", "a", 1);
    char *two = write_one("two.safetensors", "a", 5);
    char *three = write_one("three.safetensors", "c", 5);
    expect_bad_index("{\"a\":1}", "no object weight_map");
    expect_bad_index("{\"weight_map\":{}}", "no object weight_map");
    expect_bad_index("{\"weight_map\":{\"a\":", "bad.index.json");
    expect_bad_index("{\"weight_map\":{\"a\":1}}", "gives tensor 'a' no name of a file");
    expect_bad_index("{\"weight_map\":{\"a\":\"../one.safetensors\"}}", "no name of a file beside");
    expect_bad_index("{\"weight_map\":{\"a\":\"..\"}}", "no name of a file beside");
    expect_bad_index("{\"weight_map\":{\"a\":\"gone.safetensors\"}}", "this shard is missing");
    expect_bad_index("{\"weight_map\":{\"b\":\"one.safetensors\"}}",
                     "tensor 'b' should be in one.safetensors but is not there");
    expect_bad_index("{\"weight_map\":{\"c\":\"three.safetensors\",\"a\":\"bad.index.json\"}}",
                     "bad.index.json");
    /* the index decides which copy counts */
    char *index = write_text("copies.json", "{\"weight_map\":{\"c\":\"three.safetensors\","
                                            "\"a\":\"two.safetensors\"}}");
    dr_tensor_file *f = NULL;
    assert_ok(dr_tensor_file_open(&f, index));
    assert_true(first_of(f, "a") == 5);
    dr_tensor_file_close(f);
    free(one);
    free(two);
    free(three);
    free(index);
}

static void other_files_are_named(void **state)
{
    (void)state;
    char *page = write_text("page.safetensors", "<!DOCTYPE html><html>not found</html>");
    char *short_file = write_text("short", "abc");
    dr_tensor_file *f = NULL;
    assert_int_equal(dr_tensor_file_sniff(page), DR_CONTAINER_NONE);
    assert_error(dr_tensor_file_open(&f, page), DR_FORMAT, "this is a web page");
    assert_error(dr_tensor_file_open(&f, short_file), DR_FORMAT, "truncated");
    assert_int_equal(dr_tensor_file_sniff(dr_test_tmpdir()), DR_CONTAINER_NONE);
    assert_error(dr_tensor_file_open(&f, dr_test_tmpdir()), DR_FORMAT, "");
    free(page);
    free(short_file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_safetensors_file),
        cmocka_unit_test(tensors_are_converted_by_threads),
        cmocka_unit_test(shards_look_like_one_file),
        cmocka_unit_test(bad_indexes_are_refused),
        cmocka_unit_test(other_files_are_named),
    };
    return DR_TEST_MAIN("tensor_file", tests);
}
