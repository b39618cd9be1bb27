/* Checkpoints of torch: what our writer makes, by our reader; and pickles that are refused.
 * The comparison with torch itself is tests/interop/torch_peers.py. */
#include "dr_test.h"

#include "base/file.h"
#include "io/tensor_file.h"
#include "io/torch_writer.h"
#include "io/zip_reader.h"

#include <stdlib.h>
#include <string.h>

static const int64_t square[] = {2, 2};
static const int64_t nothing[] = {3, 0};
static const float four[] = {1, 2, 3, 4};

static dr_status emit_four(void *ctx, dr_torch_writer *w, size_t i)
{
    (void)ctx;
    DR_TRY(dr_torch_writer_write(w, four, dr_torch_writer_bytes(w, i) / 2));
    return dr_torch_writer_write(w, four + 2, dr_torch_writer_bytes(w, i) / 2);
}

static char *write_checkpoint(const char *name)
{
    char *path = dr_path_join(dr_test_tmpdir(), name);
    const dr_safetensors_entry entries[] = {{"empty", DR_F16, 2, nothing},
                                            {"w.a", DR_F32, 2, square},
                                            {"w.none", DR_I64, 2, nothing},
                                            {"scalar", DR_I64, 0, NULL}};
    const dr_torch_number numbers[] = {{"epoch", 3}, {"global_step", 1LL << 40}};
    assert_ok(dr_torch_write(
        path,
        &(dr_torch_content){.entries = entries, .n_entries = 4, .numbers = numbers, .n_numbers = 2},
        emit_four, NULL));
    return path;
}

static void what_we_write_we_read(void **state)
{
    (void)state;
    char *path = write_checkpoint("model.safetensors");
    dr_tensor_file *f = NULL;
    const void *data = NULL;
    int64_t v = 0;
    assert_int_equal(dr_tensor_file_sniff(path), DR_CONTAINER_TORCH_ZIP);
    assert_ok(dr_tensor_file_open(&f, path));
    assert_string_equal(dr_tensor_file_kind(f), "ckpt (torch zip)");
    assert_int_equal(dr_tensor_file_count(f), 4);
    assert_string_equal(dr_tensor_file_at(f, 1)->name, "w.a");
    assert_int_equal(dr_tensor_file_find(f, "empty")->n_elems, 0);
    assert_int_equal(dr_tensor_file_find(f, "scalar")->rank, 0);
    const dr_file_tensor *t = dr_tensor_file_find(f, "w.a");
    assert_ok(dr_tensor_file_data(f, t, &data));
    assert_memory_equal(data, four, sizeof four);
    assert_int_equal((uintptr_t)data % 64, 0);
    dr_tensor_file_release(f, t);
    assert_ok(dr_tensor_file_data(f, t, &data));
    assert_memory_equal(data, four, sizeof four);
    assert_true(dr_tensor_file_number(f, "global_step", &v) && v == 1LL << 40);
    assert_false(dr_tensor_file_number(f, "state_dict", &v));
    assert_int_equal(dr_tensor_file_meta_count(f), 0);
    dr_tensor_file_close(f);
    free(path);
}

static void checksums_are_true(void **state)
{
    (void)state;
    char *path = write_checkpoint("sums");
    dr_zip *z = NULL;
    unsigned char out[4096];
    assert_ok(dr_zip_open(&z, path));
    assert_int_equal(dr_zip_count(z), 9);
    for (size_t i = 0; i < dr_zip_count(z); i++) {
        assert_in_range(dr_zip_at(z, i)->bytes, 0, sizeof out);
        assert_ok(dr_zip_read(z, dr_zip_at(z, i), out));
    }
    dr_zip_close(z);
    free(path);
}

