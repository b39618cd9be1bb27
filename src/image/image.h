/*
 * image/image.h - pictures in memory: 8-bit RGB, read from JPEG, PNG, WebP and BMP files.
 *
 * Layer:    image.  May include base/ only.
 * Threads:  no shared state; any number of threads may decode at once.
 * Errors:   DR_IO (cannot open or read), DR_FORMAT (not a picture this program reads, damaged,
 *           truncated, empty, larger than the limit), DR_NOMEM. Every message names the file. On
 *           error an out-parameter is an empty image or untouched.
 *
 * What a file means is decided by its first bytes, never by its name.
 */
#ifndef DR_IMAGE_IMAGE_H
#define DR_IMAGE_IMAGE_H

#include "dreamrun/status.h"

typedef struct dr_image {
    int width, height;     /* pixels, >= 1 once filled */
    int channels;          /* always 3: R, G, B */
    unsigned char *pixels; /* (height, width, 3), rows without padding; NULL when empty */
    bool owned;            /* dr_image_free releases pixels */
} dr_image;

typedef enum dr_image_format {
    DR_IMAGE_JPEG,
    DR_IMAGE_PNG,
    DR_IMAGE_WEBP,
    DR_IMAGE_BMP,
    DR_IMAGE_FORMATS
} dr_image_format;

/* Pillow's decompression bomb limit (2 * 1024^3 / 4 / 3): what sd-scripts refuses as well. */
#define DR_IMAGE_MAX_PIXELS UINT64_C(178956970)

typedef struct dr_image_options {
    uint64_t max_pixels; /* width * height; larger pictures are refused before memory is taken */
    bool as_pillow;      /* --compat sd-scripts: see dr_image_load */
    bool keep_hidden;    /* --alpha_color hidden: alpha is dropped, not composited */
    unsigned char background[3]; /* --alpha_color: what shows through transparent pixels, sRGB */
} dr_image_options;

/* What a NULL pointer to options means: limit above, composited on white. */
extern const dr_image_options dr_image_defaults;

/* The value of --alpha_color: #RRGGBB, white, black, gray or hidden. DR_INVALID for others. */
DR_MUST_USE dr_status dr_alpha_color_parse(const char *text, dr_image_options *o);

/* "JPEG", "PNG", "WebP", "BMP". */
const char *dr_image_format_name(dr_image_format format);

/* Takes memory for a black image of width x height (>= 1 each) that img then owns. */
DR_MUST_USE dr_status dr_image_alloc(dr_image *img, int width, int height);
/* Releases an image; legal on a zeroed one and twice. */
void dr_image_free(dr_image *img);

/*
 * Size and format of a picture file from its headers alone, as dr_image_load would give it (EXIF
 * orientation included): for planning buckets. Decodes nothing, so it does not notice damage
 * further on; what headers prove to be cut off (WebP, BMP) is refused. width, height and format are
 * written on success only; each may be NULL.
 */
DR_MUST_USE dr_status dr_image_probe(const char *path, const dr_image_options *o, int *width,
                                     int *height, dr_image_format *format);

/*
 * Decodes a whole file to RGB. o NULL: dr_image_defaults. out is owned by the caller.
 *
 * As a person sees it: turned upright (EXIF orientation of JPEG, PNG eXIf and WebP), colours
 * converted to sRGB by the embedded ICC profile (perceptual intent, as Pillow's ImageCms; a profile
 * that deviates from sRGB by at most 1 of 255 changes nothing; one that is damaged, or is of
 * another colour space than the pixels, is left aside), transparent pixels composited on the
 * background, 16-bit samples rounded to 8. Gray becomes R = G = B; palettes are looked up; CMYK and
 * YCCK JPEGs are taken as Adobe's inverted ones and, without a profile, converted as Pillow does
 * it; gamma chunks are not applied. Of an animation the first frame counts.
 *
 * as_pillow: the pixels of Pillow's Image.open(path).convert("RGB"), which sd-scripts trains on:
 * orientation and profiles are ignored, alpha is dropped and pixels keep their hidden colour,
 * 16-bit samples keep their high byte, but 16-bit gray clips everything above 255 to white.
 *
 * Damage is an error, even where decoders would go on with gray areas: truncated files, bad CRCs,
 * corrupt JPEG data.
 */
DR_MUST_USE dr_status dr_image_load(const char *path, const dr_image_options *o, dr_image *out);
/*
 * The same, and the alpha channel: *alpha is (height, width) bytes, 255 = opaque, owned by the
 * caller (free), or NULL for a picture that has none. out keeps its hidden colours where as_pillow
 * or keep_hidden say so, else it is composited.
 */
DR_MUST_USE dr_status dr_image_load_alpha(const char *path, const dr_image_options *o,
                                          dr_image *out, unsigned char **alpha);
/* dr_image_load from memory; name is what messages call it. */
DR_MUST_USE dr_status dr_image_decode(const char *name, const void *data, size_t size,
                                      const dr_image_options *o, dr_image *out);

#endif
