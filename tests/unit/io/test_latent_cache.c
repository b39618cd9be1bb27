#include "dr_test.h"

#include "base/file.h"
#include "base/log.h"
#include "base/philox.h"
#include "io/latent_cache.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

enum { N = 4 * 3 * 5 };
static const dr_latent_shape shape = {4, 3, 5};
static const dr_latent_desc desc = {.image = "10_dog/b\xc3\xa4r.png",
                                    .bucket = "40x24",
                                    .crop = "0,0",
                                    .vae = "5f",
                                    .content = "0123",
                                    .kind = "latent",
                                    .dtype = "f32",
                                    .stored = DR_F32,
                                    .flip = true};

static char *fresh_dir(const char *name)
{
    return dr_path_join(dr_test_tmpdir(), name);
}

static void make_key(int i, char key[33])
{
    (void)snprintf(key, 33, "%032x", (unsigned)i * 2654435761u);
}

static void make_latent(int i, float out[N])
{
    dr_philox random;
    dr_philox_init(&random, 7, DR_RANDOM_VAE, 0, (uint64_t)i);
    dr_philox_normal(&random, out, N);
}

static void put(dr_latent_cache *c, int i)
{
    char key[33];
    float latent[N];
    make_key(i, key);
    make_latent(i, latent);
    assert_ok(dr_latent_cache_put(c, key, &desc, shape, latent));
}

static bool has(const dr_latent_cache *c, int i)
{
    char key[33];
    make_key(i, key);
    return dr_latent_cache_has(c, key);
}

static void expect(dr_latent_cache *c, int i)
{
    char key[33];
    float want[N];
    float got[N] = {0};
    make_key(i, key);
    make_latent(i, want);
    assert_ok(dr_latent_cache_get(c, key, shape, got));
    assert_memory_equal(got, want, sizeof want);
}

static dr_latent_cache *open_cache(const char *dir, dr_latent_cache_mode mode)
{
    dr_latent_cache *c = NULL;
    assert_ok(dr_latent_cache_open(&c, dir, mode));
    return c;
}

/* Entries begin .. end - 1, as one segment. */
static void fill(const char *dir, int begin, int end)
{
    dr_latent_cache *c = open_cache(dir, DR_LATENT_CACHE_WRITE);
    for (int i = begin; i < end; i++) {
        put(c, i);
    }
    assert_ok(dr_latent_cache_close(c));
}

/* The path of segment i in name order; the caller frees. */
static char *segment_path(const char *dir, size_t i, size_t n_expected)
{
    dr_strv names = {0};
    assert_ok(dr_list_dir(dir, &names));
    assert_int_equal(names.n, n_expected);
    char *path = dr_path_join(dir, names.at[i]);
    dr_strv_free(&names);
    return path;
}

static void entries_survive_reopening(void **state)
{
    (void)state;
    char *dir = fresh_dir("reopen/nested");
    dr_latent_cache *c = open_cache(dir, DR_LATENT_CACHE_WRITE);
    put(c, 1);
    expect(c, 1); /* not yet committed */
    assert_ok(dr_latent_cache_commit(c));
    expect(c, 1);
    put(c, 2);
    put(c, 1); /* there already: nothing happens */
    assert_int_equal(dr_latent_cache_count(c), 2);
    assert_ok(dr_latent_cache_close(c));
    c = open_cache(dir, DR_LATENT_CACHE_READ);
    assert_int_equal(dr_latent_cache_count(c), 2);
    expect(c, 2);
    expect(c, 1);
    assert_true(has(c, 1));
    assert_false(has(c, 3));
    assert_int_equal(dr_latent_cache_damaged_segments(c), 0);
    assert_ok(dr_latent_cache_close(c));
    free(segment_path(dir, 0, 2));
    free(dir);
}

static void empty_cache_writes_nothing(void **state)
{
    (void)state;
    char *dir = fresh_dir("empty");
    dr_latent_cache *c = open_cache(dir, DR_LATENT_CACHE_WRITE);
    assert_ok(dr_latent_cache_commit(c));
    assert_ok(dr_latent_cache_close(c));
    dr_strv names = {0};
    assert_ok(dr_list_dir(dir, &names));
    assert_int_equal(names.n, 0);
    dr_strv_free(&names);
    c = open_cache(dir, DR_LATENT_CACHE_READ);
    assert_int_equal(dr_latent_cache_count(c), 0);
    assert_ok(dr_latent_cache_close(c));
    assert_ok(dr_latent_cache_close(NULL));
    free(dir);
}

