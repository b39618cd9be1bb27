#include "dr_test.h"

#include "base/file.h"
#include "image/image.h"
#include "image_fnv.h"
#include "image_vectors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char *path_in_tmp(const char *name)
{
    return dr_path_join(dr_test_tmpdir(), name);
}

static char *write_tmp(const char *name, const void *data, size_t n)
{
    char *path = path_in_tmp(name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    return path;
}

typedef struct decode_case {
    const char *name;
    const unsigned char *data;
    size_t size;
    int width, height;
    uint64_t fnv;
} decode_case;

#define DECODE_CASE(name, w, h, fnv) {#name, name, sizeof name, w, h, UINT64_C(fnv)},
static const decode_case cases[] = {DECODE_CASES};
#undef DECODE_CASE
#define N_CASES (sizeof cases / sizeof cases[0])

static const dr_image_options as_pillow = {.max_pixels = DR_IMAGE_MAX_PIXELS, .as_pillow = true};

static dr_image_format format_of(const char *name)
{
    return strncmp(name, "png", 3) == 0    ? DR_IMAGE_PNG
           : strncmp(name, "webp", 4) == 0 ? DR_IMAGE_WEBP
           : strncmp(name, "bmp", 3) == 0  ? DR_IMAGE_BMP
                                           : DR_IMAGE_JPEG;
}

static void decoded_pixels_equal_pillow(void **state)
{
    (void)state;
    int failed = 0;
    for (size_t i = 0; i < N_CASES; i++) {
        const decode_case *c = &cases[i];
        char *path = write_tmp("case", c->data, c->size); /* no extension: content decides */
        int width = 0;
        int height = 0;
        dr_image_format format = DR_IMAGE_PNG;
        assert_ok(dr_image_probe(path, &as_pillow, &width, &height, &format));
        assert_int_equal(width, c->width);
        assert_int_equal(height, c->height);
        assert_int_equal(format, format_of(c->name));
        dr_image img;
        assert_ok(dr_image_load(path, &as_pillow, &img));
        assert_int_equal(img.width, c->width);
        assert_int_equal(img.height, c->height);
        if (fnv1a(img.pixels, (size_t)img.width * (size_t)img.height * 3) != c->fnv) {
            print_error("%s differs from Pillow\n", c->name);
            failed++;
        }
        dr_image_free(&img);
        free(path);
    }
    assert_int_equal(failed, 0);
}

static void every_truncation_is_refused_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        const decode_case *c = &cases[i];
        /* the end mark of run-length BMPs says nothing that the last pixel did not say */
        size_t whole = c->size - (strncmp(c->name, "bmp_rle", 7) == 0 ? 2 : 0);
        for (size_t n = 1; n < whole; n += n < c->size - 40 ? 13 : 1) {
            char *path = write_tmp("cut.jpg", c->data, n);
            dr_image img;
            dr_status st = dr_image_load(path, NULL, &img);
            if (st != DR_FORMAT) {
                print_error("%s cut to %zu of %zu bytes: %s\n", c->name, n, c->size,
                            dr_status_name(st));
            }
            assert_int_equal(st, DR_FORMAT);
            assert_non_null(strstr(dr_error_message(), path));
            assert_null(img.pixels);
            free(path);
        }
    }
}

static void flipped_png_bytes_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        const decode_case *c = &cases[i];
        if (strncmp(c->name, "png", 3) != 0) {
            continue;
        }
        unsigned char *copy = calloc(c->size, 1);
        for (size_t at = 12; at < c->size; at += 5) { /* all of it lies under some CRC */
            memcpy(copy, c->data, c->size);
            copy[at] ^= 0x10;
            char *path = write_tmp("flip.png", copy, c->size);
            dr_image img;
            assert_int_equal(dr_image_load(path, NULL, &img), DR_FORMAT);
            free(path);
        }
        free(copy);
    }
}

static void damaged_jpegs_never_crash(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_CASES; i++) {
        const decode_case *c = &cases[i];
        if (strncmp(c->name, "jpeg", 4) != 0) {
            continue;
        }
        unsigned char *copy = calloc(c->size, 1);
        for (size_t at = 2; at < c->size; at += 3) {
            memcpy(copy, c->data, c->size);
            copy[at] ^= 0xA5;
            char *path = write_tmp("flip.jpg", copy, c->size);
            dr_image img;
            dr_status st = dr_image_load(path, NULL, &img);
            assert_true(st == DR_OK || st == DR_FORMAT || st == DR_NOMEM);
            dr_image_free(&img);
            free(path);
        }
        free(copy);
    }
}

static const decode_case *find_case(const char *name)
{
    for (size_t i = 0; i < N_CASES; i++) {
        if (strcmp(cases[i].name, name) == 0) {
            return &cases[i];
        }
    }
    fail_msg("no case %s", name);
    return NULL;
}

