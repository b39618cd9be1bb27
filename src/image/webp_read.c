/*
 * image/webp_read.c - WebP files: our own walk through the container, libwebp for the pixels.
 *
 * Source: "WebP Container Specification": RIFF of chunks (name, length, data, padded to even).
 */
#include "image/image_internal.h"

#include <string.h>

#include <webp/decode.h>

typedef struct webp_frame { /* the picture, or the first frame of an animation */
    const unsigned char *data;
    size_t size;
    int x, y; /* on the canvas */
} webp_frame;

typedef struct webp_parts {
    int width, height; /* of the canvas; 0: not found */
    int orientation;
    const unsigned char *icc;
    size_t icc_size;
    webp_frame frame; /* data NULL: not found */
} webp_parts;

static int read_le24(const unsigned char *p)
{
    return p[0] | p[1] << 8 | p[2] << 16;
}

/* Width and height of a frame in "VP8 " (RFC 6386, 9.1) or "VP8L" form; leaves them when short. */
static void read_frame_size(const unsigned char *name, const unsigned char *p, size_t n,
                            webp_parts *w)
{
    if (name[3] == ' ' && n >= 10 && p[3] == 0x9D && p[4] == 0x01 && p[5] == 0x2A) {
        w->width = (int)(dr_le16(p + 6) & 0x3FFF);
        w->height = (int)(dr_le16(p + 8) & 0x3FFF);
    } else if (name[3] == 'L' && n >= 5 && p[0] == 0x2F) {
        uint32_t bits = dr_le32(p + 1);
        w->width = (int)(bits & 0x3FFF) + 1;
        w->height = (int)(bits >> 14 & 0x3FFF) + 1;
    }
}

static void read_animation_frame(const unsigned char *p, size_t n, webp_parts *w)
{
    if (n > 16 && w->frame.data == NULL) {
        w->frame = (webp_frame){p + 16, n - 16, read_le24(p) * 2, read_le24(p + 3) * 2};
    }
}

static void read_exif(const unsigned char *p, size_t n, webp_parts *w)
{
    bool prefixed = n > 6 && memcmp(p, "Exif\0\0", 6) == 0;
    w->orientation = dr_exif_orientation(p + (prefixed ? 6 : 0), n - (prefixed ? 6 : 0));
}

/* One chunk: name at p, n bytes of data behind the 8 of its header, rest: to the end of the file.
 */
static void read_chunk(const unsigned char *p, size_t n, size_t rest, webp_parts *w)
{
    const unsigned char *data = p + 8;
    if (memcmp(p, "VP8X", 4) == 0 && n >= 10) {
        w->width = read_le24(data + 4) + 1;
        w->height = read_le24(data + 7) + 1;
    } else if (memcmp(p, "ALPH", 4) == 0 && w->frame.data == NULL) {
        w->frame = (webp_frame){.data = p, .size = rest};
    } else if ((memcmp(p, "VP8 ", 4) == 0 || memcmp(p, "VP8L", 4) == 0)) {
        if (w->width == 0) {
            read_frame_size(p, data, n, w);
        }
        if (w->frame.data == NULL) {
            w->frame = (webp_frame){.data = p, .size = rest};
        }
    } else if (memcmp(p, "ANMF", 4) == 0) {
        read_animation_frame(data, n, w);
    } else if (memcmp(p, "ICCP", 4) == 0) {
        w->icc = data;
        w->icc_size = n;
    } else if (memcmp(p, "EXIF", 4) == 0) {
        read_exif(data, n, w);
    }
}