static void many_entries_and_segments(void **state)
{
    (void)state;
    enum { SEGMENTS = 70, EACH = 30 }; /* more segments than handles are kept open */
    char *dir = fresh_dir("many");
    dr_latent_cache *c = open_cache(dir, DR_LATENT_CACHE_WRITE);
    for (int i = 0; i < SEGMENTS * EACH; i++) {
        put(c, i);
        if (i % EACH == EACH - 1) {
            assert_ok(dr_latent_cache_commit(c));
        }
    }
    assert_ok(dr_latent_cache_close(c));
    c = open_cache(dir, DR_LATENT_CACHE_READ);
    assert_int_equal(dr_latent_cache_count(c), SEGMENTS * EACH);
    for (int i = 0; i < SEGMENTS * EACH; i++) {
        expect(c, i * 1009 % (SEGMENTS * EACH));
    }
    assert_ok(dr_latent_cache_close(c));
    free(dir);
}

static void large_amounts_are_committed_by_themselves(void **state)
{
    (void)state;
    char *dir = fresh_dir("auto");
    const dr_latent_shape large = {4, 512, 512};
    float *latent = calloc(4 * 512 * 512, sizeof *latent);
    dr_latent_cache *c = open_cache(dir, DR_LATENT_CACHE_WRITE);
    for (int i = 0; i < 9; i++) { /* 4 MiB each; a commit after the eighth */
        char key[33];
        make_key(i, key);
        latent[0] = (float)i;
        assert_ok(dr_latent_cache_put(c, key, &desc, large, latent));
    }
    free(segment_path(dir, 0, 1));
    assert_ok(dr_latent_cache_close(c));
    free(segment_path(dir, 1, 2));
    free(latent);
    free(dir);
}

/* A run killed while its file system lost the end of the newest segment. */
static void truncated_segment_is_completed(void **state)
{
    (void)state;
    char *dir = fresh_dir("killed");
    fill(dir, 0, 5);
    fill(dir, 5, 10);
    char *path = segment_path(dir, 1, 2);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    for (off_t size = st.st_size - 1; size >= 0; size = size / 2 - 1) {
        assert_int_equal(truncate(path, size), 0);
        dr_latent_cache *c = open_cache(dir, DR_LATENT_CACHE_READ);
        assert_int_equal(dr_latent_cache_damaged_segments(c), 1);
        assert_int_equal(dr_latent_cache_count(c), 5);
        expect(c, 4);
        assert_false(has(c, 5));
        assert_ok(dr_latent_cache_close(c));
    }
    fill(dir, 0, 10);
    dr_latent_cache *c = open_cache(dir, DR_LATENT_CACHE_READ);
    for (int i = 0; i < 10; i++) {
        expect(c, i);
    }
    assert_ok(dr_latent_cache_close(c));
    free(segment_path(dir, 2, 3));
    free(path);
    free(dir);
}

static void old_temporary_files_are_removed(void **state)
{
    (void)state;
    char *dir = fresh_dir("stale");
    fill(dir, 0, 2);
    char *old = dr_path_join(dir, "latents-00000002-00.h5.tmp.123");
    char *young = dr_path_join(dir, "latents-00000003-00.h5.tmp.124");
    assert_ok(dr_file_write(old, "x", 1));
    assert_ok(dr_file_write(young, "x", 1));
    const struct timeval long_ago[2] = {{.tv_sec = 1000000}, {.tv_sec = 1000000}};
    assert_int_equal(utimes(old, long_ago), 0);
    assert_ok(dr_latent_cache_close(open_cache(dir, DR_LATENT_CACHE_READ)));
    assert_true(dr_path_exists(old));
    assert_ok(dr_latent_cache_close(open_cache(dir, DR_LATENT_CACHE_WRITE)));
    assert_false(dr_path_exists(old));
    assert_true(dr_path_exists(young));
    free(old);
    free(young);
    free(dir);
}

static char *read_all(const char *path, size_t *n)
{
    char *bytes = NULL;
    assert_ok(dr_file_read(path, 1 << 24, &bytes, n));
    return bytes;
}

static size_t find_bytes(const char *bytes, size_t n, const void *what, size_t n_what)
{
    for (size_t i = 0; i + n_what <= n; i++) {
        if (memcmp(bytes + i, what, n_what) == 0) {
            return i;
        }
    }
    fail_msg("the latent's bytes are not in the file");
    return 0;
}

