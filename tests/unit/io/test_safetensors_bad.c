/* One bad file per rule of the format, each with its own message; and random damage. */
#include "dr_test.h"

#include "base/file.h"
#include "base/philox.h"
#include "io/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Header length, header, n_data zero bytes; the caller frees. */
static unsigned char *make_file(const char *header, size_t n_header, size_t n_data, size_t *n)
{
    *n = 8 + n_header + n_data;
    unsigned char *file = calloc(*n, 1);
    for (int i = 0; i < 8; i++) {
        file[i] = (unsigned char)((uint64_t)n_header >> (8 * i));
    }
    memcpy(file + 8, header, n_header);
    return file;
}

static void expect_bad_bytes(const void *bytes, size_t n, const char *message)
{
    dr_safetensors *s = NULL;
    unsigned char *exact = malloc(n > 0 ? n : 1); /* so that ASan sees a read past the end */
    memcpy(exact, bytes, n);
    assert_error(dr_safetensors_parse(&s, "m.safetensors", exact, n), DR_FORMAT, message);
    assert_null(s);
    assert_true(strncmp(dr_error_message(), "m.safetensors: ", 15) == 0);
    free(exact);
}

static void expect_bad(const char *header, size_t n_data, const char *message)
{
    size_t n = 0;
    unsigned char *file = make_file(header, strlen(header), n_data, &n);
    expect_bad_bytes(file, n, message);
    free(file);
}

#define TENSOR(name, dtype, shape, begin, end)                                                     \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" begin "," end   \
    "]}"

static void data_must_tile_the_file(void **state)
{
    (void)state;
    static const char two[] =
        "{" TENSOR("a", "F32", "[1]", "0", "4") "," TENSOR("b", "F32", "[1]", "4", "8") "}";
    expect_bad(two, 7, "the file is truncated: 122 of 123 bytes; download it again");
    expect_bad(two, 9, "1 bytes follow the last tensor: the file has 124 bytes, expected 123");
    expect_bad("{" TENSOR("a", "F32", "[1]", "4", "8") "}", 8,
               "tensor 'a' starts at byte 4 of the data, expected 0 (a gap)");
    expect_bad("{" TENSOR("a", "F32", "[1]", "0", "4") "," TENSOR("b", "F32", "[1]", "5", "9") "}",
               9, "tensor 'b' starts at byte 5 of the data, expected 4 (a gap)");
    expect_bad("{" TENSOR("a", "F32", "[1]", "0", "4") "," TENSOR("b", "F32", "[1]", "3", "7") "}",
               7, "tensor 'b' starts at byte 3 of the data, expected 4 (an overlap)");
    expect_bad("{}", 3, "3 bytes follow the last tensor");
    expect_bad("{" TENSOR("a", "F32", "[1]", "0", "4") "," TENSOR("b", "F32", "[0]", "2", "2") "}",
               4, "tensor 'b' starts at byte 2");
}

static void size_must_fit_shape_and_dtype(void **state)
{
    (void)state;
    expect_bad("{" TENSOR("a", "F32", "[2,2]", "0", "12") "}", 12,
               "tensor 'a': data_offsets span 12 bytes, its shape and dtype F32 need 16");
    expect_bad("{" TENSOR("a", "F32", "[1]", "4", "0") "}", 4, "[4, 0] are not a range");
    expect_bad("{" TENSOR("a", "F32", "[1]", "-4", "0") "}", 4, "[-4, 0] are not a range");
    expect_bad("{" TENSOR("a", "U8", "[4294967296,4294967296]", "0", "0") "}", 0,
               "the number of elements overflows");
    expect_bad("{" TENSOR("a", "U8", "[4294967296,4294967296,0]", "0", "0") "}", 0,
               "the number of elements overflows");
    expect_bad("{" TENSOR("a", "I64", "[4611686018427387904]", "0", "0") "}", 0,
               "its size overflows 64 bits");
    expect_bad("{" TENSOR("a", "F4", "[3]", "0", "2") "}", 2,
               "3 elements of 4 bits do not fill whole bytes");
}

