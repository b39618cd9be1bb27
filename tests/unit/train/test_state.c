/*
 * States on disk: whole or absent, verified, the newest found.
 */
#include "base/file.h"
#include "base/tree.h"
#include "dr_test.h"
#include "train/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *path_of(const char *name)
{
    static char buf[4][512];
    static int turn;
    turn = (turn + 1) % 4;
    (void)snprintf(buf[turn], sizeof buf[turn], "%s/%s", dr_test_tmpdir(), name);
    return buf[turn];
}

static void make(const char *name, int step)
{
    dr_state_writer w;
    char text[64];
    assert_ok(dr_state_begin(&w, path_of(name)));
    (void)snprintf(text, sizeof text, "{\"current_step\": %d}", step);
    char *file = dr_state_file(&w, "train_state.json");
    assert_ok(dr_file_write(file, text, strlen(text)));
    free(file);
    file = dr_state_file(&w, "weights");
    assert_ok(dr_file_write(file, "0123456789", 10));
    free(file);
    assert_false(dr_path_exists(path_of(name)) && step == 1);
    assert_ok(dr_state_commit(&w));
}

static dr_status newest(const char *name, char **path)
{
    const char *const names[] = {"none", name, NULL};
    return dr_state_newest(dr_test_tmpdir(), names, path);
}

static void overwrite(const char *file, long at, const char *bytes)
{
    FILE *f = fopen(file, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, at, SEEK_SET), 0);
    assert_int_equal(fwrite(bytes, 1, strlen(bytes), f), strlen(bytes));
    assert_int_equal(fclose(f), 0);
}

static void damage_is_named(void **state)
{
    (void)state;
    make("a-state", 1);
    assert_ok(dr_state_verify(path_of("a-state"), true));
    overwrite(path_of("a-state/weights"), 3, "X");
    assert_ok(dr_state_verify(path_of("a-state"), false)); /* sizes alone do not show it */
    assert_error(dr_state_verify(path_of("a-state"), true), DR_FORMAT, "weights does not have");
    assert_int_equal(truncate(path_of("a-state/weights"), 9), 0);
    assert_error(dr_state_verify(path_of("a-state"), false), DR_FORMAT, "9 bytes, expected 10");
    assert_int_equal(unlink(path_of("a-state/weights")), 0);
    assert_error(dr_state_verify(path_of("a-state"), false), DR_FORMAT, "weights is missing");
    assert_int_equal(unlink(path_of("a-state/manifest.json")), 0);
    assert_error(dr_state_verify(path_of("a-state"), true), DR_FORMAT, "no state of dreamrun");
    assert_error(dr_state_verify(path_of("nowhere"), true), DR_INVALID, "no such directory");
}

static const char *const files[] = {"manifest.json", "train_state.json", "weights"};

/* Puts data back where a case has damaged the file. */
static void restore(const char *file, const char *data, size_t n)
{
    FILE *f = fopen(file, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

/* Each file cut to nothing, to one byte, by one byte, and gone: "e-state" is passed over each time.
 */
static void cut_anywhere(void **state)
{
    (void)state;
    char *path = NULL;
    make("e-step1-state", 1);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        for (int how = 0; how < 4; how++) {
            if (i == 0 && how == 2) {
                continue; /* the manifest's last byte is only a line's end */
            }
            char *data = NULL;
            size_t n = 0;
            make("e-state", 2);
            char *file = dr_path_join(path_of("e-state"), files[i]);
            assert_ok(dr_file_read(file, 1 << 20, &data, &n));
            const off_t sizes[] = {0, 1, (off_t)n - 1};
            assert_int_equal(how < 3 ? truncate(file, sizes[how]) : unlink(file), 0);
            assert_error(dr_state_verify(path_of("e-state"), false), DR_FORMAT, "e-state");
            dr_error_clear();
            assert_ok(newest("e", &path));
            assert_string_equal(path, path_of("e-step1-state"));
            restore(file, data, n);
            free(path);
            free(data);
            free(file);
        }
    }
}

/* Every bit of every file turned: no byte of the content may differ unseen. The manifest's own may
 * only where the reader sees the same (a hexadecimal digit in upper case). */
static void any_bit_turned(void **state)
{
    (void)state;
    int unseen[3] = {0};
    make("f-state", 3);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char *data = NULL;
        size_t n = 0;
        char *file = dr_path_join(path_of("f-state"), files[i]);
        assert_ok(dr_file_read(file, 1 << 20, &data, &n));
        for (size_t bit = 0; bit < 8 * n; bit++) {
            data[bit / 8] = (char)((unsigned char)data[bit / 8] ^ 1U << bit % 8);
            restore(file, data, n);
            unseen[i] += dr_state_verify(path_of("f-state"), true) == DR_OK;
            data[bit / 8] = (char)((unsigned char)data[bit / 8] ^ 1U << bit % 8);
        }
        restore(file, data, n);
        assert_ok(dr_state_verify(path_of("f-state"), true));
        free(data);
        free(file);
    }
    assert_int_equal(unseen[1], 0);
    assert_int_equal(unseen[2], 0);
    assert_in_range(unseen[0], 0, 64); /* digits a to f of two hashes */
}

