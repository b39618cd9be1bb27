#include "data/picture_check.h"

#include "base/file.h"
#include "image/image.h"

#include <string.h>

static uint32_t read_be(const unsigned char *p, int n)
{
    uint32_t v = 0;
    for (int i = 0; i < n; i++) {
        v = v << 8 | p[i];
    }
    return v;
}

/* PNG, "Chunk layout": length, type, data, CRC; the last chunk is IEND. */
static bool png_reaches_end(const dr_map *m)
{
    size_t at = 8; /* behind the signature */
    while (m->size - at >= 12) {
        size_t length = read_be(m->data + at, 4);
        if (memcmp(m->data + at + 4, "IEND", 4) == 0) {
            return true;
        }
        if (length > m->size - at - 12) {
            return false;
        }
        at += 12 + length;
    }
    return false;
}

static bool find_end_of_image(const dr_map *m, size_t at)
{
    while (at + 1 < m->size) {
        const unsigned char *ff = memchr(m->data + at, 0xff, m->size - 1 - at);
        if (ff == NULL) {
            return false;
        }
        if (ff[1] == 0xd9) {
            return true;
        }
        at = (size_t)(ff - m->data) + 1;
    }
    return false;
}

/* ITU T.81, B.1: segments with their length up to the first scan (thumbnails lie inside them); in
 * scans 0xff is always followed by 0 or a marker, so the first ff d9 there is the end of image. */
static bool jpeg_reaches_end(const dr_map *m)
{
    size_t at = 2; /* behind SOI */
    while (m->size - at >= 4) {
        unsigned marker = m->data[at + 1];
        if (m->data[at] != 0xff || marker == 0x00 || marker == 0xff) {
            at++; /* padding */
            continue;
        }
        if (marker == 0xda) {
            return find_end_of_image(m, at + 2);
        }
        bool alone = marker == 0x01 || (marker >= 0xd0 && marker <= 0xd8);
        size_t length = alone ? 0 : read_be(m->data + at + 2, 2);
        if (length > m->size - at - 2) {
            return false;
        }
        at += 2 + length;
    }
    return false;
}

dr_status dr_picture_check(const char *path, const dr_image_options *o, dr_size_px *out)
{
    int w = 0;
    int h = 0;
    dr_image_format format = DR_IMAGE_JPEG;
    DR_TRY(dr_image_probe(path, o, &w, &h, &format));
    uint64_t most = o != NULL ? o->max_pixels : DR_IMAGE_MAX_PIXELS;
    if ((uint64_t)w * (uint64_t)h > most) {
        DR_FAIL(DR_FORMAT, "%s: %d x %d pixels are more than the limit of %llu; scale it down",
                path, w, h, (unsigned long long)most);
    }
    dr_map m = {0};
    DR_TRY(dr_map_open(&m, path));
    size_t size = m.size;
    bool whole = format == DR_IMAGE_PNG    ? png_reaches_end(&m)
                 : format == DR_IMAGE_JPEG ? jpeg_reaches_end(&m)
                                           : true; /* the headers of the others tell the size */
    dr_map_close(&m);
    if (!whole) {
        DR_FAIL(DR_FORMAT,
                "%s: truncated %s: the file ends after %zu bytes without its end marker; copy it "
                "again from its source, or save it anew",
                path, dr_image_format_name(format), size);
    }
    *out = (dr_size_px){w, h};
    return DR_OK;
}

dr_status dr_picture_check_decoding(const char *path, const dr_image_options *o, dr_size_px *out)
{
    dr_image image = {0};
    DR_TRY(dr_picture_check(path, o, out)); /* says more plainly that a file is cut off */
    DR_TRY(dr_image_load(path, o, &image));
    dr_image_free(&image);
    return DR_OK;
}