static void damaged_entry_is_replaced(void **state)
{
    (void)state;
    char *dir = fresh_dir("flipped");
    fill(dir, 0, 3);
    char *path = segment_path(dir, 0, 1);
    size_t n = 0;
    char *bytes = read_all(path, &n);
    float latent[N];
    make_latent(1, latent);
    bytes[find_bytes(bytes, n, latent, sizeof latent) + 17] ^= 4;
    assert_ok(dr_file_write(path, bytes, n));
    free(bytes);
    char key[33];
    make_key(1, key);
    dr_latent_cache *c = open_cache(dir, DR_LATENT_CACHE_WRITE);
    assert_int_equal(dr_latent_cache_damaged_segments(c), 0);
    expect(c, 0);
    assert_true(has(c, 1));
    assert_error(dr_latent_cache_get(c, key, shape, latent), DR_FORMAT, key);
    assert_non_null(strstr(dr_error_message(), path));
    assert_non_null(strstr(dr_error_message(), "is damaged: its XXH3 is"));
    assert_false(has(c, 1));
    assert_error(dr_latent_cache_get(c, key, shape, latent), DR_FORMAT, "must be encoded");
    put(c, 1);
    expect(c, 1);
    assert_ok(dr_latent_cache_close(c));
    c = open_cache(dir, DR_LATENT_CACHE_READ);
    assert_int_equal(dr_latent_cache_count(c), 3);
    expect(c, 1); /* the newer segment counts */
    assert_ok(dr_latent_cache_close(c));
    free(path);
    free(dir);
}

/* Any one flipped bit: every entry reads back right or is refused. */
static void random_damage_is_never_returned(void **state)
{
    (void)state;
    char *dir = fresh_dir("fuzzed");
    fill(dir, 0, 12);
    char *path = segment_path(dir, 0, 1);
    size_t n = 0;
    char *bytes = read_all(path, &n);
    const char *rounds = getenv("DR_FUZZ_ROUNDS");
    long n_rounds = rounds != NULL ? strtol(rounds, NULL, 10) : 200;
    int n_refused = 0;
    for (long round = 0; round < n_rounds; round++) {
        dr_philox random;
        dr_philox_init(&random, 11, DR_RANDOM_INIT, 0, (uint64_t)round);
        size_t at = dr_philox_below(&random, (uint32_t)n);
        char flip = (char)(1 << dr_philox_below(&random, 8));
        bytes[at] = (char)(bytes[at] ^ flip);
        FILE *f = fopen(path, "wb");
        assert_int_equal(fwrite(bytes, 1, n, f), n);
        assert_int_equal(fclose(f), 0);
        bytes[at] = (char)(bytes[at] ^ flip);
        dr_latent_cache *c = open_cache(dir, DR_LATENT_CACHE_READ);
        for (int i = 0; i < 12; i++) {
            char key[33];
            float got[N];
            float want[N];
            make_key(i, key);
            make_latent(i, want);
            dr_status st = dr_latent_cache_get(c, key, shape, got);
            assert_true(st == DR_OK || st == DR_FORMAT);
            n_refused += st != DR_OK;
            if (st == DR_OK) {
                assert_memory_equal(got, want, sizeof want);
            }
        }
        assert_ok(dr_latent_cache_close(c));
    }
    assert_true(n_refused > 0);
    free(bytes);
    free(path);
    free(dir);
}

static void note_desc(void *user, const dr_latent_desc *d)
{
    dr_str *out = user;
    dr_str_printf(out, "%s %s %s %s %s %s %s %s %d\n", d->image, d->content, d->bucket, d->crop,
                  d->vae, d->kind, d->dtype, dr_dtype_name(d->stored), d->flip);
}

/* Sixteen bits on disk come back as the floats they stood for; descriptions can be listed. */
static void formats_and_descriptions(void **state)
{
    (void)state;
    static const dr_dtype formats[] = {DR_F32, DR_F16, DR_BF16};
    char *dir = fresh_dir("formats");
    char key[33];
    for (int round = 0; round < 2; round++) {
        dr_latent_cache *c = open_cache(dir, DR_LATENT_CACHE_WRITE);
        for (int i = 0; i < 3; i++) {
            uint16_t half[N];
            float latent[N];
            float got[N];
            make_key(i, key);
            make_latent(i, latent);
            if (formats[i] != DR_F32) {
                dr_convert(half, formats[i], latent, DR_F32, N);
                dr_convert(latent, DR_F32, half, formats[i], N);
            }
            dr_latent_desc d = desc;
            d.stored = formats[i];
            assert_ok(dr_latent_cache_put(c, key, &d, shape, latent));
            assert_int_equal(dr_latent_cache_channels(c, key), 4);
            assert_ok(dr_latent_cache_get(c, key, shape, got));
            assert_memory_equal(got, latent, sizeof got);
        }
        make_key(9, key);
        assert_int_equal(dr_latent_cache_channels(c, key), 0);
        dr_str all = {0};
        dr_latent_cache_each(c, note_desc, &all);
        for (int i = 0; i < 3; i++) {
            char want[160];
            (void)snprintf(want, sizeof want, "%s 0123 40x24 0,0 5f latent f32 %s 1\n", desc.image,
                           dr_dtype_name(formats[i]));
            assert_non_null(strstr(dr_str_get(&all), want));
        }
        dr_str_free(&all);
        assert_ok(dr_latent_cache_close(c));
    }
    free(dir);
}

