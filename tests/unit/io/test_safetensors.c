#include "dr_test.h"

#include "base/clock.h"
#include "base/file.h"
#include "io/digest.h"
#include "io/safetensors.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *path_in_tmp(const char *name)
{
    return dr_path_join(dr_test_tmpdir(), name);
}

static void assert_no_leftovers(void)
{
    dr_strv names = {0};
    assert_ok(dr_list_dir(dr_test_tmpdir(), &names));
    for (size_t i = 0; i < names.n; i++) {
        assert_null(strstr(names.at[i], ".tmp."));
    }
    dr_strv_free(&names);
}

static void tensors_read_back(void **state)
{
    (void)state;
    static const int64_t matrix[] = {2, 3};
    static const int64_t none[] = {4, 0, 2};
    static const int64_t three[] = {3};
    const dr_safetensors_entry entries[] = {
        {.name = "u8", .dtype = DR_U8, .rank = 1, .shape = three},
        {.name = "b.weight", .dtype = DR_F32, .rank = 2, .shape = matrix},
        {.name = "scalar", .dtype = DR_I64},
        {.name = "a.weight", .dtype = DR_F32, .rank = 3, .shape = none},
        {.name = "h", .dtype = DR_BF16, .rank = 1, .shape = three},
    };
    static const dr_safetensors_meta meta[] = {{"format", "pt"}, {"quote", "\"\n\xc3\xa9"}};
    static const float b[] = {1, 2, 3, 4, 5, 6};
    static const int64_t scalar = -5;
    static const uint16_t h[] = {0x3f80, 0x4000, 0x4040};
    const void *const data[] = {"xyz", b, &scalar, NULL, h};
    const dr_safetensors_content content = {
        .entries = entries, .n_entries = 5, .meta = meta, .n_meta = 2};
    char *path = path_in_tmp("a.safetensors");
    assert_ok(dr_safetensors_save(path, &content, data));
    assert_true(dr_safetensors_sniff(path));
    dr_safetensors *s = NULL;
    assert_ok(dr_safetensors_open(&s, path));
    assert_int_equal(dr_safetensors_count(s), 5);
    static const char *const order[] = {"scalar", "a.weight", "b.weight", "h", "u8"};
    for (size_t i = 0; i < 5; i++) {
        const dr_safetensors_tensor *t = dr_safetensors_at(s, i);
        assert_string_equal(t->name, order[i]);
        assert_ptr_equal(dr_safetensors_find(s, order[i]), t);
    }
    const dr_safetensors_tensor *t = dr_safetensors_find(s, "b.weight");
    const void *got = NULL;
    assert_ok(dr_safetensors_data(s, t, &got));
    assert_int_equal(t->bytes, sizeof b);
    assert_memory_equal(got, b, sizeof b);
    assert_int_equal(t->rank, 2);
    assert_int_equal(t->shape[1], 3);
    t = dr_safetensors_find(s, "scalar");
    assert_int_equal(t->rank, 0);
    assert_int_equal(t->n_elems, 1);
    assert_ok(dr_safetensors_data(s, t, &got));
    assert_memory_equal(got, &scalar, 8);
    assert_int_equal(dr_safetensors_find(s, "a.weight")->bytes, 0);
    assert_null(dr_safetensors_find(s, "c.weight"));
    assert_int_equal(dr_safetensors_meta_count(s), 2);
    assert_string_equal(dr_safetensors_meta_at(s, 0).key, "format");
    assert_string_equal(dr_safetensors_meta_get(s, "quote"), "\"\n\xc3\xa9");
    assert_null(dr_safetensors_meta_get(s, "absent"));
    assert_string_equal(dr_safetensors_path(s), path);
    dr_safetensors_close(s);
    free(path);
}

static void file_without_tensors_is_fine(void **state)
{
    (void)state;
    static const dr_safetensors_meta meta[] = {{"format", "pt"}};
    char *path = path_in_tmp("empty.safetensors");
    for (size_t n_meta = 0; n_meta < 2; n_meta++) {
        const dr_safetensors_content content = {.meta = meta, .n_meta = n_meta};
        assert_ok(dr_safetensors_save(path, &content, NULL));
        dr_safetensors *s = NULL;
        assert_ok(dr_safetensors_open(&s, path));
        assert_int_equal(dr_safetensors_count(s), 0);
        assert_int_equal(dr_safetensors_meta_count(s), n_meta);
        assert_null(dr_safetensors_find(s, "x"));
        dr_safetensors_close(s);
    }
    free(path);
}