static void bad_content_is_not_written(void **state)
{
    (void)state;
    char *path = dr_path_join(dr_test_tmpdir(), "bad.ckpt");
    const int64_t negative[] = {-1};
    const int64_t huge[] = {1LL << 62, 0};
    const dr_safetensors_entry twice[] = {{"a", DR_F32, 2, square}, {"a", DR_F32, 2, square}};
    const dr_safetensors_entry shapes[] = {{"n", DR_F32, 1, negative}, {"h", DR_F32, 2, huge}};
    const dr_safetensors_entry latin = {"\xe4", DR_F32, 2, square};
    const dr_torch_number number = {"epoch", 1};
    dr_torch_content c = {.entries = twice, .n_entries = 2};
    dr_torch_writer *w = NULL;
    assert_error(dr_torch_writer_open(&w, path, &c), DR_INVALID, "'a' is given twice");
    c = (dr_torch_content){.entries = &shapes[0], .n_entries = 1};
    assert_error(dr_torch_writer_open(&w, path, &c), DR_INVALID, "'n' has a negative size");
    c.entries = &shapes[1];
    assert_error(dr_torch_writer_open(&w, path, &c), DR_INVALID, "'h' has a negative size or more");
    c.entries = &latin;
    assert_error(dr_torch_writer_open(&w, path, &c), DR_INVALID, "not valid UTF-8");
    c = (dr_torch_content){.bare = true, .numbers = &number, .n_numbers = 1};
    assert_error(dr_torch_writer_open(&w, path, &c), DR_INVALID, "no place for 'epoch'");
    assert_null(w);
    assert_false(dr_path_exists(path));
    free(path);
}

static void an_abandoned_file_leaves_nothing(void **state)
{
    (void)state;
    char *path = dr_path_join(dr_test_tmpdir(), "gone/x.ckpt");
    char *dir = dr_path_join(dr_test_tmpdir(), "gone");
    const dr_safetensors_entry e = {"a", DR_F32, 2, square};
    const dr_torch_content c = {.entries = &e, .n_entries = 1};
    dr_torch_writer *w = NULL;
    dr_strv names = {0};
    assert_error(dr_torch_writer_open(&w, path, &c), DR_OUTPUT, "gone");
    assert_ok(dr_mkdirs(dir));
    assert_ok(dr_torch_writer_open(&w, path, &c));
    assert_ok(dr_torch_writer_write(w, four, 4));
    assert_panics((void)!dr_torch_writer_write(w, four, 16));
    dr_torch_writer_abort(w);
    assert_ok(dr_list_dir(dir, &names));
    assert_int_equal(names.n, 0);
    dr_strv_free(&names);
    free(dir);
    free(path);
}

static void expect_refused(const char *bytes, size_t n, const char *message)
{
    dr_tensor_file *f = NULL;
    char *exact = malloc(n);
    memcpy(exact, bytes, n);
    assert_error(dr_tensor_file_parse(&f, "m.ckpt", exact, n), DR_FORMAT, message);
    assert_null(f);
    free(exact);
}
#define REFUSED(bytes, message) expect_refused(bytes, sizeof(bytes) - 1, message)

static void pickles_are_not_run(void **state)
{
    (void)state;
    REFUSED("\x80\x02"
            "cos\nsystem\nU\x02id\x85R.",
            "m.ckpt: refused: this file asks to run os.system");
    REFUSED("\x80\x04\x8c\x08"
            "builtins\x8c\x04"
            "eval\x93\x8c\x01"
            "1\x85R.",
            "builtins.eval");
    REFUSED("cos\nsystem\n(S'id'\ntR.", "os.system");
    REFUSED("\x80\x02"
            "ca\nb\n)R)R.",
            "the result of a call of a.b");
    REFUSED("\x80\x02}r\xff\xff\xff\x7f.", "place 2147483647 of its memo");
    REFUSED("\x80\x02\x8d\x00\x00\x00\x00\x02\x00\x00\x00", "8589934592 bytes are announced");
    REFUSED("\x80\x02}.", "not a file that torch.save wrote");
    REFUSED("\x80\x02(.", "its stack does not hold one value");
    REFUSED("\x80\x02}", "it ends too early");
    REFUSED("\x80\x02\x82\x01.", "opcode 0x82");
    REFUSED("\x80\x02\xff.", "is no opcode");
    REFUSED("PK\x03\x04 cut off", "a zip archive without its end");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_we_write_we_read),
        cmocka_unit_test(checksums_are_true),
        cmocka_unit_test(bad_content_is_not_written),
        cmocka_unit_test(an_abandoned_file_leaves_nothing),
        cmocka_unit_test(pickles_are_not_run),
    };
    return DR_TEST_MAIN("torch_file", tests);
}