static dr_status walk(const dr_image_bytes *in, webp_parts *w)
{
    *w = (webp_parts){.orientation = 1};
    size_t size = in->size < 12 ? 0 : dr_le32(in->data + 4);
    if (in->size < 20 || size > in->size - 8) {
        DR_FAIL(DR_FORMAT, "%s: truncated WebP: the header says %zu bytes, the file has %zu; %s",
                in->path, size + 8, in->size, DR_IMAGE_RESAVE);
    }
    size_t end = size + 8;
    for (size_t at = 12; at < end && end - at >= 8;) {
        size_t n = dr_le32(in->data + at + 4);
        if (n > end - at - 8) {
            DR_FAIL(DR_FORMAT,
                    "%s: damaged WebP: a chunk of %zu bytes at %zu goes beyond the end; %s",
                    in->path, n, at, DR_IMAGE_RESAVE);
        }
        read_chunk(in->data + at, n, end - at, w);
        at += 8 + n + (n & 1);
    }
    if (w->width == 0 || w->frame.data == NULL) {
        DR_FAIL(DR_FORMAT, "%s: damaged WebP: no picture inside; %s", in->path, DR_IMAGE_RESAVE);
    }
    return DR_OK;
}

dr_status dr_webp_probe(const dr_image_bytes *in, dr_image_info *info)
{
    webp_parts w;
    DR_TRY(walk(in, &w));
    *info = (dr_image_info){.format = DR_IMAGE_WEBP,
                            .width = w.width,
                            .height = w.height,
                            .orientation = w.orientation};
    return DR_OK;
}

static const char *status_text(VP8StatusCode st)
{
    switch (st) {
    case VP8_STATUS_OUT_OF_MEMORY:
        return "not enough memory";
    case VP8_STATUS_NOT_ENOUGH_DATA:
    case VP8_STATUS_SUSPENDED:
        return "the data end too early";
    case VP8_STATUS_UNSUPPORTED_FEATURE:
        return "an unknown feature";
    default:
        return "its data make no sense";
    }
}

/* Decodes the frame to its place in the raster; the raster is zeroed: transparent. */
static VP8StatusCode decode_frame(const webp_frame *f, WebPDecoderConfig *config, dr_raster *out)
{
    size_t step = dr_raster_samples(out);
    size_t row = dr_raster_row_bytes(out);
    size_t start = (size_t)f->y * row + (size_t)f->x * step;
    config->output.colorspace = out->alpha ? MODE_RGBA : MODE_RGB;
    config->output.is_external_memory = 1;
    config->output.u.RGBA.rgba = out->data + start;
    config->output.u.RGBA.stride = (int)row;
    config->output.u.RGBA.size = row * (size_t)out->height - start;
    VP8StatusCode st = WebPDecode(f->data, f->size, config);
    WebPFreeDecBuffer(&config->output);
    return st;
}

dr_status dr_webp_decode(const dr_image_bytes *in, const dr_image_info *info, dr_raster *out)
{
    webp_parts w;
    WebPDecoderConfig config;
    DR_TRY(walk(in, &w));
    VP8StatusCode st = WebPInitDecoderConfig(&config) ? VP8_STATUS_OK : VP8_STATUS_INVALID_PARAM;
    if (st == VP8_STATUS_OK) {
        st = WebPGetFeatures(w.frame.data, w.frame.size, &config.input);
    }
    if (st == VP8_STATUS_OK &&
        (config.input.width > w.width - w.frame.x || config.input.height > w.height - w.frame.y)) {
        DR_FAIL(DR_FORMAT,
                "%s: damaged WebP: a frame of %d x %d at (%d, %d) on a canvas of %d x %d; %s",
                in->path, config.input.width, config.input.height, w.frame.x, w.frame.y, w.width,
                w.height, DR_IMAGE_RESAVE);
    }
    if (st == VP8_STATUS_OK) {
        bool covers = config.input.width == w.width && config.input.height == w.height;
        DR_TRY(dr_raster_set_icc(out, w.icc, w.icc_size));
        DR_TRY(dr_raster_alloc(out, info, DR_RGB, config.input.has_alpha != 0 || !covers, 8));
        st = decode_frame(&w.frame, &config, out);
    }
    if (st != VP8_STATUS_OK) {
        DR_FAIL(st == VP8_STATUS_OUT_OF_MEMORY ? DR_NOMEM : DR_FORMAT,
                "%s: damaged or truncated WebP: %s (%zu bytes, %d x %d pixels); %s", in->path,
                status_text(st), in->size, info->width, info->height, DR_IMAGE_RESAVE);
    }
    return DR_OK;
}