static void five_thousand_tensors(void **state)
{
    (void)state;
    enum { N = 5000 };
    static char names[N][24];
    static float values[N];
    static dr_safetensors_entry entries[N];
    static const void *data[N];
    static const int64_t one[] = {1};
    for (int i = 0; i < N; i++) {
        (void)snprintf(names[i], sizeof names[i], "block.%d.weight", i * 7919 % N);
        values[i] = (float)i;
        entries[i] =
            (dr_safetensors_entry){.name = names[i], .dtype = DR_F32, .rank = 1, .shape = one};
        data[i] = &values[i];
    }
    char *path = path_in_tmp("many.safetensors");
    const dr_safetensors_content content = {.entries = entries, .n_entries = N};
    assert_ok(dr_safetensors_save(path, &content, data));
    dr_safetensors *s = NULL;
    assert_ok(dr_safetensors_open(&s, path));
    assert_int_equal(dr_safetensors_count(s), N);
    for (int i = 0; i < N; i++) {
        const dr_safetensors_tensor *t = dr_safetensors_find(s, names[i]);
        const void *got = NULL;
        assert_non_null(t);
        assert_ok(dr_safetensors_data(s, t, &got));
        assert_memory_equal(got, &values[i], sizeof values[i]);
    }
    dr_safetensors_close(s);
    free(path);
}

/* A header of odd length puts every tensor at an odd address. */
static void misaligned_data_reads_back(void **state)
{
    (void)state;
    static const char header[] = " {\"__metadata__\":null,\"y\":{\"shape\":[],\"extra\":1,"
                                 "\"data_offsets\":[1,5],\"dtype\":\"F32\"},"
                                 "\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}\n";
    unsigned char file[8 + sizeof header - 1 + 5] = {(unsigned char)(sizeof header - 1)};
    memcpy(file + 8, header, sizeof header - 1);
    static const float y = 2.5f;
    file[sizeof file - 5] = 9;
    memcpy(file + sizeof file - 4, &y, 4);
    dr_safetensors *s = NULL;
    assert_ok(dr_safetensors_parse(&s, "memory", file, sizeof file));
    const void *got = NULL;
    assert_string_equal(dr_safetensors_at(s, 0)->name, "x");
    assert_ok(dr_safetensors_data(s, dr_safetensors_find(s, "y"), &got));
    assert_memory_equal(got, &y, 4);
    dr_safetensors_close(s);
}

static void foreign_dtype_is_listed_but_not_read(void **state)
{
    (void)state;
    static const char header[] = "{\"q\":{\"dtype\":\"F8_E4M3\",\"shape\":[3],"
                                 "\"data_offsets\":[0,3]},\"p\":{\"dtype\":\"F4\",\"shape\":[2],"
                                 "\"data_offsets\":[3,4]}}";
    unsigned char file[8 + sizeof header - 1 + 4] = {(unsigned char)(sizeof header - 1)};
    memcpy(file + 8, header, sizeof header - 1);
    dr_safetensors *s = NULL;
    assert_ok(dr_safetensors_parse(&s, "fp8.safetensors", file, sizeof file));
    const dr_safetensors_tensor *t = dr_safetensors_find(s, "q");
    assert_false(t->readable);
    assert_string_equal(t->dtype_name, "F8_E4M3");
    const void *got = NULL;
    assert_error(dr_safetensors_data(s, t, &got), DR_UNSUPPORTED,
                 "fp8.safetensors: tensor 'q' has dtype F8_E4M3");
    dr_safetensors_close(s);
}

static void four_gib_open_reads_the_header_only(void **state)
{
    (void)state;
    static const char header[] =
        "{\"w\":{\"dtype\":\"F32\",\"shape\":[1024,1048576],\"data_offsets\":[0,4294967296]}}";
    unsigned char head[8 + sizeof header - 1] = {(unsigned char)(sizeof header - 1)};
    memcpy(head + 8, header, sizeof header - 1);
    char *path = path_in_tmp("large.safetensors");
    assert_ok(dr_file_write(path, head, sizeof head));
    assert_int_equal(truncate(path, (off_t)sizeof head + 4294967296), 0); /* sparse */
    double start = dr_now_s();
    dr_safetensors *s = NULL;
    assert_ok(dr_safetensors_open(&s, path));
    assert_at_most(dr_now_s() - start, 0.050); /* measured: below 0.001 s */
    assert_true(dr_safetensors_at(s, 0)->bytes == 4294967296);
    dr_safetensors_close(s);
    assert_int_equal(truncate(path, (off_t)sizeof head + 4294967295), 0);
    assert_error(dr_safetensors_open(&s, path), DR_FORMAT,
                 "the file is truncated: 4294967377 of 4294967378 bytes; download it again");
    (void)unlink(path);
    free(path);
}

