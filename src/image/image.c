#include "image/image.h"

#include "base/arena.h"
#include "base/file.h"
#include "image/image_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* The largest file read into memory: the samples of 16-bit RGBA at the default pixel limit. */
#define MAX_FILE_BYTES ((size_t)DR_IMAGE_MAX_PIXELS * 8)

typedef struct signature {
    size_t offset, length;
    const char *bytes;
    const char *name; /* what the file is, for the message */
} signature;

static const signature jpeg_signature = {0, 3, "\xFF\xD8\xFF", "JPEG"};
static const signature png_signature = {0, 8, "\x89PNG\r\n\x1A\n", "PNG"};

/* Files that people keep in picture folders under a picture's name. */
static const signature foreign[] = {
    {8, 4, "WEBP", "a WebP picture"},
    {0, 4, "GIF8", "a GIF picture"},
    {0, 2, "BM", "a BMP picture"},
    {4, 8, "ftypavif", "an AVIF picture"},
    {4, 8, "ftypavis", "an AVIF picture"},
    {4, 6, "ftyphe", "a HEIC picture (an iPhone photo)"},
    {4, 8, "ftypmif1", "a HEIC or AVIF picture"},
    {4, 8, "ftypmsf1", "a HEIC picture"},
    {0, 4, "II*\0", "a TIFF picture or a camera's raw file"},
    {0, 4, "MM\0*", "a TIFF picture or a camera's raw file"},
    {0, 12, "\0\0\0\x0CJXL \r\n\x87\n", "a JPEG XL picture"},
    {0, 2, "\xFF\x0A", "a JPEG XL picture"},
    {4, 4, "jP  ", "a JPEG 2000 picture"},
    {0, 4, "8BPS", "a Photoshop document"},
    {0, 4, "%PDF", "a PDF document"},
    {0, 2, "PK", "a ZIP archive"},
    {0, 2, "\x1F\x8B", "a gzip archive"},
    {0, 5, "<?xml", "an XML or SVG text"},
    {0, 4, "<svg", "an SVG text"},
    {0, 5, "<html", "an HTML page (a failed download?)"},
    {0, 9, "<!DOCTYPE", "an HTML page (a failed download?)"},
    {0, 9, "<!doctype", "an HTML page (a failed download?)"},
    {0, 23, "version https://git-lfs", "a Git LFS pointer (run git lfs pull)"},
};

static bool has_signature(const dr_image_bytes *in, const signature *s)
{
    return in->size >= s->offset + s->length &&
           memcmp(in->data + s->offset, s->bytes, s->length) == 0;
}

const char *dr_image_format_name(dr_image_format format)
{
    return format == DR_IMAGE_JPEG ? "JPEG" : "PNG";
}

dr_status dr_image_alloc(dr_image *img, int width, int height)
{
    DR_CHECK(width >= 1 && height >= 1, "image of %d x %d", width, height);
    void *pixels = NULL;
    size_t row = (size_t)width * 3;
    DR_TRY(dr_try_calloc((size_t)height, row, &pixels));
    *img = (dr_image){
        .width = width, .height = height, .channels = 3, .pixels = pixels, .owned = true};
    return DR_OK;
}

void dr_image_free(dr_image *img)
{
    if (img->owned) {
        free(img->pixels);
    }
    *img = (dr_image){0};
}

static dr_status refuse_content(const dr_image_bytes *in)
{
    const char *what = NULL;
    bool zeros = true;
    for (size_t i = 0; i < in->size && i < 64; i++) {
        zeros = zeros && in->data[i] == 0;
    }
    for (size_t i = 0; i < sizeof foreign / sizeof foreign[0] && what == NULL; i++) {
        what = has_signature(in, &foreign[i]) ? foreign[i].name : NULL;
    }
    if (what != NULL) {
        DR_FAIL(DR_FORMAT,
                "%s: the content is %s, whatever the name says; this program reads JPEG and PNG: "
                "save it as PNG or JPEG, or move it out of the folder",
                in->path, what);
    }
    if (zeros) {
        DR_FAIL(DR_FORMAT, "%s: %zu bytes that begin with zeros, no picture (a full disk?); %s",
                in->path, in->size, DR_IMAGE_RESAVE);
    }
    DR_FAIL(DR_FORMAT,
            "%s: neither JPEG nor PNG (%zu bytes, beginning with %02X %02X %02X %02X); save it as "
            "PNG or JPEG, or move it out of the folder",
            in->path, in->size, in->data[0], in->size > 1 ? in->data[1] : 0u,
            in->size > 2 ? in->data[2] : 0u, in->size > 3 ? in->data[3] : 0u);
}

