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

typedef struct decoder {
    signature begins;
    dr_status (*probe)(const dr_image_bytes *in, dr_image_info *info);
    dr_status (*decode)(const dr_image_bytes *in, const dr_image_info *info, dr_raster *out);
} decoder;

static const decoder decoders[DR_IMAGE_FORMATS] = {
    [DR_IMAGE_JPEG] = {{0, 3, "\xFF\xD8\xFF", "JPEG"}, dr_jpeg_probe, dr_jpeg_decode},
    [DR_IMAGE_PNG] = {{0, 8, "\x89PNG\r\n\x1A\n", "PNG"}, dr_png_probe, dr_png_decode},
    [DR_IMAGE_WEBP] = {{8, 4, "WEBP", "WebP"}, dr_webp_probe, dr_webp_decode},
    [DR_IMAGE_BMP] = {{0, 2, "BM", "BMP"}, dr_bmp_probe, dr_bmp_decode},
};

const dr_image_options dr_image_defaults = {.max_pixels = DR_IMAGE_MAX_PIXELS,
                                            .background = {255, 255, 255}};

/* Files that people keep in picture folders under a picture's name. */
static const signature foreign[] = {
    {0, 4, "GIF8", "a GIF picture"},
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
    DR_CHECK(format >= 0 && format < DR_IMAGE_FORMATS, "format %d", (int)format);
    return decoders[format].begins.name;
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
                "%s: the content is %s, whatever the name says; this program reads JPEG, PNG, WebP "
                "and BMP: "
                "save it as PNG or JPEG, or move it out of the folder",
                in->path, what);
    }
    if (zeros) {
        DR_FAIL(DR_FORMAT, "%s: %zu bytes that begin with zeros, no picture (a full disk?); %s",
                in->path, in->size, DR_IMAGE_RESAVE);
    }
    DR_FAIL(DR_FORMAT,
            "%s: neither JPEG, PNG, WebP nor BMP (%zu bytes, beginning with %02X %02X %02X %02X); "
            "save it as "
            "PNG or JPEG, or move it out of the folder",
            in->path, in->size, in->data[0], in->size > 1 ? in->data[1] : 0u,
            in->size > 2 ? in->data[2] : 0u, in->size > 3 ? in->data[3] : 0u);
}

static dr_status probe_bytes(const dr_image_bytes *in, dr_image_info *info)
{
    size_t i = 0;
    while (i < DR_IMAGE_FORMATS && !has_signature(in, &decoders[i].begins)) {
        i++;
    }
    if (i == DR_IMAGE_FORMATS) {
        return refuse_content(in);
    }
    DR_TRY(decoders[i].probe(in, info));
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
        DR_FAIL(DR_FORMAT, "%s: is %s, expected a picture file", path,
                S_ISDIR(st.st_mode) ? "a directory" : "not a regular file");
    }
    if (st.st_size == 0) {
        DR_FAIL(DR_FORMAT, "%s: the file is empty (0 bytes); %s", path, DR_IMAGE_RESAVE);
    }
    return DR_OK;
}

dr_status dr_image_probe(const char *path, const dr_image_options *o, int *width, int *height,
                         dr_image_format *format)
{
    DR_TRY(check_regular(path));
    dr_map map;
    DR_TRY(dr_map_open(&map, path));
    dr_image_info info = {0};
    dr_status st =
        probe_bytes(&(dr_image_bytes){.path = path, .data = map.data, .size = map.size}, &info);
    dr_map_close(&map);
    DR_TRY(st);
    bool swap = info.orientation >= 5 && !(o != NULL && o->as_pillow);
    if (width != NULL) {
        *width = swap ? info.height : info.width;
    }
    if (height != NULL) {
        *height = swap ? info.width : info.height;
    }
    if (format != NULL) {
        *format = info.format;
    }
    return DR_OK;
}

static dr_status decode_bytes(const dr_image_bytes *in, const dr_image_options *o, dr_image *out,
                              unsigned char **alpha)
{
    dr_image_info info = {0};
    o = o != NULL ? o : &dr_image_defaults;
    DR_TRY(probe_bytes(in, &info));
    uint64_t n_pixels = (uint64_t)info.width * (uint64_t)info.height;
    uint64_t most = o->max_pixels;
    if (n_pixels > most) {
        DR_FAIL(DR_FORMAT,
                "%s: the %s header says %d x %d = %llu pixels, more than the limit of %llu; if it "
                "is a real picture, scale it down",
                in->path, dr_image_format_name(info.format), info.width, info.height,
                (unsigned long long)n_pixels, (unsigned long long)most);
    }
    dr_raster raster = {0};
    dr_status st = decoders[info.format].decode(in, &info, &raster);
    if (st == DR_OK) {
        st = dr_raster_finish(&raster, info.orientation, o, out, alpha);
    }
    dr_raster_free(&raster);
    if (st != DR_OK) {
        dr_image_free(out);
        if (alpha != NULL) {
            free(*alpha);
            *alpha = NULL;
        }
    }
    return st;
}

dr_status dr_image_load_alpha(const char *path, const dr_image_options *o, dr_image *out,
                              unsigned char **alpha)
{
    *out = (dr_image){0};
    if (alpha != NULL) {
        *alpha = NULL;
    }
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
        st = decode_bytes(&in, o, out, alpha);
    }
    free(data);
    return st;
}

dr_status dr_image_load(const char *path, const dr_image_options *o, dr_image *out)
{
    return dr_image_load_alpha(path, o, out, NULL);
}

dr_status dr_image_decode(const char *name, const void *data, size_t size,
                          const dr_image_options *o, dr_image *out)
{
    *out = (dr_image){0};
    if (size == 0) {
        DR_FAIL(DR_FORMAT, "%s: no data", name);
    }
    return decode_bytes(&(dr_image_bytes){.path = name, .data = data, .size = size}, o, out, NULL);
}

static bool parse_hex_colour(const char *text, unsigned char rgb[3])
{
    static const char digits[] = "0123456789abcdef";
    if (text[0] != '#' || strlen(text) != 7) {
        return false;
    }
    for (int i = 0; i < 6; i++) {
        char c = text[1 + i];
        const char *digit = strchr(digits, c >= 'A' && c <= 'F' ? c - 'A' + 'a' : c);
        if (digit == NULL) {
            return false;
        }
        rgb[i / 2] = (unsigned char)(rgb[i / 2] << 4 | (digit - digits));
    }
    return true;
}

dr_status dr_alpha_color_parse(const char *text, dr_image_options *o)
{
    static const struct {
        const char *name;
        unsigned char level;
    } grays[] = {{"white", 255}, {"black", 0}, {"gray", 128}};
    o->keep_hidden = strcmp(text, "hidden") == 0;
    if (o->keep_hidden || parse_hex_colour(text, o->background)) {
        return DR_OK;
    }
    for (size_t i = 0; i < sizeof grays / sizeof grays[0]; i++) {
        if (strcmp(text, grays[i].name) == 0) {
            memset(o->background, grays[i].level, 3);
            return DR_OK;
        }
    }
    DR_FAIL(DR_INVALID,
            "'%s' is no colour; expected #RRGGBB, white, black, gray, or hidden (alpha is "
            "dropped)",
            text);
}
