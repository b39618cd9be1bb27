/*
 * image/image_internal.h - what the decoders and the dispatcher of this layer share.
 *
 * Layer:    image, private.
 */
#ifndef DR_IMAGE_IMAGE_INTERNAL_H
#define DR_IMAGE_IMAGE_INTERNAL_H

#include "image/image.h"

typedef struct dr_image_bytes { /* a file's content (or its beginning), and the name to blame */
    const char *path;
    const unsigned char *data;
    size_t size;
} dr_image_bytes;

typedef struct dr_image_info {
    dr_image_format format;
    int width, height;
} dr_image_info;

#define DR_IMAGE_RESAVE "copy it again from its source, or save it anew as PNG or JPEG"

/* Sizes from headers; no third-party code, nothing allocated. in->data has at least the magic. */
DR_MUST_USE dr_status dr_jpeg_probe(const dr_image_bytes *in, dr_image_info *info);
DR_MUST_USE dr_status dr_png_probe(const dr_image_bytes *in, dr_image_info *info);

/* Decode into out, whose size was probed and checked against the limit before (info). */
DR_MUST_USE dr_status dr_jpeg_decode(const dr_image_bytes *in, const dr_image_info *info,
                                     dr_image *out);
DR_MUST_USE dr_status dr_png_decode(const dr_image_bytes *in, const dr_image_info *info,
                                    dr_image *out);

/* The two resamplers behind dr_image_resize; dst is allocated, sizes differ. */
DR_MUST_USE dr_status dr_resize_area(const dr_image *src, dr_image *dst);
DR_MUST_USE dr_status dr_resize_lanczos(const dr_image *src, dr_image *dst);

#endif