static void lost_entropy_data_is_an_error_not_gray(void **state)
{
    (void)state;
    const decode_case *c = find_case("jpeg_444");
    unsigned char *copy = calloc(c->size, 1);
    memcpy(copy, c->data, c->size);
    copy[c->size - 30] = 0xFF; /* an end-of-image marker in the middle of the data */
    copy[c->size - 29] = 0xD9;
    char *path = write_tmp("early_end.jpg", copy, c->size);
    dr_image img;
    assert_error(dr_image_load(path, NULL, &img), DR_FORMAT, "damaged or truncated JPEG");
    assert_non_null(strstr(dr_error_message(), "early_end.jpg"));
    assert_non_null(strstr(dr_error_message(), "save it anew"));
    free(path);
    free(copy);
}

static void harmless_bytes_between_segments_are_accepted(void **state)
{
    (void)state;
    const decode_case *c = find_case("jpeg_420");
    unsigned char *copy = calloc(c->size + 4, 1);
    memcpy(copy, c->data, c->size - 2);
    memcpy(copy + c->size - 2, "\0\0\0\0\xFF\xD9", 6); /* cameras pad before the end marker */
    char *path = write_tmp("padded.jpg", copy, c->size + 4);
    dr_image img;
    assert_ok(dr_image_load(path, NULL, &img));
    assert_true(fnv1a(img.pixels, (size_t)img.width * (size_t)img.height * 3) == c->fnv);
    dr_image_free(&img);
    free(path);
    free(copy);
}

/* Index of the n-th segment that begins with FF marker, n counted from 0. */
static size_t find_marker(const decode_case *c, unsigned char marker, int n)
{
    for (size_t i = 0; i + 1 < c->size; i++) {
        if (c->data[i] == 0xFF && c->data[i + 1] == marker && n-- == 0) {
            return i;
        }
    }
    fail_msg("%s has no such marker %02X", c->name, marker);
    return 0;
}

static void endless_progressive_scans_are_refused(void **state)
{
    (void)state;
    const decode_case *c = find_case("jpeg_gray_progressive");
    size_t begin = find_marker(c, 0xC4, 1); /* tables and data of the second scan: AC 1 to 5 */
    size_t end = find_marker(c, 0xC4, 2);
    size_t bits = find_marker(c, 0xDA, 1) + 9 - begin; /* its Ah and Al */
    assert_true(begin + bits < end && c->data[begin + bits] == 0x02);
    const size_t n = end - begin;
    const size_t copies = 600;
    unsigned char *data = calloc(c->size + n * copies, 1);
    memcpy(data, c->data, c->size - 2);
    unsigned char *to = data + c->size - 2;
    for (size_t i = 0; i < copies; i++, to += n) {
        memcpy(to, c->data + begin, n);
        to[bits] = 0x00; /* full precision: a scan that may come again and again */
    }
    memcpy(to, "\xFF\xD9", 2);
    char *path = write_tmp("scans.jpg", data, c->size + n * copies);
    dr_image img;
    assert_error(dr_image_load(path, NULL, &img), DR_FORMAT, "more than 500 scans");
    free(path);
    free(data);
}

static void jpegs_of_odd_kinds_are_refused(void **state)
{
    (void)state;
    const decode_case *c = find_case("jpeg_444");
    unsigned char copy[2048];
    memcpy(copy, c->data, c->size);
    copy[find_marker(c, 0xC0, 0) + 4] = 12;
    char *path = write_tmp("bits12.jpg", copy, c->size);
    dr_image img;
    assert_error(dr_image_load(path, NULL, &img), DR_FORMAT, "precision 12");
    free(path);
    const unsigned char two[] = {0xFF, 0xD8, 0xFF, 0xC0, 0, 14,   8,  0,    5,    0,   7,
                                 2,    1,    0x11, 0,    2, 0x11, 0,  0xFF, 0xDA, 0,   10,
                                 2,    1,    0,    2,    0, 0,    63, 0,    0xFF, 0xD9};
    path = write_tmp("two.jpg", two, sizeof two);
    assert_error(dr_image_load(path, NULL, &img), DR_FORMAT, "2 colour components");
    free(path);
    const unsigned char no_frame[] = {0xFF, 0xD8, 0xFF, 0xDA, 0, 8, 1, 1, 0, 0, 63, 0, 0xFF, 0xD9};
    path = write_tmp("no_frame.jpg", no_frame, sizeof no_frame);
    assert_error(dr_image_load(path, NULL, &img), DR_FORMAT, "no frame header");
    free(path);
}

static void bombs_are_refused_before_memory_is_taken(void **state)
{
    (void)state;
    const decode_case *png = find_case("png_rgb8");
    unsigned char copy[1024];
    memcpy(copy, png->data, png->size);
    memcpy(copy + 16, "\x7F\xFF\xFF\xFF\x7F\xFF\xFF\xFF", 8);
    char *path = write_tmp("bomb.png", copy, png->size);
    dr_image img;
    assert_error(dr_image_load(path, NULL, &img), DR_FORMAT, "more than the limit of 178956970");
    free(path);
    const decode_case *jpeg = find_case("jpeg_420");
    path = write_tmp("small.jpg", jpeg->data, jpeg->size);
    uint64_t n = (uint64_t)jpeg->width * (uint64_t)jpeg->height;
    const dr_image_options below = {.max_pixels = n - 1};
    assert_error(dr_image_load(path, &below, &img), DR_FORMAT, "more than the limit");
    const dr_image_options exact = {.max_pixels = n};
    assert_ok(dr_image_load(path, &exact, &img));
    dr_image_free(&img);
    free(path);
}