static dr_status probe_bytes(const dr_image_bytes *in, dr_image_info *info)
{
    if (has_signature(in, &jpeg_signature)) {
        DR_TRY(dr_jpeg_probe(in, info));
    } else if (has_signature(in, &png_signature)) {
        DR_TRY(dr_png_probe(in, info));
    } else {
        DR_TRY(refuse_content(in));
    }
    if (info->width < 1 || info->height < 1) {
        DR_FAIL(DR_FORMAT, "%s: %s header says %d x %d pixels, both must be at least 1; %s",
                in->path, dr_image_format_name(info->format), info->width, info->height,
                DR_IMAGE_RESAVE);
    }
    return DR_OK;
}

/* Directories, pipes and missing files get their own words, before anything could block. */
static dr_status check_regular(const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        DR_FAIL(DR_IO, "%s: cannot open: %s", path, strerror(errno));
    }
    if (!S_ISREG(st.st_mode)) {
        DR_FAIL(DR_FORMAT, "%s: is %s, expected a JPEG or PNG file", path,
                S_ISDIR(st.st_mode) ? "a directory" : "not a regular file");
    }
    if (st.st_size == 0) {
        DR_FAIL(DR_FORMAT, "%s: the file is empty (0 bytes); %s", path, DR_IMAGE_RESAVE);
    }
    return DR_OK;
}

dr_status dr_image_probe(const char *path, int *width, int *height, dr_image_format *format)
{
    DR_TRY(check_regular(path));
    dr_map map;
    DR_TRY(dr_map_open(&map, path));
    dr_image_info info = {0};
    dr_status st =
        probe_bytes(&(dr_image_bytes){.path = path, .data = map.data, .size = map.size}, &info);
    dr_map_close(&map);
    DR_TRY(st);
    if (width != NULL) {
        *width = info.width;
    }
    if (height != NULL) {
        *height = info.height;
    }
    if (format != NULL) {
        *format = info.format;
    }
    return DR_OK;
}

static dr_status decode_bytes(const dr_image_bytes *in, uint64_t max_pixels, dr_image *out)
{
    dr_image_info info = {0};
    DR_TRY(probe_bytes(in, &info));
    uint64_t n_pixels = (uint64_t)info.width * (uint64_t)info.height;
    if (n_pixels > max_pixels) {
        DR_FAIL(DR_FORMAT,
                "%s: the %s header says %d x %d = %llu pixels, more than the limit of %llu; if it "
                "is a real picture, scale it down",
                in->path, dr_image_format_name(info.format), info.width, info.height,
                (unsigned long long)n_pixels, (unsigned long long)max_pixels);
    }
    return info.format == DR_IMAGE_JPEG ? dr_jpeg_decode(in, &info, out)
                                        : dr_png_decode(in, &info, out);
}

dr_status dr_image_load(const char *path, const dr_image_limits *limits, dr_image *out)
{
    *out = (dr_image){0};
    DR_TRY(check_regular(path));
    char *data = NULL;
    size_t size = 0;
    DR_TRY(dr_file_read(path, MAX_FILE_BYTES, &data, &size));
    dr_status st = DR_OK;
    if (size == 0) {
        st = dr_error_set(DR_FORMAT, __FILE__, __LINE__, "%s: the file became empty while reading",
                          path);
    } else {
        const dr_image_bytes in = {.path = path, .data = (const unsigned char *)data, .size = size};
        st = decode_bytes(&in, limits != NULL ? limits->max_pixels : DR_IMAGE_MAX_PIXELS, out);
    }
    free(data);
    if (st != DR_OK) {
        dr_image_free(out);
    }
    return st;
}
