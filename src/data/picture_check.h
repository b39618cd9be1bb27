/*
 * data/picture_check.h - is a picture file whole? Asked of all files before training starts.
 *
 * Layer:    data.
 */
#ifndef DR_DATA_PICTURE_CHECK_H
#define DR_DATA_PICTURE_CHECK_H

#include "data/buckets.h"
#include "image/image.h"

/*
 * Size of a picture file (as dr_image_load gives it with o; NULL: its defaults) from its headers,
 * after checking that it goes on to its end and has no more pixels than o allows. Decodes nothing,
 * so damage inside the pixels is found only by dr_image_load; a cut-off file is found here. A
 * dr_probe_fn. Errors: DR_FORMAT, DR_IO, with the path.
 */
DR_MUST_USE dr_status dr_picture_check(const char *path, const dr_image_options *o,
                                       dr_size_px *out);
/* The same by decoding the whole picture: finds all damage, at the price of a decode. With
 * --skip_bad_images, so that no damaged picture is met later. */
DR_MUST_USE dr_status dr_picture_check_decoding(const char *path, const dr_image_options *o,
                                                dr_size_px *out);

#endif