static void zero_sizes_are_refused(void **state)
{
    (void)state;
    const decode_case *png = find_case("png_rgb8");
    unsigned char copy[1024];
    memcpy(copy, png->data, png->size);
    memset(copy + 16, 0, 4);
    char *path = write_tmp("zero.png", copy, png->size);
    dr_image img;
    int w = 0;
    assert_error(dr_image_load(path, NULL, &img), DR_FORMAT, "0 x 5 pixels");
    assert_error(dr_image_probe(path, NULL, &w, NULL, NULL), DR_FORMAT, "must be at least 1");
    free(path);
    const unsigned char jpeg[] = {0xFF, 0xD8, 0xFF, 0xC0, 0, 17, 8, 0, 0, 0, 5, 3, 1, 0x22, 0};
    path = write_tmp("zero.jpg", jpeg, sizeof jpeg);
    assert_error(dr_image_load(path, NULL, &img), DR_FORMAT, "5 x 0 pixels");
    free(path);
}

static void wrong_files_are_named_for_what_they_are(void **state)
{
    (void)state;
    const struct {
        const char *name, *data;
        size_t size;
        const char *text;
    } files[] = {
        {"a.jpg", "RIFF\x10\0\0\0WEBPVP8 ", 16, "truncated WebP"},
        {"a.png", "GIF89a\1\0\1\0", 10, "a GIF picture"},
        {"b.png", "BM\x36\0\0\0", 6, "truncated BMP"},
        {"b.jpg",
         "\0\0\0\x18"
         "ftypheic",
         12, "HEIC"},
        {"c.jpg",
         "\0\0\0\x18"
         "ftypavif",
         12, "AVIF"},
        {"c.png", "<!DOCTYPE html>", 15, "an HTML page"},
        {"d.png", "\0\0\0\0\0\0\0\0", 8, "begin with zeros"},
        {"e.png", "hello", 5, "neither JPEG, PNG, WebP nor BMP (5 bytes"},
        {"f.png", "x", 1, "neither JPEG, PNG, WebP nor BMP"},
        {"g.jpg", "\xFF\xD8\xFF", 3, "truncated JPEG"},
        {"h.png", "\x89PNG\r\n\x1A\n", 8, "truncated PNG"},
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        char *path = write_tmp(files[i].name, files[i].data, files[i].size);
        dr_image img;
        int w = 0;
        assert_error(dr_image_load(path, NULL, &img), DR_FORMAT, files[i].text);
        assert_non_null(strstr(dr_error_message(), path));
        assert_error(dr_image_probe(path, NULL, &w, NULL, NULL), DR_FORMAT, files[i].text);
        free(path);
    }
}

static void missing_empty_unreadable_and_directories(void **state)
{
    (void)state;
    dr_image img;
    int w = 0;
    char *path = path_in_tmp("missing.png");
    assert_error(dr_image_load(path, NULL, &img), DR_IO, "No such file");
    assert_error(dr_image_probe(path, NULL, &w, NULL, NULL), DR_IO, "No such file");
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_error(dr_image_load(path, NULL, &img), DR_FORMAT, "not a regular file");
    free(path);
    assert_error(dr_image_load(dr_test_tmpdir(), NULL, &img), DR_FORMAT, "is a directory");
    path = write_tmp("empty.jpg", "", 0);
    assert_error(dr_image_load(path, NULL, &img), DR_FORMAT, "the file is empty");
    assert_error(dr_image_probe(path, NULL, &w, NULL, NULL), DR_FORMAT, "the file is empty");
    free(path);
    if (geteuid() != 0) { /* root reads everything */
        path = write_tmp("locked.jpg", "x", 1);
        assert_int_equal(chmod(path, 0), 0);
        assert_error(dr_image_load(path, NULL, &img), DR_IO, "Permission denied");
        free(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decoded_pixels_equal_pillow),
        cmocka_unit_test(every_truncation_is_refused_by_name),
        cmocka_unit_test(flipped_png_bytes_are_refused),
        cmocka_unit_test(damaged_jpegs_never_crash),
        cmocka_unit_test(lost_entropy_data_is_an_error_not_gray),
        cmocka_unit_test(harmless_bytes_between_segments_are_accepted),
        cmocka_unit_test(endless_progressive_scans_are_refused),
        cmocka_unit_test(jpegs_of_odd_kinds_are_refused),
        cmocka_unit_test(bombs_are_refused_before_memory_is_taken),
        cmocka_unit_test(zero_sizes_are_refused),
        cmocka_unit_test(wrong_files_are_named_for_what_they_are),
        cmocka_unit_test(missing_empty_unreadable_and_directories),
    };
    return DR_TEST_MAIN("image", tests);
}