static void entries_must_be_complete(void **state)
{
    (void)state;
    expect_bad("{" TENSOR("a", "F33", "[1]", "0", "4") "}", 4,
               "tensor 'a' has dtype 'F33', which the format does not define");
    expect_bad("{" TENSOR("a", "f32", "[1]", "0", "4") "}", 4, "has dtype 'f32'");
    expect_bad("{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "has no string 'dtype'");
    expect_bad("{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "has no list 'shape'");
    expect_bad("{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "has no 'data_offsets'");
    expect_bad("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4,
               "has no 'data_offsets' of two integers");
    expect_bad("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,\"4\"]}}", 4,
               "has no 'data_offsets' of two integers");
    expect_bad("{" TENSOR("a", "F32", "[1.0]", "0", "4") "}", 4, "size 0 of its shape");
    expect_bad("{" TENSOR("a", "F32", "[-1]", "0", "4") "}", 4, "size 0 of its shape");
    expect_bad("{\"a\":[]}", 0, "the entry of tensor 'a' is not an object");
}

static void header_must_be_one_json_object(void **state)
{
    (void)state;
    expect_bad("[]", 0, "the header is not a JSON object");
    expect_bad("", 0, "safetensors header: not valid JSON");
    expect_bad("{\"a\":", 0, "safetensors header: not valid JSON");
    expect_bad("{} x", 0, "not valid JSON");
    expect_bad("{\"\xff\":1}", 0, "unable to decode byte 0xff");
    expect_bad("{\"a\\u0000\":1}", 0, "not valid JSON");
    expect_bad("{" TENSOR("a", "U8", "[0]", "0", "0") "," TENSOR("a", "U8", "[0]", "0", "0") "}", 0,
               "duplicate object key");
    expect_bad("{" TENSOR("a", "F32", "[1]", "0", "99999999999999999999") "}", 4,
               "too big integer");
    static const char padded[] = "{" TENSOR("a", "U8", "[0]", "0", "0") "}\0\0\0";
    size_t n = 0;
    unsigned char *file = make_file(padded, sizeof padded - 1, 0, &n);
    expect_bad_bytes(file, n, "not valid JSON");
    free(file);
}

static void metadata_must_be_strings(void **state)
{
    (void)state;
    expect_bad("{\"__metadata__\":{\"k\":1}}", 0, "__metadata__ 'k' is not a string");
    expect_bad("{\"__metadata__\":{\"k\":null}}", 0, "__metadata__ 'k' is not a string");
    expect_bad("{\"__metadata__\":[]}", 0, "__metadata__ is not an object");
}

static void header_length_must_fit(void **state)
{
    (void)state;
    expect_bad_bytes("", 0, "the file is truncated: 0 of at least 10 bytes");
    expect_bad_bytes("\2\0\0\0", 4, "the file is truncated: 4 of at least 10 bytes");
    expect_bad_bytes("\x10\0\0\0\0\0\0\0{}", 10,
                     "the file is truncated: 10 of at least 24 bytes; download it again");
    expect_bad_bytes("\x01\xe1\xf5\x05\0\0\0\0{}", 10,
                     "its header would have 100000001 bytes, at most 100000000 are allowed");
    expect_bad_bytes("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10, "18446744073709551615 bytes");
}

static void other_kinds_of_file_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } kinds[] = {
        {"version https://git-lfs.github.com/spec/v1\noid sha256:00", "a Git LFS pointer"},
        {"PK\x03\x04................", "a zip archive"},
        {"\x80\x02}q\x01X\x0a................", "a pickle"},
        {"<!DOCTYPE html><html>", "a web page"},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        expect_bad_bytes(kinds[i].text, strlen(kinds[i].text), kinds[i].message);
    }
}

static void files_are_checked_like_memory(void **state)
{
    (void)state;
    char *path = dr_path_join(dr_test_tmpdir(), "bad.safetensors");
    dr_safetensors *s = NULL;
    assert_error(dr_safetensors_open(&s, path), DR_IO, "bad.safetensors: cannot open");
    assert_false(dr_safetensors_sniff(path));
    assert_ok(dr_file_write(path, "", 0));
    assert_error(dr_safetensors_open(&s, path), DR_FORMAT, "the file is empty");
    assert_false(dr_safetensors_sniff(path));
    assert_error(dr_safetensors_open(&s, dr_test_tmpdir()), DR_FORMAT, "not a regular file");
    assert_ok(dr_file_write(path, "\x20\0\0\0\0\0\0\0{}", 10));
    assert_error(dr_safetensors_open(&s, path), DR_FORMAT, "the file is truncated: 10 of");
    assert_null(s);
    assert_true(dr_safetensors_sniff(path));
    assert_ok(dr_file_write(path, "PK\x03\x04\x14\0\0\0{}", 10));
    assert_false(dr_safetensors_sniff(path));
    free(path);
}

/* Whatever the bytes, the parser answers; what it accepts can be walked. */
static void random_damage_is_survived(void **state)
{
    (void)state;
    static const char header[] = "{\"__metadata__\":{\"format\":\"pt\",\"k\":\"v\"}," TENSOR(
        "a", "F32", "[2,1]", "0", "8") "," TENSOR("b", "U8", "[3]", "8", "11") "}";
    size_t n = 0;
    unsigned char *good = make_file(header, sizeof header - 1, 11, &n);
    dr_philox random;
    dr_philox_init(&random, 3, DR_RANDOM_INIT, 0, 0);
    int n_accepted = 0;
    const char *rounds = getenv("DR_FUZZ_ROUNDS");
    long n_rounds = rounds != NULL ? strtol(rounds, NULL, 10) : 20000;
    for (long round = 0; round < n_rounds; round++) {
        size_t cut = dr_philox_below(&random, 8) == 0 ? dr_philox_below(&random, (uint32_t)n) : n;
        unsigned char *bytes = malloc(cut > 0 ? cut : 1);
        memcpy(bytes, good, cut);
        for (uint32_t k = dr_philox_below(&random, 4); cut > 0 && k > 0; k--) {
            static const char digits[] = "0123456789-.,:[]{}\"";
            size_t at = dr_philox_below(&random, (uint32_t)cut);
            bytes[at] = dr_philox_below(&random, 2) == 0
                            ? (unsigned char)dr_philox_u32(&random)
                            : (unsigned char)digits[dr_philox_below(&random, sizeof digits - 1)];
        }
        dr_safetensors *s = NULL;
        dr_status st = dr_safetensors_parse(&s, "fuzz", bytes, cut);
        assert_true(st == DR_OK || st == DR_FORMAT);
        size_t sum = 0;
        for (size_t i = 0; st == DR_OK && i < dr_safetensors_count(s); i++) {
            const dr_safetensors_tensor *t = dr_safetensors_at(s, i);
            const void *data = NULL;
            assert_ptr_equal(dr_safetensors_find(s, t->name), t);
            for (size_t b = 0;
                 t->readable && dr_safetensors_data(s, t, &data) == DR_OK && b < t->bytes; b++) {
                sum += ((const unsigned char *)data)[b];
            }
        }
        n_accepted += st == DR_OK && sum < SIZE_MAX;
        dr_safetensors_close(s);
        free(bytes);
    }
    assert_true(n_accepted > 0);
    free(good);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(data_must_tile_the_file),
        cmocka_unit_test(size_must_fit_shape_and_dtype),
        cmocka_unit_test(entries_must_be_complete),
        cmocka_unit_test(header_must_be_one_json_object),
        cmocka_unit_test(metadata_must_be_strings),
        cmocka_unit_test(header_length_must_fit),
        cmocka_unit_test(other_kinds_of_file_are_named),
        cmocka_unit_test(files_are_checked_like_memory),
        cmocka_unit_test(random_damage_is_survived),
    };
    return DR_TEST_MAIN("safetensors_bad", tests);
}
