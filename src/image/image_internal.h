/*
 * image/image_internal.h - what the decoders and the dispatcher of this layer share.
 *
 * Layer:    image, private.
 */
#ifndef DR_IMAGE_IMAGE_INTERNAL_H
#define DR_IMAGE_IMAGE_INTERNAL_H

#include "image/image.h"

typedef struct dr_image_bytes { /* a file's content, and the name to blame */
    const char *path;
    const unsigned char *data;
    size_t size;
} dr_image_bytes;

typedef struct dr_image_info { /* from headers */
    dr_image_format format;
    int width, height; /* as stored */
    int orientation;   /* EXIF: 1 (upright) to 8 */
} dr_image_info;

typedef enum dr_colours { DR_GRAY = 1, DR_RGB = 3, DR_CMYK = 4 } dr_colours; /* value: samples */

typedef struct dr_raster { /* a decoded picture before colour management */
    int width, height;
    dr_colours colours;
    bool alpha;          /* one more sample behind the colours, not premultiplied */
    int bits;            /* 8, or 16 in host order */
    bool clips;          /* 16-bit gray, which Pillow clips instead of scaling */
    unsigned char *data; /* rows without padding; CMYK: 255 = full ink. Owned */
    unsigned char *icc;  /* the embedded profile, owned; NULL: none */
    size_t icc_size;
} dr_raster;

#define DR_IMAGE_RESAVE "copy it again from its source, or save it anew as PNG or JPEG"

/* Sizes from headers; no third-party code, nothing allocated. in->data has at least the magic. */
DR_MUST_USE dr_status dr_jpeg_probe(const dr_image_bytes *in, dr_image_info *info);
DR_MUST_USE dr_status dr_png_probe(const dr_image_bytes *in, dr_image_info *info);
DR_MUST_USE dr_status dr_webp_probe(const dr_image_bytes *in, dr_image_info *info);
DR_MUST_USE dr_status dr_bmp_probe(const dr_image_bytes *in, dr_image_info *info);

/* Decode into a zeroed raster; the size was probed and checked against the limit before (info).
 * What stands in the raster after an error is released by the caller. */
DR_MUST_USE dr_status dr_jpeg_decode(const dr_image_bytes *in, const dr_image_info *info,
                                     dr_raster *out);
DR_MUST_USE dr_status dr_png_decode(const dr_image_bytes *in, const dr_image_info *info,
                                    dr_raster *out);
DR_MUST_USE dr_status dr_webp_decode(const dr_image_bytes *in, const dr_image_info *info,
                                     dr_raster *out);
DR_MUST_USE dr_status dr_bmp_decode(const dr_image_bytes *in, const dr_image_info *info,
                                    dr_raster *out);

/* Sets the layout and takes zeroed memory for it. */
DR_MUST_USE dr_status dr_raster_alloc(dr_raster *r, const dr_image_info *info, dr_colours colours,
                                      bool alpha, int bits);
static inline size_t dr_raster_samples(const dr_raster *r) /* per pixel */
{
    return (size_t)r->colours + (r->alpha ? 1 : 0);
}
static inline size_t dr_raster_row_bytes(const dr_raster *r)
{
    return (size_t)r->width * dr_raster_samples(r) * (size_t)(r->bits / 8);
}
/* Keeps a copy of an embedded profile; more than 64 MiB is no profile and is left aside. */
DR_MUST_USE dr_status dr_raster_set_icc(dr_raster *r, const void *icc, size_t size);
void dr_raster_free(dr_raster *r);
/* Colours, alpha, orientation: what dr_image_load says. Takes r's memory where it can. alpha may be
 * NULL: not wanted. */
DR_MUST_USE dr_status dr_raster_finish(dr_raster *r, int orientation, const dr_image_options *o,
                                       dr_image *out, unsigned char **alpha);

/* The orientation in a TIFF block of n bytes: 1 where there is none or it makes no sense. */
int dr_exif_orientation(const unsigned char *tiff, size_t n);
/* Turns (height, width, samples) bytes upright; swaps the sides for orientations 5 to 8. *pixels is
 * replaced. orientation 1 to 8. */
DR_MUST_USE dr_status dr_turn_upright(unsigned char **pixels, int *width, int *height, int samples,
                                      int orientation);

typedef struct dr_icc dr_icc; /* a colour transform to sRGB */
/* *out NULL: the profile changes nothing, or cannot be used for this raster's pixels. */
DR_MUST_USE dr_status dr_icc_open(const dr_raster *r, dr_icc **out);
/* n pixels as in the raster to RGB; alpha is skipped. in and rgb may be the same for 8-bit RGB. */
void dr_icc_run(const dr_icc *icc, const void *in, unsigned char *rgb, size_t n);
void dr_icc_close(dr_icc *icc);

/* Little-endian numbers of RIFF and BMP. */
static inline uint32_t dr_le32(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static inline uint32_t dr_le16(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}
static inline uint32_t dr_be32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
}

/* a * b / 255 rounded, as Pillow computes it in conversions and pastes. */
static inline unsigned dr_mul_div_255(unsigned a, unsigned b)
{
    unsigned t = a * b + 128;
    return ((t >> 8) + t) >> 8;
}

/* The resamplers behind dr_image_resize; dst is allocated, sizes differ. dr_resize_area: neither
 * side grows. */
typedef enum dr_pillow_filter { DR_PILLOW_LANCZOS, DR_PILLOW_BOX } dr_pillow_filter;
typedef enum dr_cv_filter {
    DR_CV_NEAREST,
    DR_CV_LINEAR,
    DR_CV_CUBIC,
    DR_CV_AREA /* what INTER_AREA does where a side grows */
} dr_cv_filter;
DR_MUST_USE dr_status dr_resize_area(const dr_image *src, dr_image *dst);
DR_MUST_USE dr_status dr_resize_pillow(const dr_image *src, dr_pillow_filter filter, dr_image *dst);
DR_MUST_USE dr_status dr_resize_cv(const dr_image *src, dr_cv_filter filter, dr_image *dst);

#endif
