/* Event files: the checksum, and what is left when the disk is full. logs_peers.py reads whole
 * files with the tensorboard package. */
#include "dr_test.h"

#include "base/fault.h"
#include "base/file.h"
#include "io/event_file.h"

#include <stdlib.h>
#include <string.h>

/* Vectors of RFC 3720, B.4, and the check value of CRC-32C in the catalogue of CRCs. */
static void checksums_are_those_of_the_rfc(void **state)
{
    (void)state;
    unsigned char bytes[32];
    memset(bytes, 0, sizeof bytes);
    assert_int_equal(dr_crc32c(bytes, sizeof bytes), 0x8A9136AAU);
    memset(bytes, 0xFF, sizeof bytes);
    assert_int_equal(dr_crc32c(bytes, sizeof bytes), 0x62A8AB43U);
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (unsigned char)i;
    }
    assert_int_equal(dr_crc32c(bytes, sizeof bytes), 0x46DD794EU);
    assert_int_equal(dr_crc32c("123456789", 9), 0xE3069283U);
}

static size_t size_of(const char *path)
{
    char *data = NULL;
    size_t n = 0;
    assert_ok(dr_file_read(path, 1 << 20, &data, &n));
    free(data);
    return n;
}

static void a_full_disk_costs_the_records_of_one_flush(void **state)
{
    (void)state;
    dr_event_file *f = NULL;
    const dr_event_at at = {1e9, 1, "loss"};
    assert_ok(dr_event_file_create(dr_test_tmpdir(), 1e9, -1, &f));
    dr_event_file_scalar(f, &at, 1.0);
    assert_ok(dr_event_file_flush(f));
    const size_t whole = size_of(dr_event_file_path(f));
    assert_ok(dr_fault_setup("enospc:write=1", 0));
    dr_event_file_scalar(f, &at, 2.0);
    assert_error(dr_event_file_flush(f), DR_IO, "No space left");
    assert_ok(dr_fault_setup("", 0));
    assert_int_equal(size_of(dr_event_file_path(f)), whole);
    dr_event_file_scalar(f, &at, 3.0);
    assert_ok(dr_event_file_flush(f));
    const size_t record =
        16 + 9 + 2 + 2 + 2 + 6 + 5; /* framing, time, step, summary, value, tag, number */
    assert_int_equal(size_of(dr_event_file_path(f)), whole + record);
    dr_event_file_close(f);
}

static void two_files_of_one_second_have_two_names(void **state)
{
    (void)state;
    dr_event_file *a = NULL;
    dr_event_file *b = NULL;
    assert_ok(dr_event_file_create(dr_test_tmpdir(), 2e9, -1, &a));
    assert_ok(dr_event_file_create(dr_test_tmpdir(), 2e9, -1, &b));
    assert_string_not_equal(dr_event_file_path(a), dr_event_file_path(b));
    dr_event_file_close(a);
    dr_event_file_close(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(checksums_are_those_of_the_rfc),
        cmocka_unit_test(a_full_disk_costs_the_records_of_one_flush),
        cmocka_unit_test(two_files_of_one_second_have_two_names),
    };
    return DR_TEST_MAIN("event_file", tests);
}
