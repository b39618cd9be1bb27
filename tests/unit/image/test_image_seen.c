/* What dr_image_load does beyond Pillow's convert("RGB"): orientation, alpha, 16 bits; and the
 * JPEGs that no peer can write. tests/interop/image_peers.py compares all of it with the peers. */
#include "dr_test.h"

#include "base/file.h"
#include "image/image.h"
#include "image_fnv.h"
#include "image_vectors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#define N_OF(name) sizeof name

static char *write_tmp(const char *name, const void *data, size_t n)
{
    char *path = dr_path_join(dr_test_tmpdir(), name);
    assert_ok(dr_file_write(path, data, n));
    return path;
}

static dr_image decode(const void *data, size_t n, const dr_image_options *o)
{
    dr_image img;
    assert_ok(dr_image_decode("case", data, n, o, &img));
    return img;
}

static void exif_turns_the_picture_upright(void **state)
{
    (void)state;
    const dr_image_options stored = {.max_pixels = 10000, .as_pillow = true};
    dr_image as_stored = decode(jpeg_exif_rotated, N_OF(jpeg_exif_rotated), &stored);
    dr_image upright = decode(jpeg_exif_rotated, N_OF(jpeg_exif_rotated), NULL);
    assert_int_equal(upright.width, as_stored.height);
    assert_int_equal(upright.height, as_stored.width);
    for (int y = 0; y < upright.height; y++) { /* 6: a quarter turn to the right */
        for (int x = 0; x < upright.width; x++) {
            const unsigned char *got = upright.pixels + (y * upright.width + x) * 3;
            const unsigned char *want =
                as_stored.pixels + ((as_stored.height - 1 - x) * as_stored.width + y) * 3;
            assert_memory_equal(got, want, 3);
        }
    }
    dr_image_free(&as_stored);
    dr_image_free(&upright);
}

static void transparent_pixels_show_the_background(void **state)
{
    (void)state;
    dr_image_options o = dr_image_defaults;
    const char *const colours[] = {"white", "black", "gray", "#0aF07b"};
    const unsigned char want[][3] = {{255, 255, 255}, {0, 0, 0}, {128, 128, 128}, {10, 240, 123}};
    for (size_t i = 0; i < 4; i++) {
        assert_ok(dr_alpha_color_parse(colours[i], &o));
        dr_image_options keep = o;
        keep.keep_hidden = true;
        unsigned char *alpha = NULL;
        char *path = write_tmp("alpha.png", png_rgba8, N_OF(png_rgba8));
        dr_image hidden;
        assert_ok(dr_image_load_alpha(path, &keep, &hidden, &alpha));
        dr_image img = decode(png_rgba8, N_OF(png_rgba8), &o);
        for (int k = 0; k < img.width * img.height * 3; k++) {
            int a = alpha[k / 3];
            int mixed = hidden.pixels[k] * a + want[i][k % 3] * (255 - a);
            assert_int_equal(img.pixels[k], (2 * mixed + 255) / 510);
        }
        free(alpha);
        free(path);
        dr_image_free(&img);
        dr_image_free(&hidden);
    }
    assert_error(dr_alpha_color_parse("#12345", &o), DR_INVALID, "no colour");
    assert_error(dr_alpha_color_parse("#12345g", &o), DR_INVALID, "no colour");
    assert_error(dr_alpha_color_parse("", &o), DR_INVALID, "#RRGGBB");
}

/* The same coefficients in arithmetic coding. */
static size_t to_arithmetic(const unsigned char *data, size_t n, unsigned char **out)
{
    struct jpeg_error_mgr errors;
    struct jpeg_decompress_struct in = {.err = jpeg_std_error(&errors)};
    struct jpeg_compress_struct to = {.err = &errors};
    unsigned long size = 0;
    jpeg_create_decompress(&in);
    jpeg_create_compress(&to);
    jpeg_mem_src(&in, data, n);
    (void)jpeg_read_header(&in, TRUE);
    jvirt_barray_ptr *coefficients = jpeg_read_coefficients(&in);
    jpeg_copy_critical_parameters(&in, &to);
    *out = NULL;
    jpeg_mem_dest(&to, out, &size);
    to.arith_code = TRUE;
    if (in.progressive_mode) {
        jpeg_simple_progression(&to);
    }
    jpeg_write_coefficients(&to, coefficients);
    jpeg_finish_compress(&to);
    (void)jpeg_finish_decompress(&in);
    jpeg_destroy_compress(&to);
    jpeg_destroy_decompress(&in);
    return size;
}

static void arithmetic_coding_gives_the_same_pixels(void **state)
{
    (void)state;
    const struct {
        const unsigned char *data;
        size_t n;
    } files[] = {{jpeg_444, N_OF(jpeg_444)},
                 {jpeg_420, N_OF(jpeg_420)},
                 {jpeg_420_progressive, N_OF(jpeg_420_progressive)},
                 {jpeg_gray, N_OF(jpeg_gray)}};
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        unsigned char *arithmetic = NULL;
        size_t n = to_arithmetic(files[i].data, files[i].n, &arithmetic);
        dr_image want = decode(files[i].data, files[i].n, NULL);
        dr_image got = decode(arithmetic, n, NULL);
        assert_int_equal(got.width, want.width);
        assert_memory_equal(got.pixels, want.pixels, (size_t)want.width * (size_t)want.height * 3);
        dr_image_free(&got);
        for (size_t cut = n / 2; cut < n; cut += 7) {
            assert_error(dr_image_decode("cut", arithmetic, cut, NULL, &got), DR_FORMAT, "cut: ");
        }
        dr_image_free(&want);
        free(arithmetic);
    }
}

static void sixteen_bits_are_rounded_and_alpha_is_given(void **state)
{
    (void)state;
    unsigned char *alpha = NULL;
    dr_image img;
    char *path = write_tmp("deep.png", png_rgba16, N_OF(png_rgba16));
    const dr_image_options keep = {.max_pixels = 1000, .keep_hidden = true};
    const dr_image_options pillow = {.max_pixels = 1000, .as_pillow = true};
    assert_ok(dr_image_load_alpha(path, &keep, &img, &alpha));
    assert_non_null(alpha);
    dr_image high = decode(png_rgba16, N_OF(png_rgba16), &pillow);
    int rounded_up = 0;
    for (int i = 0; i < img.width * img.height * 3; i++) {
        int d = img.pixels[i] - high.pixels[i]; /* v / 257 rounded against v / 256 cut */
        assert_in_range(d + 1, 0, 2);
        rounded_up += d != 0;
    }
    assert_true(rounded_up > 0);
    free(alpha);
    free(path);
    dr_image_free(&img);
    dr_image_free(&high);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exif_turns_the_picture_upright),
        cmocka_unit_test(transparent_pixels_show_the_background),
        cmocka_unit_test(arithmetic_coding_gives_the_same_pixels),
        cmocka_unit_test(sixteen_bits_are_rounded_and_alpha_is_given),
    };
    return DR_TEST_MAIN("image_seen", tests);
}
