/*
 * image/image.h - pictures in memory: 8-bit RGB, read from JPEG and PNG files.
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

typedef enum dr_image_format { DR_IMAGE_JPEG, DR_IMAGE_PNG } dr_image_format;

/* Pillow's decompression bomb limit (2 * 1024^3 / 4 / 3): what sd-scripts refuses as well. */
#define DR_IMAGE_MAX_PIXELS UINT64_C(178956970)

typedef struct dr_image_limits {
    uint64_t max_pixels; /* width * height; larger pictures are refused before memory is taken */
} dr_image_limits;

/* "JPEG", "PNG". */
const char *dr_image_format_name(dr_image_format format);

/* Takes memory for a black image of width x height (>= 1 each) that img then owns. */
DR_MUST_USE dr_status dr_image_alloc(dr_image *img, int width, int height);
/* Releases an image; legal on a zeroed one and twice. */
void dr_image_free(dr_image *img);

/*
 * Size and format of a picture file from its headers alone: for planning buckets. Reads a few
 * kilobytes, so it does not notice damage further on. EXIF orientation is not applied.
 * width, height and format are written on success only; each may be NULL.
 */
DR_MUST_USE dr_status dr_image_probe(const char *path, int *width, int *height,
                                     dr_image_format *format);

/*
 * Decodes a whole file to RGB. limits NULL: DR_IMAGE_MAX_PIXELS. out is owned by the caller.
 *
 * Pixels are those of Pillow's Image.open(path).convert("RGB"), which sd-scripts trains on:
 *   alpha and tRNS are dropped, pixels keep their hidden colour; gray becomes R = G = B; palettes
 *   are looked up; 16-bit samples keep their high byte; CMYK and YCCK JPEGs are taken as Adobe's
 *   inverted ones; EXIF orientation, gamma and ICC profiles are not applied.
 * One exception: 16-bit gray keeps its high byte too (Pillow clips everything above 255 to white).
 * Damage is an error, even where decoders would go on with gray areas: truncated files, bad CRCs,
 * corrupt JPEG data.
 */
DR_MUST_USE dr_status dr_image_load(const char *path, const dr_image_limits *limits, dr_image *out);

#endif
