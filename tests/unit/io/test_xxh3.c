#include "dr_test.h"

#include "base/file.h"
#include "io/xxh3.h"

#include <stdlib.h>
#include <string.h>

/* Vectors: xxh3_128_hexdigest of the same bytes by Python's xxhash 4.1.0 (libxxhash 0.8.4). */
static void hash_equals_python_xxhash(void **state)
{
    (void)state;
    char hex[DR_XXH3_HEX];
    dr_xxh3_hex(dr_xxh3_bytes(NULL, 0), hex);
    assert_string_equal(hex, "99aa06d3014798d86001c324468d497f");
    unsigned char steps[1000];
    for (size_t i = 0; i < sizeof steps; i++) {
        steps[i] = (unsigned char)(i * 7 % 256);
    }
    dr_xxh3_hex(dr_xxh3_bytes(steps, sizeof steps), hex);
    assert_string_equal(hex, "abee229cdadad76d10ad30264426c830");
    dr_xxh3_hex(dr_xxh3_bytes("hello", 5), hex);
    assert_string_equal(hex, "b5e9c1ad071b3e7fc779cfaa5e523818");
}

static void file_hash_equals_hash_of_bytes(void **state)
{
    (void)state;
    size_t n = 3 * 1024 * 1024 + 17; /* more than one piece */
    unsigned char *data = calloc(n, 1);
    for (size_t i = 0; i < n; i++) {
        data[i] = (unsigned char)(i * 31 + i / 4096);
    }
    char *path = dr_path_join(dr_test_tmpdir(), "hash.bin");
    assert_ok(dr_file_write(path, data, n));
    dr_xxh3 h = {0};
    assert_ok(dr_xxh3_file(path, &h));
    assert_true(dr_xxh3_equal(h, dr_xxh3_bytes(data, n)));
    free(path);
    free(data);
    assert_error(dr_xxh3_file("/no/such/file", &h), DR_IO, "/no/such/file: cannot open");
}

static void spelling_reads_back(void **state)
{
    (void)state;
    dr_xxh3 h = {0};
    assert_true(dr_xxh3_parse("0123456789abcdef00000000000000ff", &h));
    assert_true(h.high == UINT64_C(0x0123456789abcdef) && h.low == 255);
    assert_false(dr_xxh3_parse("0123456789abcdef00000000000000f", &h));
    assert_false(dr_xxh3_parse("0123456789abcdef00000000000000ff0", &h));
    assert_false(dr_xxh3_parse("0123456789ABCDEF00000000000000FF", &h));
    assert_false(dr_xxh3_parse("", &h));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hash_equals_python_xxhash),
        cmocka_unit_test(file_hash_equals_hash_of_bytes),
        cmocka_unit_test(spelling_reads_back),
    };
    return DR_TEST_MAIN("xxh3", tests);
}