static void wrong_shape_is_refused(void **state)
{
    (void)state;
    char *dir = fresh_dir("shape");
    dr_latent_cache *c = open_cache(dir, DR_LATENT_CACHE_WRITE);
    put(c, 1);
    char key[33];
    float buf[N];
    make_key(1, key);
    const dr_latent_shape turned = {4, 5, 3};
    assert_error(dr_latent_cache_get(c, key, turned, buf), DR_FORMAT,
                 "is not f32, f16 or bf16 of shape (4,5,3)");
    put(c, 1); /* replaces it although its segment is not yet on disk */
    expect(c, 1);
    assert_panics((void)dr_latent_cache_has(c, "xyz"));
    assert_ok(dr_latent_cache_close(c));
    c = open_cache(dir, DR_LATENT_CACHE_READ);
    expect(c, 1);
    assert_panics(put(c, 2));
    assert_ok(dr_latent_cache_close(c));
    free(dir);
}

static void foreign_files_are_left_alone(void **state)
{
    (void)state;
    char *dir = fresh_dir("foreign");
    fill(dir, 0, 2);
    char *notes = dr_path_join(dir, "notes.txt");
    char *fake = dr_path_join(dir, "latents-00000009-0000000000000000.h5");
    assert_ok(dr_file_write(notes, "mine", 4));
    assert_ok(dr_file_write(fake, "not HDF5", 8));
    dr_latent_cache *c = open_cache(dir, DR_LATENT_CACHE_WRITE);
    assert_int_equal(dr_latent_cache_damaged_segments(c), 1);
    put(c, 5);
    assert_ok(dr_latent_cache_close(c));
    dr_strv names = {0};
    assert_ok(dr_list_dir(dir, &names));
    assert_int_equal(names.n, 4);
    assert_true(dr_str_starts(names.at[2], "latents-00000010-")); /* no number is used twice */
    dr_strv_free(&names);
    free(notes);
    free(fake);
    free(dir);
}

static void failed_commit_keeps_entries(void **state)
{
    (void)state;
    char *dir = fresh_dir("lost");
    dr_latent_cache *c = open_cache(dir, DR_LATENT_CACHE_WRITE);
    put(c, 1);
    assert_int_equal(rmdir(dir), 0);
    assert_error(dr_latent_cache_commit(c), DR_OUTPUT, "cannot create");
    expect(c, 1);
    assert_ok(dr_mkdirs(dir));
    assert_ok(dr_latent_cache_commit(c));
    expect(c, 1);
    assert_ok(dr_latent_cache_close(c));
    free(dir);
    assert_error(dr_latent_cache_open(&c, "/no/such/cache", DR_LATENT_CACHE_READ), DR_IO,
                 "/no/such/cache");
    assert_null(c);
    assert_error(dr_latent_cache_open(&c, "/dev/null/x", DR_LATENT_CACHE_WRITE), DR_OUTPUT,
                 "cannot create directory");
}

int main(void)
{
    dr_log_configure(DR_LOG_ERROR, 0); /* damaged files are made by the hundred */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_survive_reopening),
        cmocka_unit_test(empty_cache_writes_nothing),
        cmocka_unit_test(many_entries_and_segments),
        cmocka_unit_test(large_amounts_are_committed_by_themselves),
        cmocka_unit_test(truncated_segment_is_completed),
        cmocka_unit_test(old_temporary_files_are_removed),
        cmocka_unit_test(damaged_entry_is_replaced),
        cmocka_unit_test(random_damage_is_never_returned),
        cmocka_unit_test(formats_and_descriptions),
        cmocka_unit_test(wrong_shape_is_refused),
        cmocka_unit_test(foreign_files_are_left_alone),
        cmocka_unit_test(failed_commit_keeps_entries),
    };
    return DR_TEST_MAIN("latent_cache", tests);
}
