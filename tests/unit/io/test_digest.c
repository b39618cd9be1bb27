#include "dr_test.h"

#include "base/file.h"
#include "io/digest.h"

#include <stdlib.h>
#include <string.h>

/* Vectors: Python's hashlib. */
static const char sha256_empty[] =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
static const char sha256_abc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
static const char sha1_abc[] = "a9993e364706816aba3e25717850c26c9cd0d89d";

static void digests_equal_published_vectors(void **state)
{
    (void)state;
    char hex[DR_DIGEST_HEX];
    dr_digest_bytes(DR_SHA256, NULL, 0, hex);
    assert_string_equal(hex, sha256_empty);
    dr_digest_bytes(DR_SHA256, "abc", 3, hex);
    assert_string_equal(hex, sha256_abc);
    dr_digest_bytes(DR_SHA1, "abc", 3, hex);
    assert_string_equal(hex, sha1_abc);
    dr_digest *d = dr_digest_create(DR_SHA256);
    dr_digest_add(d, "a", 1);
    dr_digest_add(d, "bc", 2);
    dr_digest_finish(d, hex);
    assert_string_equal(hex, sha256_abc);
}

static void ranges_of_files_are_hashed(void **state)
{
    (void)state;
    char whole[DR_DIGEST_HEX];
    char hex[DR_DIGEST_HEX];
    const size_t n = 3 * 1024 * 1024 + 17; /* more than one piece */
    char *data = calloc(n, 1);
    for (size_t i = 0; i < n; i++) {
        data[i] = (char)(i * 31 + i / 4096);
    }
    char *path = dr_path_join(dr_test_tmpdir(), "digest.bin");
    assert_ok(dr_file_write(path, data, n));
    dr_digest_bytes(DR_SHA256, data, n, whole);
    assert_ok(dr_digest_file(DR_SHA256, path, 0, UINT64_MAX, hex));
    assert_string_equal(hex, whole);
    dr_digest_bytes(DR_SHA256, data + 0x100000, 0x10000, whole);
    assert_ok(dr_digest_file(DR_SHA256, path, 0x100000, 0x10000, hex));
    assert_string_equal(hex, whole);
    assert_ok(dr_digest_file(DR_SHA256, path, n + 5, 10, hex));
    assert_string_equal(hex, sha256_empty);
    assert_error(dr_digest_file(DR_SHA256, "/nowhere/at/all", 0, 1, hex), DR_IO, "cannot open");
    free(path);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(digests_equal_published_vectors),
        cmocka_unit_test(ranges_of_files_are_hashed),
    };
    return DR_TEST_MAIN("digest", tests);
}
