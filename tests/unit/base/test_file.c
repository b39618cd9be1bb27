#include "dr_test.h"

#include "base/file.h"

#include <stdlib.h>
#include <string.h>

static char *path_in_tmp(const char *name)
{
    return dr_path_join(dr_test_tmpdir(), name);
}

static void written_file_reads_back(void **state)
{
    (void)state;
    char *path = path_in_tmp("a.bin");
    assert_ok(dr_file_write(path, "hello", 5));
    char *data = NULL;
    size_t n = 0;
    assert_ok(dr_file_read(path, 100, &data, &n));
    assert_int_equal(n, 5);
    assert_string_equal(data, "hello");
    free(data);
    assert_error(dr_file_read(path, 4, &data, &n), DR_FORMAT, "larger than 4 bytes");
    dr_map m;
    assert_ok(dr_map_open(&m, path));
    assert_memory_equal(m.data, "hello", 5);
    dr_map_close(&m);
    free(path);
}

static void aborted_write_leaves_the_old_file(void **state)
{
    (void)state;
    char *path = path_in_tmp("b.bin");
    assert_ok(dr_file_write(path, "old", 3));
    dr_outfile o = {0};
    assert_ok(dr_outfile_open(&o, path));
    assert_ok(dr_outfile_write(&o, "new", 3));
    dr_outfile_abort(&o);
    dr_strv names = {0};
    assert_ok(dr_list_dir(dr_test_tmpdir(), &names));
    for (size_t i = 0; i < names.n; i++) {
        assert_null(strstr(names.at[i], ".tmp."));
    }
    dr_strv_free(&names);
    dr_map m;
    assert_ok(dr_map_open(&m, path));
    assert_memory_equal(m.data, "old", 3);
    dr_map_close(&m);
    free(path);
}

static void full_device_is_an_io_error(void **state)
{
    (void)state;
    char *path = path_in_tmp("no/such/dir/x");
    dr_outfile o = {0};
    assert_error(dr_outfile_open(&o, path), DR_OUTPUT, "cannot create");
    free(path);
    char *block = calloc(1, 1 << 20);
    FILE *full = fopen("/dev/full", "wb");
    assert_non_null(full);
    o = (dr_outfile){.f = full};
    dr_status st = dr_outfile_write(&o, block, 1 << 20);
    assert_int_equal(st, DR_IO);
    (void)fclose(full);
    free(block);
}

static void directories_are_made_with_parents(void **state)
{
    (void)state;
    char *path = path_in_tmp("x/y/z");
    assert_ok(dr_mkdirs(path));
    assert_true(dr_path_is_dir(path));
    assert_ok(dr_mkdirs(path));
    assert_string_equal(dr_path_base(path), "z");
    free(path);
    path = path_in_tmp("a.bin/sub");
    assert_error(dr_mkdirs(path), DR_OUTPUT, "cannot create directory");
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(written_file_reads_back),
        cmocka_unit_test(aborted_write_leaves_the_old_file),
        cmocka_unit_test(full_device_is_an_io_error),
        cmocka_unit_test(directories_are_made_with_parents),
    };
    return DR_TEST_MAIN("file", tests);
}
