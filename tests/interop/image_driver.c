/*
 * The image layer from the command line, for tests/interop/image_peers.py:
 *
 *   image_driver probe IN                     prints "FORMAT WIDTH HEIGHT"
 *   image_driver decode IN OUT.png [sd-scripts | ALPHA_COLOR]
 *   image_driver resize IN WIDTH HEIGHT FILTER OUT.png
 *   image_driver time IN WIDTH HEIGHT FILTER      prints decode and resize milliseconds
 *
 * Exit code: that of the status (docs/errors.md).
 */
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "image/image.h"
#include "image/png_write.h"
#include "image/resize.h"

#include <stdio.h>
#include <string.h>

static dr_status probe(const char *path)
{
    int width = 0;
    int height = 0;
    dr_image_format format = DR_IMAGE_PNG;
    DR_TRY(dr_image_probe(path, NULL, &width, &height, &format));
    printf("%s %d %d\n", dr_image_format_name(format), width, height);
    return DR_OK;
}

static dr_status resize_as(const dr_image *src, char **size, const char *filter, dr_image *dst)
{
    int64_t width = 0;
    int64_t height = 0;
    if (!dr_parse_i64(size[0], &width) || !dr_parse_i64(size[1], &height) || width < 1 ||
        height < 1 || width > 65535 || height > 65535) {
        DR_FAIL(DR_INVALID, "size '%s' '%s', expected two numbers of 1 to 65535", size[0], size[1]);
    }
    dr_resize_filter which = DR_RESIZE_AUTO;
    if (!dr_resize_filter_parse(filter, &which)) {
        DR_FAIL(DR_INVALID, "filter '%s'", filter);
    }
    return dr_image_resize(src, (int)width, (int)height, which, dst);
}

static dr_status decode(const char *in, const char *out, const char *how)
{
    dr_image img;
    dr_image_options o = dr_image_defaults;
    o.as_pillow = how != NULL && strcmp(how, "sd-scripts") == 0;
    if (how != NULL && !o.as_pillow) {
        DR_TRY(dr_alpha_color_parse(how, &o));
    }
    DR_TRY(dr_image_load(in, &o, &img));
    dr_status st = dr_png_write(out, &img, NULL, 0);
    dr_image_free(&img);
    return st;
}

/* out NULL: print the times instead of writing the picture. */
static dr_status resize(const char *in, char **size, const char *filter, const char *out)
{
    dr_image src;
    dr_image dst = {0};
    double start = dr_now_s();
    DR_TRY(dr_image_load(in, NULL, &src));
    double loaded = dr_now_s();
    dr_status st = resize_as(&src, size, filter, &dst);
    double done = dr_now_s();
    if (st == DR_OK && out != NULL) {
        st = dr_png_write(out, &dst, NULL, 0);
    } else if (st == DR_OK) {
        printf("decode_ms %.2f resize_ms %.2f\n", (loaded - start) * 1e3, (done - loaded) * 1e3);
    }
    dr_image_free(&src);
    dr_image_free(&dst);
    return st;
}

static dr_status run(int argc, char **argv)
{
    const char *command = argc > 1 ? argv[1] : "";
    if (argc == 3 && strcmp(command, "probe") == 0) {
        return probe(argv[2]);
    }
    if ((argc == 4 || argc == 5) && strcmp(command, "decode") == 0) {
        return decode(argv[2], argv[3], argc == 5 ? argv[4] : NULL);
    }
    if (argc == 7 && strcmp(command, "resize") == 0) {
        return resize(argv[2], argv + 3, argv[5], argv[6]);
    }
    if (argc == 6 && strcmp(command, "time") == 0) {
        return resize(argv[2], argv + 3, argv[5], NULL);
    }
    DR_FAIL(DR_INVALID, "wrong arguments; see the head of tests/interop/image_driver.c");
}

int main(int argc, char **argv)
{
    dr_status st = run(argc, argv);
    if (st != DR_OK) {
        dr_log_error_record();
    }
    return dr_status_exit_code(st);
}