static void pieces_of_any_size_are_written(void **state)
{
    (void)state;
    static const int64_t n[] = {5};
    const dr_safetensors_entry entries[] = {
        {.name = "b", .dtype = DR_U8, .rank = 1, .shape = n},
        {.name = "a", .dtype = DR_U8, .rank = 1, .shape = n},
    };
    const dr_safetensors_content content = {.entries = entries, .n_entries = 2};
    char *path = path_in_tmp("pieces.safetensors");
    dr_safetensors_writer *w = NULL;
    assert_ok(dr_safetensors_writer_open(&w, path, &content));
    assert_int_equal(dr_safetensors_writer_order(w, 0), 1);
    assert_int_equal(dr_safetensors_writer_bytes(w, 0), 5);
    assert_ok(dr_safetensors_writer_write(w, "aa", 2));
    assert_ok(dr_safetensors_writer_write(w, "aaabb", 5));
    assert_panics((void)!dr_safetensors_writer_commit(w));
    assert_panics((void)!dr_safetensors_writer_write(w, "bbbb", 4));
    assert_ok(dr_safetensors_writer_write(w, "bbb", 3));
    assert_false(dr_path_exists(path));
    assert_ok(dr_safetensors_writer_commit(w));
    dr_safetensors *s = NULL;
    assert_ok(dr_safetensors_open(&s, path));
    const void *got = NULL;
    assert_ok(dr_safetensors_data(s, dr_safetensors_find(s, "b"), &got));
    assert_memory_equal(got, "bbbbb", 5);
    dr_safetensors_close(s);
    free(path);
}

static dr_status fail_on_second(void *ctx, dr_safetensors_writer *w, size_t i_entry)
{
    (void)ctx;
    if (i_entry == 1) {
        DR_FAIL(DR_NUMERIC, "no value");
    }
    return dr_safetensors_writer_write(w, "aaaaa", 5);
}

static dr_status write_nothing(void *ctx, dr_safetensors_writer *w, size_t i_entry)
{
    (void)i_entry;
    *(dr_safetensors_writer **)ctx = w;
    return DR_OK;
}

static void failed_write_keeps_the_old_file(void **state)
{
    (void)state;
    static const int64_t n[] = {5};
    const dr_safetensors_entry entries[] = {
        {.name = "a", .dtype = DR_U8, .rank = 1, .shape = n},
        {.name = "b", .dtype = DR_U8, .rank = 1, .shape = n},
    };
    const dr_safetensors_content content = {.entries = entries, .n_entries = 2};
    char *path = path_in_tmp("kept.safetensors");
    assert_ok(dr_file_write(path, "old", 3));
    assert_error(dr_safetensors_write(path, &content, fail_on_second, NULL), DR_NUMERIC,
                 "no value");
    dr_safetensors_writer *w = NULL;
    assert_ok(dr_safetensors_writer_open(&w, path, &content));
    dr_safetensors_writer_abort(w);
    dr_safetensors_writer_abort(NULL);
    assert_no_leftovers();
    char *old = NULL;
    size_t n_old = 0;
    assert_ok(dr_file_read(path, 100, &old, &n_old));
    assert_string_equal(old, "old");
    free(old);
    free(path);
}

static void missing_bytes_are_a_broken_contract(void **state)
{
    (void)state;
    static const int64_t n[] = {5};
    const dr_safetensors_entry entry = {.name = "a", .dtype = DR_U8, .rank = 1, .shape = n};
    const dr_safetensors_content content = {.entries = &entry, .n_entries = 1};
    char *path = path_in_tmp("none.safetensors");
    dr_safetensors_writer *w = NULL;
    assert_panics((void)!dr_safetensors_write(path, &content, write_nothing, &w));
    dr_safetensors_writer_abort(w);
    free(path);
    assert_no_leftovers();
}

static void expect_refused(const dr_safetensors_content *content, const char *message)
{
    char *path = path_in_tmp("refused.safetensors");
    dr_safetensors_writer *w = NULL;
    assert_error(dr_safetensors_writer_open(&w, path, content), DR_INVALID, message);
    assert_null(w);
    assert_false(dr_path_exists(path));
    free(path);
}

static void bad_content_is_not_written(void **state)
{
    (void)state;
    static const int64_t negative[] = {-1};
    static const int64_t huge[] = {INT64_MAX / 2, 16};
    dr_safetensors_entry e[2] = {{.name = "x", .dtype = DR_F32}, {.name = "x", .dtype = DR_F32}};
    dr_safetensors_content content = {.entries = e, .n_entries = 2};
    expect_refused(&content, "tensor name 'x' is given twice");
    content.n_entries = 1;
    e[0].name = "__metadata__";
    expect_refused(&content, "cannot be called __metadata__");
    e[0].name = "\xff";
    expect_refused(&content, "is not valid UTF-8");
    e[0] = (dr_safetensors_entry){.name = "n", .dtype = DR_U8, .rank = 1, .shape = negative};
    expect_refused(&content, "tensor 'n' has a negative size");
    e[0] = (dr_safetensors_entry){.name = "h", .dtype = DR_U8, .rank = 2, .shape = huge};
    expect_refused(&content, "more than 2^63 bytes");
    content = (dr_safetensors_content){.n_meta = 2};
    content.meta = (const dr_safetensors_meta[]){{"k", "1"}, {"k", "2"}};
    expect_refused(&content, "metadata key 'k' is given twice");
    content.meta = (const dr_safetensors_meta[]){{"k", "1"}, {"l", "\xff"}};
    expect_refused(&content, "the value of metadata 'l' is not valid UTF-8");
    assert_no_leftovers();
}