/* What killed writers left goes; what others have, or a living process writes, stays. */
static void leftovers_are_swept(void **state)
{
    (void)state;
    const char *const prefixes[] = {"g", NULL};
    const char *const gone[] = {"g-state.tmp.999999999", "g.safetensors.tmp.999999999", NULL};
    char living[64];
    (void)snprintf(living, sizeof living, "g-state.tmp.%ld", (long)getpid());
    const char *const kept[] = {living,           "h-state.tmp.999999999",     "g-state.tmp.x",
                                "g.tmp.9999999x", "g-state.tmp.999999999.new", NULL};
    make("g-state", 1);
    assert_int_equal(rename(path_of("g-state"), path_of("g-step5-state.tmp.999999999.old")), 0);
    for (int i = 0; gone[i] != NULL; i++) {
        assert_int_equal(mkdir(path_of(gone[i]), 0700), 0);
    }
    for (int i = 0; kept[i] != NULL; i++) {
        assert_int_equal(mkdir(path_of(kept[i]), 0700), 0);
    }
    assert_int_equal(dr_tree_sweep(dr_test_tmpdir(), prefixes), 3);
    for (int i = 0; gone[i] != NULL; i++) {
        assert_false(dr_path_exists(path_of(gone[i])));
    }
    for (int i = 0; kept[i] != NULL; i++) {
        assert_true(dr_path_exists(path_of(kept[i])));
    }
    assert_ok(dr_state_verify(path_of("g-step5-state"), true)); /* was being replaced: back again */
}

static void replaced_and_removed(void **state)
{
    (void)state;
    int64_t step = 0;
    make("b-state", 5);
    make("b-state", 6);
    assert_ok(dr_state_step(path_of("b-state"), &step));
    assert_int_equal(step, 6);
    dr_state_remove(path_of("b-state"));
    assert_false(dr_path_exists(path_of("b-state")));
    dr_state_remove(path_of("b-state"));
    assert_int_equal(mkdir(path_of("b-state"), 0700), 0); /* somebody's folder */
    dr_state_writer w;
    assert_error(dr_state_begin(&w, path_of("b-state")), DR_OUTPUT, "is no state of dreamrun");
    dr_state_remove(path_of("b-state"));
    assert_true(dr_path_exists(path_of("b-state")));
}

static void newest_whole_one(void **state)
{
    (void)state;
    char *path = NULL;
    assert_ok(newest("c", &path));
    assert_null(path);
    make("c-000001-state", 30);
    make("c-step00000100-state", 100);
    make("c-state", 90);
    make("cc-state", 500); /* another run's */
    assert_ok(newest("c", &path));
    assert_string_equal(path, path_of("c-step00000100-state"));
    free(path);
    overwrite(path_of("c-step00000100-state/weights"), 0, "Y");
    assert_ok(newest("c", &path));
    assert_string_equal(path, path_of("c-state"));
    free(path);
    overwrite(path_of("c-state/weights"), 0, "Y");
    overwrite(path_of("c-000001-state/train_state.json"), 0, "Y");
    assert_error(newest("c", &path), DR_FORMAT, "no state to go on from is whole; damaged: 3");
    assert_null(path);
}

static void aborted_leaves_nothing(void **state)
{
    (void)state;
    dr_state_writer w;
    assert_ok(dr_state_begin(&w, path_of("d-state")));
    char *file = dr_state_file(&w, "weights");
    assert_ok(dr_file_write(file, "0", 1));
    free(file);
    dr_state_abort(&w);
    dr_strv names = {0};
    assert_ok(dr_list_dir(dr_test_tmpdir(), &names));
    for (size_t i = 0; i < names.n; i++) {
        assert_false(dr_str_starts(names.at[i], "d-state"));
    }
    dr_strv_free(&names);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damage_is_named),        cmocka_unit_test(cut_anywhere),
        cmocka_unit_test(any_bit_turned),         cmocka_unit_test(leftovers_are_swept),
        cmocka_unit_test(replaced_and_removed),   cmocka_unit_test(newest_whole_one),
        cmocka_unit_test(aborted_leaves_nothing),
    };
    return DR_TEST_MAIN("state", tests);
}