static void lack_of_space_is_found_first(void **state)
{
    (void)state;
    static const int64_t pebibyte[] = {INT64_C(1) << 50};
    const dr_safetensors_entry e = {.name = "x", .dtype = DR_U8, .rank = 1, .shape = pebibyte};
    const dr_safetensors_content content = {.entries = &e, .n_entries = 1};
    char *path = path_in_tmp("too_large.safetensors");
    dr_safetensors_writer *w = NULL;
    assert_error(dr_safetensors_writer_open(&w, path, &content), DR_IO, "are free in");
    free(path);
    path = path_in_tmp("no/such/folder/x.safetensors");
    const dr_safetensors_content none = {0};
    assert_error(dr_safetensors_save(path, &none, NULL), DR_OUTPUT, "does not exist");
    free(path);
    assert_no_leftovers();
}

static void hashes_of_the_data_go_into_the_header(void **state)
{
    (void)state;
    enum { N = 100000 };
    static float values[N];
    static const int64_t shape[] = {N};
    for (int i = 0; i < N; i++) {
        values[i] = (float)i;
    }
    const dr_safetensors_entry e = {.name = "x", .dtype = DR_F32, .rank = 1, .shape = shape};
    const dr_safetensors_meta meta[] = {{"format", "pt"}};
    const dr_safetensors_hash hashes[] = {{"whole", "0x", 0, UINT64_MAX, 64},
                                          {"part", "", 1000, 300, 8},
                                          {"behind", "", 400000, 65536, 8}};
    const dr_safetensors_content content = {
        .entries = &e, .n_entries = 1, .meta = meta, .n_meta = 1, .hashes = hashes, .n_hashes = 3};
    const void *data = values;
    char *path = path_in_tmp("hashed.safetensors");
    uint64_t header = 0;
    uint64_t all = 0;
    assert_ok(dr_safetensors_save(path, &content, &data));
    assert_ok(dr_safetensors_header_bytes(path, &content, &header));
    assert_ok(dr_safetensors_file_bytes(path, &content, &all));
    assert_int_equal(all, header + sizeof values);
    dr_safetensors *s = NULL;
    char hex[DR_DIGEST_HEX];
    assert_ok(dr_safetensors_open(&s, path));
    assert_string_equal(dr_safetensors_meta_get(s, "format"), "pt");
    assert_ok(dr_digest_file(DR_SHA256, path, header, UINT64_MAX, hex));
    assert_true(dr_str_starts(dr_safetensors_meta_get(s, "whole"), "0x"));
    assert_string_equal(dr_safetensors_meta_get(s, "whole") + 2, hex);
    dr_digest_bytes(DR_SHA256, (const char *)values + 1000, 300, hex);
    assert_int_equal(strlen(dr_safetensors_meta_get(s, "part")), 8);
    assert_true(dr_str_starts(hex, dr_safetensors_meta_get(s, "part")));
    assert_string_equal(dr_safetensors_meta_get(s, "behind"), "e3b0c442"); /* of nothing */
    const void *back = NULL;
    assert_ok(dr_safetensors_data(s, dr_safetensors_find(s, "x"), &back));
    assert_memory_equal(back, values, sizeof values);
    dr_safetensors_close(s);
    free(path);
    assert_no_leftovers();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_read_back),
        cmocka_unit_test(file_without_tensors_is_fine),
        cmocka_unit_test(five_thousand_tensors),
        cmocka_unit_test(misaligned_data_reads_back),
        cmocka_unit_test(foreign_dtype_is_listed_but_not_read),
        cmocka_unit_test(four_gib_open_reads_the_header_only),
        cmocka_unit_test(pieces_of_any_size_are_written),
        cmocka_unit_test(failed_write_keeps_the_old_file),
        cmocka_unit_test(missing_bytes_are_a_broken_contract),
        cmocka_unit_test(bad_content_is_not_written),
        cmocka_unit_test(lack_of_space_is_found_first),
        cmocka_unit_test(hashes_of_the_data_go_into_the_header),
    };
    return DR_TEST_MAIN("safetensors", tests);
}
